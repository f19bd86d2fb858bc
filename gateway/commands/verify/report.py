"""One run of `gateway verify`: every trial, and the lines that report it."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from http.client import HTTPException
from urllib.request import Request, urlopen

from gateway.commands.in_time import in_time
from gateway.commands.verify.answer import Answer, answer_from
from gateway.commands.verify.attempts import SENT
from gateway.commands.verify.held import Held, compared, look
from gateway.commands.verify.lines import BLIND, Line, judged
from gateway.commands.verify.places import Places
from gateway.commands.verify.trials import Trial, on_a_link, ordinary, quick, trials
from gateway.commands.verify.witness import Seen, Witness
from gateway.errors import GatewayError, MissingError, NetworkError
from gateway.model import INTERFACE, Address, Config
from gateway.policy.states import Reason
from gateway.policy.upstreams import upstreams_of
from gateway.system.features import missing_capabilities
from gateway.system.namespace import Namespace
from gateway.system.netns import OWN, Netns

ECHO_TIME = 10.0
"""Seconds that an address echo may take."""

MOST_TRIES = 3
"""How often an attempt is made while the witness loses frames."""

LONGEST_ECHO = 200
"""Bytes of an address echo's answer that are shown."""

RED_WITHIN = 10.0
GREEN_WITHIN = 30.0
"""Seconds that the gateway may take to detect the cut tunnel, and to have it again."""

READ_BACK_WITHIN = 10.0
"""Seconds since the gateway last found the kernel as wanted; it compares every three."""

RAW_IN_VAULT = "in the vault: raw sockets and packet sockets"
"""They take CAP_NET_RAW of who opens them, and the vault's process keeps CAP_NET_ADMIN alone."""

Ask = Callable[[], Mapping[str, object]]
"""Asks the running gateway for the JSON body of /healthz. Raises NetworkError."""


class Verification:
    """One run of `gateway verify` in the namespaces `places`."""

    def __init__(
        self,
        ask: Ask,
        config: Config,
        resolvers: tuple[Address, ...],
        places: Places = Places(),  # noqa: B008 - it is frozen
    ) -> None:
        """Take how to `ask` the gateway, and the resolvers that the container was given."""
        self._ask = ask
        self._config = config
        self._resolvers = resolvers
        self._places = places
        self._facts = Namespace(places.uplinks).facts()
        self._inner_facts = places.seen_by_workloads()
        self._marker = f"portcullis-{secrets.token_hex(8)}".encode()

    def run(self, *, echo: str = "", cut: bool = False) -> list[Line]:
        """Try everything; fetch the address echo at the URL `echo`; `cut` the tunnel for a moment.

        Raises MissingError without the capabilities that it takes, and NetworkError when the
        witness cannot listen.
        """
        if missing := missing_capabilities("NET_ADMIN", "NET_RAW"):
            raise without(missing)
        uplinks = tuple(uplink.name for uplink in self._facts.uplinks)
        with Witness(uplinks, self._marker) as witness:
            answer, lines = self._answer()
            held, read_back = self._held(answer)
            lines += [*read_back, self._inside(witness)]
            if echo:
                lines.append(_fetch(echo))
            lines += [self._attempt(witness, trial, OWN) for trial in self._trials(held)]
            lines += self._in_vault(witness, held)
            if cut:
                lines += self._cut(witness)
            now = tuple(it.name for it in Namespace(self._places.uplinks).facts().uplinks)
            if now != uplinks:
                others = f"{', '.join(now)} in place of {', '.join(uplinks)}: run it again"
                lines.append(Line("uplinks at the end", others, ok=False))
        return lines

    def _answer(self) -> tuple[Answer, list[Line]]:
        try:
            answer = answer_from(self._ask())
        except NetworkError as err:
            return Answer(), [Line("health", str(err), ok=False)]
        return answer, list(_health(answer))

    def _held(self, answer: Answer) -> tuple[Held | None, list[Line]]:
        if answer.state != "connected":
            return None, [Line("rules and routes, read back", "not connected", ok=False)]
        config = self._config
        if not answer.has_resolver:  # it may be one that cannot run here
            config = replace(config, name_server=None)
        try:
            held = look(config, answer, self._places)
        except GatewayError as err:
            return None, [Line("rules and routes, read back", str(err), ok=False)]
        return held, list(compared(config, answer, held, self._places))

    def _trials(self, held: Held | None) -> Iterator[Trial]:
        tunnel = held.tunnel if held else None
        facts = held.facts if held else self._facts
        known = [tunnel] if tunnel else self._config.tunnels
        allowed = {it.address for t in known for it in upstreams_of(t, self._config)}
        return trials(facts, tunnel, on_a_link(facts, self._resolvers, allowed))

    def _in_vault(self, witness: Witness, held: Held | None) -> Iterator[Line]:
        """Try what workloads can in a vault, but for what takes a capability that it lacks."""
        vault = self._places.vault
        if vault is None:
            return
        for trial in trials(self._inner_facts, held.tunnel if held else None, {}):
            if not trial.is_raw:
                named = replace(trial, name=f"in the vault: {trial.name}")
                yield self._attempt(witness, named, vault)
        yield Line(RAW_IN_VAULT, "not tried: the vault cannot open them for this command", ok=True)

    def _inside(self, witness: Witness) -> Line:
        """Send into the tunnel: the control that the witness sees what leaves."""
        witness.seen()
        here = self._places.of_workloads
        results = [trial.run(here, self._marker) for trial in ordinary()]
        seen = witness.seen(0.2)
        witness.leave_out_the_tunnel()
        witness.seen()
        results += [trial.run(here, self._marker) for trial in ordinary()]
        after = witness.seen(0.2)
        leaks = seen.leaks + after.leaks
        return Line(
            "traffic into the tunnel",
            f"{', '.join(dict.fromkeys(results))}; the witness saw {seen.frames} frames leave, "
            f"{leaks} of them unencrypted{'' if after.is_whole else f'; {BLIND}'}",
            ok=SENT in results and seen.frames > 0 and not leaks and after.is_whole,
        )

    def _attempt(self, witness: Witness, trial: Trial, netns: Netns) -> Line:
        result, seen = "", Seen(0, 0, is_whole=False)
        for _ in range(MOST_TRIES):
            witness.seen(0)
            result = trial.run(netns, self._marker)
            seen = witness.seen()
            if seen.leaks or seen.is_whole:
                break
        return judged(
            trial.name,
            result,
            leaks=seen.leaks,
            is_shown=trial.is_shown,
            is_whole=seen.is_whole,
        )

    def _cut(self, witness: Witness) -> list[Line]:
        """Delete the tunnel's interface and send until it is there again."""
        witness.seen()
        began = time.monotonic()
        self._places.links_of_workloads.delete_link(INTERFACE)
        red = self._until(healthy=False, deadline=began + RED_WITHIN)
        green = self._until(healthy=True, deadline=began + GREEN_WITHIN) if red else False
        seen = witness.seen()
        seconds = time.monotonic() - began
        left = "nothing left unencrypted" if seen.is_whole else BLIND
        left = f"{seen.leaks} frames LEFT" if seen.leaks else left
        return [
            Line("tunnel cut while sending", left, seen.is_whole and not seen.leaks),
            Line("noticed", "health was red meanwhile" if red else "health stayed green", red),
            Line("back again", f"after {seconds:.1f} s" if green else "not yet", green),
        ]

    def _until(self, *, healthy: bool, deadline: float) -> bool:
        """Send in every quick way until health is `healthy`; return whether it was in time."""
        vault = self._places.vault
        while time.monotonic() < deadline:
            for trial in quick(self._facts):
                trial.run(OWN, self._marker)
            for trial in quick(self._inner_facts) if vault else ():
                if vault and not trial.is_raw:
                    trial.run(vault, self._marker)
            try:
                if bool(self._ask().get("healthy")) is healthy:
                    return True
            except NetworkError:
                continue
        return False


