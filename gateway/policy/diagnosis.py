"""Why a server does not complete a handshake, as far as it can be known from here.

WireGuard is silent by design: a server does not answer keys that it does not know. So most causes
look alike, and the text lists them. A few leave a trace: an ICMP error, an answer that does not
fit, a cookie instead of an answer, a clock that cannot be right.
"""

from enum import StrEnum

from gateway.model import Endpoint
from gateway.model.frozen import frozen


class Cause(StrEnum):
    """Stable codes, with texts in `TEXTS`."""

    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    NOT_ACCEPTED = "answer_not_accepted"
    RATE_LIMITED = "rate_limited"
    CLOCK = "clock_too_early"
    NOT_SENT = "nothing_sent"


TEXTS: dict[Cause, str] = {
    Cause.NO_ANSWER: (
        "packets leave, and nothing returns: UDP may be blocked on the way, or the address, the "
        "port, a key or the account may be wrong or expired, or this machine's clock be behind; "
        "compare them with a new WireGuard file of your provider, and try another port if it has "
        "one"
    ),
    Cause.UNREACHABLE: (
        "{heard}: nothing listens there, or a firewall rejects it; compare the endpoint's address "
        "and port with your provider's WireGuard file"
    ),
    Cause.NOT_ACCEPTED: (
        "the server answers, but its answer does not fit our keys: the preshared key is wrong or "
        "missing, or the private key belongs to another server; copy both from your provider's "
        "WireGuard file"
    ),
    Cause.RATE_LIMITED: (
        "the server is under load and limits handshakes; if this lasts, choose another server"
    ),
    Cause.CLOCK: (
        "this machine's clock is earlier than the gateway was built, and a server ignores a "
        "handshake that looks older than the last one; set the clock (NTP)"
    ),
    Cause.NOT_SENT: "nothing was sent to the server; the log says what fails",
}
"""What a person reads: what is known, what it can mean, and what helps."""


@frozen
class Heard:
    """What was noticed besides WireGuard's counters since the interface was built.

    `unreachable` describes the last ICMP error about the flow, "" without one. `responses` and
    `cookies` count messages of the server (WireGuard paper, 5.4.3 and 5.4.7). `early_clock`: the
    clock is earlier than the gateway's own files.
    """

    unreachable: str = ""
    responses: int = 0
    cookies: int = 0
    early_clock: bool = False

    def with_more(self, more: "Heard") -> "Heard":
        """Return this and what was noticed later."""
        return Heard(
            more.unreachable or self.unreachable,
            self.responses + more.responses,
            self.cookies + more.cookies,
            more.early_clock,
        )


NOTHING = Heard()


@frozen
class Diagnosis:
    """The most likely cause, and the text for people."""

    cause: Cause
    text: str


def diagnose(heard: Heard, sent: int, endpoints: tuple[Endpoint, ...]) -> Diagnosis:
    """Return why `endpoints` have not completed a handshake after `sent` bytes to them."""
    if heard.responses:
        cause = Cause.NOT_ACCEPTED
    elif heard.cookies:
        cause = Cause.RATE_LIMITED
    elif heard.unreachable:
        cause = Cause.UNREACHABLE
    elif heard.early_clock:
        cause = Cause.CLOCK
    else:
        cause = Cause.NO_ANSWER if sent else Cause.NOT_SENT
    where = ", ".join(map(str, endpoints))
    text = TEXTS[cause].format(heard=heard.unreachable)
    return Diagnosis(cause, f"{where}: {text}")
