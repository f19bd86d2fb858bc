"""What came of passing a port to a torrent client, in words, and when to look at it again. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from gateway.model import Address, Protocol
from gateway.model.frozen import frozen
from gateway.model.lease import Connection
from gateway.model.port_client import ClientKind, PortClient

NAMES = {
    ClientKind.QBITTORRENT: "qBittorrent",
    ClientKind.TRANSMISSION: "Transmission",
    ClientKind.DELUGE: "Deluge",
}


class Outcome(StrEnum):
    """What came of one look at the client."""

    LISTENING = "listening"
    NOT_SEEN = "not_seen"
    """It has the port; the kernel cannot say whether it listens there."""
    ABSENT = "absent"
    REFUSED = "refused"
    LOGIN_WANTED = "login_wanted"
    BANNED = "banned"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    ODD = "odd"
    NO_DAEMON = "no_daemon"
    NOT_SET = "not_set"
    TAKEN = "taken"
    ELSEWHERE = "elsewhere"
    SILENT = "silent"
    BROKEN = "broken"
    """The gateway's own process failed."""


GOOD = frozenset({Outcome.LISTENING, Outcome.NOT_SEEN})
NOT_THERE = frozenset({Outcome.ABSENT, Outcome.NO_DAEMON})
LOCKED_OUT = frozenset({Outcome.REFUSED, Outcome.LOGIN_WANTED, Outcome.BANNED})
"""Another attempt would be refused too, and some clients count them and ban the address."""


@frozen
class Look:
    """One look: its outcome for `port`, and a short `detail` that was quoted from the client.

    `changed` is whether the port was set. `seen` are the sockets of the client's web interface:
    when they are others, it has been started again.
    """

    outcome: Outcome
    port: int
    detail: str = ""
    changed: bool = False
    seen: tuple[int, ...] = ()


def problem(kind: ClientKind, where: str, look: Look) -> tuple[str, str]:
    """Return what is wrong and what to do, both empty if nothing is; `where` is the URL in use."""
    if look.outcome in GOOD:
        return "", ""
    what, remedy = WORDS[look.outcome]
    said = {
        "name": NAMES[kind],
        "where": where,
        "port": look.port,
        "quoted": look.detail,
        "detail": f" ({look.detail})" if look.detail else "",
    }
    return what.format(**said), (remedy or SPECIAL[look.outcome][kind]).format(**said)


URL, USER, PASSWORD = (f"FORWARDED_PORT_CLIENT_{it}" for it in ("URL", "USER", "PASSWORD"))
INTERFACE = "in the settings of {name}, have it use any interface, or wg0"

WORDS: Mapping[Outcome, tuple[str, str]] = {
    Outcome.ABSENT: (
        "{name} does not answer at {where}{detail}",
        f"start it in the gateway's network, or set {URL} to where its web interface is",
    ),
    Outcome.REFUSED: (
        "{name} does not accept the user and password",
        (
            f"write those of its web interface in {USER} and {PASSWORD} and start the gateway "
            "again, or correct them in {name} and start that again"
        ),
    ),
    Outcome.LOGIN_WANTED: ("{name} wants a login{detail}", ""),
    Outcome.BANNED: (
        "{name} has banned the gateway's address after too many wrong logins",
        (
            f"correct {PASSWORD}, or the password of another program that logs in, and start "
            "{name} again"
        ),
    ),
    Outcome.FORBIDDEN: ("{name} refuses requests from the gateway's address{detail}", ""),
    Outcome.NOT_FOUND: (
        "what answers at {where} is not {name}{detail}",
        f"set {URL} to the web interface of {{name}}",
    ),
    Outcome.ODD: (
        "{name} at {where} answers in another way than expected{detail}",
        f"set {URL} to the web interface of {{name}} itself, not to a proxy",
    ),
    Outcome.NO_DAEMON: (
        "the web interface of {name} has no daemon to talk to{detail}",
        "start deluged, and add it in the Connection Manager of the web interface",
    ),
    Outcome.NOT_SET: (
        "{name} did not take port {port}{detail}",
        "look into the log of {name}, and let it write to its settings",
    ),
    Outcome.TAKEN: (
        "port {port} is taken by another program in the gateway's network",
        "stop that program, or give it another port; {name} follows by itself",
    ),
    Outcome.ELSEWHERE: (
        "{name} listens to port {port} at {quoted} only, not in the tunnel",
        INTERFACE,
    ),
    Outcome.SILENT: (
        "{name} has port {port}, but does not listen there",
        f"look into the log of {{name}}; {INTERFACE}",
    ),
    Outcome.BROKEN: (
        "the process that talks to {name} failed{detail}",
        "set the port by hand, and report this with the log",
    ),
}
"""What is wrong, and what to do; the latter is empty where it depends on the client."""

