"""Trying everything, and what came of it."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import Request, urlopen

from gateway.errors import NetworkError
from gateway.model import INTERFACE, Address, Facts, Tunnel
from gateway.system.network import Network
from gateway.verification.trials import ANSWERED, SENT, Trial, ordinary, trials
from gateway.verification.witness import Witness

ECHO_TIME = 10.0
"""Seconds that an address echo may take."""

LONGEST_ECHO = 200
"""Bytes of an address echo's answer that are shown."""

RED_WITHIN = 10.0
GREEN_WITHIN = 30.0
"""Seconds that the gateway may take to notice the cut tunnel, and to have it back."""


@dataclass(frozen=True)
class Line:
    """What was tried, what happened, and whether that is as promised."""

    tried: str
    happened: str
    ok: bool


Ask = Callable[[], Mapping[str, object]]
"""Asks the running gateway how it is: the JSON body of /healthz. Raises NetworkError."""


class Verification:
    """One run of `gateway verify` in the namespace that the process is in."""

    def __init__(self, ask: Ask, tunnel: Tunnel | None, resolvers: tuple[Address, ...]) -> None:
        """`ask` asks the gateway; `resolvers` are those outside of the tunnel."""
        self._ask = ask
        self._tunnel = tunnel
        self._resolvers = resolvers
        self._network = Network(INTERFACE)
        self._facts: Facts = self._network.facts()
        self._marker = f"portcullis-{secrets.token_hex(8)}".encode()

    def run(self, *, echo: str = "", cut: bool = False) -> list[Line]:
        """Try everything; fetch the address echo at the URL `echo`; `cut` the tunnel for a moment.

        Raises NetworkError when the witness cannot listen.
        """
        uplinks = tuple(uplink.name for uplink in self._facts.uplinks)
        with Witness(uplinks, self._marker) as witness:
            lines = [*self._health(), *self._inside(witness)]
            if echo:
                lines.append(_fetch(echo))
            lines += self._around(witness, trials(self._facts, self._tunnel, self._resolvers))
            if cut:
                lines += self._cut(witness)
        return lines

    def _health(self) -> list[Line]:
        try:
            told = self._ask()
        except NetworkError as err:
            return [Line("health", str(err), ok=False)]
        limits = told["limits"]
        drift = f"{told['drift']} changes by others put back so far"
        return [
            Line("health", str(told["reason"]), bool(told["healthy"])),
            Line("rules and routes, read back", drift, ok=True),
            *(
                Line("limit of this machine", str(limit), ok=True)
                for limit in (limits if isinstance(limits, list) else ())
            ),
        ]

    def _inside(self, witness: Witness) -> list[Line]:
        """Send into the tunnel: the control that the witness sees what leaves."""
        witness.seen()
        addresses = ", ".join(str(a.ip) for a in self._tunnel.addresses) if self._tunnel else "?"
        results = [trial.run(self._marker) for trial in ordinary() if "UDP" in trial.name]
        seen = witness.seen(0.2)
        return [
            Line("address inside the tunnel", addresses, ok=True),
            Line(
                "traffic into the tunnel",
                f"{', '.join(results)}; the witness saw {seen.frames} frames leave, "
                f"{seen.leaks} of them in clear",
                ok=SENT in results and seen.frames > 0 and not seen.leaks,
            ),
        ]

    def _around(self, witness: Witness, tried: Iterable[Trial]) -> list[Line]:
        return [self._attempt(witness, trial) for trial in tried]

    def _attempt(self, witness: Witness, trial: Trial) -> Line:
        witness.seen(0)
        result = trial.run(self._marker)
        leaked = witness.seen().leaks > 0 or result == ANSWERED
        unseen = result == SENT and not trial.is_shown
        if leaked or unseen:
            happened = f"{result}, and it LEFT"
        else:
            happened = "went into the tunnel" if result == SENT else f"refused ({result})"
        return Line(trial.name, happened, not leaked and not unseen)

    def _cut(self, witness: Witness) -> list[Line]:
        """Take the tunnel away and go on sending until it is back."""
        witness.seen()
        began = time.monotonic()
        self._network.delete_link(INTERFACE)
        red = self._until(healthy=False, deadline=began + RED_WITHIN)
        green = self._until(healthy=True, deadline=began + GREEN_WITHIN) if red else False
        seen = witness.seen()
        seconds = time.monotonic() - began
        left = f"{seen.leaks} frames LEFT" if seen.leaks else "nothing left in clear"
        return [
            Line("tunnel cut while sending", left, not seen.leaks),
            Line("noticed", "health was red meanwhile" if red else "health stayed green", red),
            Line("back again", f"after {seconds:.1f} s" if green else "not yet", green),
        ]

    def _until(self, *, healthy: bool, deadline: float) -> bool:
        """Send as applications do until the gateway says that it is `healthy`, or is not."""
        while time.monotonic() < deadline:
            for trial in ordinary():
                if "UDP" in trial.name:
                    trial.run(self._marker)
            try:
                if bool(self._ask()["healthy"]) is healthy:
                    return True
            except NetworkError:
                continue
        return False


def _fetch(url: str) -> Line:
    """Ask an address echo that the user named, the way an application would: in the tunnel."""
    if not url.startswith(("http://", "https://")):
        return Line(f"address seen by {url}", "not an http or https address", ok=False)
    try:
        with urlopen(Request(url), timeout=ECHO_TIME) as answer:  # noqa: S310 - checked above
            text = answer.read(LONGEST_ECHO).decode("ascii", "replace").strip()
    except (URLError, OSError, ValueError) as err:
        return Line(f"address seen by {url}", f"no answer: {err}", ok=False)
    return Line(
        f"address seen by {url}", text.splitlines()[0] if text else "nothing", ok=bool(text)
    )