def without(missing: Sequence[str]) -> MissingError:
    """Return the error of a run that lacks these capabilities (names without CAP_)."""
    options = " ".join(f"--cap-add {name}" for name in missing)
    return MissingError(
        f"this process lacks {' and '.join(missing)}, which the attempts take",
        f"give the gateway's container `{options}` (Compose: `cap_add: [{', '.join(missing)}]`), "
        "and run this in it as root; Podman, and `cap_drop: [ALL]`, leave NET_RAW out",
    )


def _health(answer: Answer) -> Iterator[Line]:
    """Yield what the gateway reports of itself, and how old its own comparison is."""
    yield Line("health", answer.reason or "no reason", answer.healthy)
    age = answer.verified_age
    yield Line(
        "the gateway's own comparison",
        f"{'never' if age is None else f'{age} s ago'} as wanted; "
        f"{answer.drift} changes by others reverted so far",
        ok=age is not None and age <= READ_BACK_WITHIN and answer.reason_code != Reason.DRIFT,
    )
    for limit in answer.limits:
        yield Line("limit of this machine", limit, ok=True)


def _fetch(url: str) -> Line:
    """Ask an address echo that the user named, the way an application would: in the tunnel."""
    if not url.startswith(("http://", "https://")):
        return Line(f"address seen by {url}", "not an http or https address", ok=False)
    try:
        with (
            in_time(ECHO_TIME, lambda: TimeoutError(f"not done after {ECHO_TIME:g} s")),
            urlopen(Request(url), timeout=ECHO_TIME) as answer,  # noqa: S310 - checked above
        ):
            text = answer.read(LONGEST_ECHO).decode("ascii", "replace").strip()
    except (OSError, HTTPException, ValueError) as err:
        return Line(
            f"address seen by {url}", f"no answer: {str(err) or type(err).__name__}", ok=False
        )
    return Line(
        f"address seen by {url}", text.splitlines()[0] if text else "nothing", ok=bool(text)
    )