SPECIAL: Mapping[Outcome, Mapping[ClientKind, str]] = {
    Outcome.LOGIN_WANTED: {
        ClientKind.QBITTORRENT: f"set {USER} and {PASSWORD}, or switch on in its options, Web UI: "
        "Bypass authentication for clients on localhost",
        ClientKind.TRANSMISSION: f"set {USER} and {PASSWORD} to rpc-username and the password of "
        "its settings",
        ClientKind.DELUGE: f"set {PASSWORD} to that of its web interface",
    },
    Outcome.FORBIDDEN: {
        ClientKind.QBITTORRENT: "in its options, Web UI: list the address in {where} among the "
        "server domains, or switch off Host header validation",
        ClientKind.TRANSMISSION: "add the gateway's address, on loopback 127.0.0.1, to "
        "rpc-whitelist in its settings, while it is stopped",
        ClientKind.DELUGE: f"set {URL} to its web interface itself, not to a proxy",
    },
}


@frozen
class Wanted:
    """What `client` is to do: listen at `port`, where packets for `addresses` arrive."""

    client: PortClient
    port: int
    addresses: tuple[Address, ...]


def wanted(client: PortClient | None, connection: Connection | None) -> Wanted | None:
    """Return what the client is to do; None if none is wanted, or it has no port yet.

    It gets the first port that is leased for TCP, or else the one that its user has listed. Packets
    for a leased port come by one version of IP, those for a listed one by IPv4 if there is any.
    """
    if client is None or connection is None:
        return None
    own = [it.ip for it in connection.tunnel.addresses]
    leases = sorted(connection.leases, key=lambda it: Protocol.TCP not in it.protocols)
    if client.listed is not None:
        port, version = client.listed, min((it.version for it in own), default=4)
    elif leases:
        port, version = leases[0].listening, leases[0].version
    else:
        return None
    return Wanted(client, port, tuple(it for it in own if it.version == version))


EVERY = 30.0
"""Seconds until the next look at a client that listens."""
ABSENT_EVERY = 5.0
"""The same at a client that is not there: it costs one attempt to connect."""
ABSENT_FOR = 24
"""How often that quickly, two minutes; after that every EVERY."""
SAID_AFTER = 6
"""After how many such looks it is logged: a client is often started after the gateway."""
LONGEST = 300.0
"""The longest pause after other problems."""
LOGIN_EVERY = 3600.0
LOGIN_LONGEST = 86400.0
"""Seconds until the same login is tried again, and the longest. qBittorrent bans an address for an
hour after five refusals, which would lock out others that come from loopback too."""


@frozen
class Past:
    """What is remembered of former looks: the last outcome, and how many times it came in a row.

    `refusals` are those of logins in a row. The next login is due at `login_at` on the gateway's
    clock, or when the sockets of the client's web interface differ from `seen`.
    """

    outcome: Outcome | None = None
    times: int = 0
    refusals: int = 0
    login_at: float = 0.0
    seen: tuple[int, ...] = ()

    def after(self, look: Look | None, now: float) -> "Past":
        """Return what is remembered after a look at the time `now`; None: nothing was tried."""
        if look is None:
            return replace(self, times=self.times + 1)
        times = self.times + 1 if look.outcome is self.outcome else 1
        if look.outcome in LOCKED_OUT:
            refusals = self.refusals + 1
            return Past(look.outcome, times, refusals, now + login_pause(refusals), look.seen)
        # A client that is not there for now has not accepted anything.
        refusals = self.refusals if look.outcome in NOT_THERE else 0
        return Past(look.outcome, times, refusals, 0.0, look.seen)

    def unless(self, now: float) -> tuple[int, ...] | None:
        """Return the sockets with which no login is tried; None if the next look may log in."""
        return self.seen if self.outcome in LOCKED_OUT and now < self.login_at else None

    @property
    def pause(self) -> float:
        """The seconds until the next look, which is one at sockets only while `unless` says so."""
        if self.outcome in NOT_THERE:
            return ABSENT_EVERY if self.times <= ABSENT_FOR else EVERY
        if self.outcome is None or self.outcome in GOOD | LOCKED_OUT:
            return EVERY
        return float(min(EVERY * 2 ** min(self.times - 1, 10), LONGEST))


def login_pause(refusals: int) -> float:
    """Return the seconds until the next login after so many refusals, one or more."""
    return float(min(LOGIN_EVERY * 3 ** min(refusals - 1, 10), LOGIN_LONGEST))
