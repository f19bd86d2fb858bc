"""What the gateway reports of itself: its state and the reason, its limits, and its counts.

Programs read codes, which do not change; people read the texts. docs/health.md lists every code
(test_docs_health.py).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from gateway.model import Endpoint
from gateway.model.frozen import frozen
from gateway.model.lease import Lease
from gateway.policy.diagnosis import Diagnosis
from gateway.policy.evidence import Pulse
from gateway.policy.leases import leases_of
from gateway.policy.limits import Limit, limit_of_list, limit_of_service, limits_of_names
from gateway.policy.public_address import PublicAddress
from gateway.policy.reload import Answer
from gateway.policy.reports import ResolverReport, ServiceReport
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Reason,
    Resolving,
    State,
    Stopping,
)
from gateway.policy.tried import Tried

REASONS: dict[Reason, str] = {
    Reason.STARTING: "starting",
    Reason.NO_HANDSHAKE: "no handshake",
    Reason.SILENT: "handshake but nothing received",
    Reason.ONE_WAY: "packets of the server arrive, and ours do not reach it",
    Reason.INTERFACE_LOST: "the tunnel's interface was lost",
    Reason.MOVED: "the way to the server changed",
    Reason.NOT_BUILT: "the tunnel could not be set up",
    Reason.NOT_RESOLVED: "the endpoint's name could not be resolved",
    Reason.NO_LIST: "the provider's list of servers could not be fetched",
    Reason.NOT_REGISTERED: "the key could not be registered with the provider",
    Reason.LOGIN_REFUSED: "the provider refused the login",
    Reason.MEASURING: "measuring which server answers first",
    Reason.RETURNING: "trying the first server again",
    Reason.RECONFIGURED: "the configuration was changed",
    Reason.REQUESTED: "someone asked for another connection",
    Reason.PAUSED: "someone asked to pause",
    Reason.FIREWALL: "the firewall rules could not be put into force",
    Reason.DRIFT: "firewall drift",
    Reason.UNCHECKED: "the kernel could not be asked or changed for now",
    Reason.KEPT_DOWN: "another program could send past the firewall",
    Reason.ANSWERS: "the server answers",
    Reason.RESOLVER_SILENT: "the server answers, but the resolver in the tunnel is silent",
    Reason.RESOLVER_DOWN: "the gateway's own resolver does not answer",
    Reason.STOPPING: "stopping",
    Reason.HUNG: "the gateway has reported nothing new",
}
"""The text of each reason, for people."""


class HoleKind(StrEnum):
    """What a hole leads to."""

    RESOLVERS = "resolvers"
    LAN = "lan"
    INPUT_PORTS = "input_ports"
    TUNNEL_PORTS = "tunnel_ports"


@frozen
class Hole:
    """What the configuration lists of one kind, as texts, and whether it is open now."""

    kind: HoleKind
    listed: tuple[str, ...] = ()
    is_open: bool = False


@frozen
class Status:
    """What the gateway reports of itself; nothing in it is secret.

    `at` is when it was reported. `attempts` counts the attempts that failed one after the other,
    and `diagnosis` is the code of why the last handshake did. `endpoint` is a text for people,
    `endpoints` are the servers that the state is about, empty while they are names, `listen_port`
    the UDP port of WireGuard here. `addresses` are those of the tunnel's interface, `candidates`
    those of `candidate_count` that were tried last, the newest first. `guard`: the egress guard
    stops packet sockets. `mtu` is the largest packet of the tunnel's interface, `path_mtu` the
    largest that is known to arrive, in bytes, None if unknown. `verified_age` is how long ago the
    kernel was last read back and found as wanted. `reconnects` counts lost tunnels by reason code,
    `switches` changes to another server, `refused` packets by family (`ipv4`, `ipv6`) and direction
    (`in`, `out`, `forward`), and the egress guard's frames as family `any` and direction `guard`,
    as of `counted_at` or later. `drift` counts changes by others that were reverted, `reloads` the
    answers by outcome; `reload` is the last one. `holes` are the exceptions that the configuration
    lists, `leases` the ports that the server forwards, `public_ip` the address that hosts on the
    internet see, None while it is not known.
    """

    at: float
    state: str
    healthy: bool
    reason: Reason
    since: float
    detail: str = ""
    attempts: int = 0
    diagnosis: str = ""
    endpoint: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    listen_port: int | None = None
    handshake_age: float | None = None
    received: int = 0
    sent: int = 0
    mtu: int | None = None
    path_mtu: int | None = None
    firewall: str = ""
    guard: bool = False
    tunnel: str = ""
    addresses: tuple[str, ...] = ()
    candidates: tuple[Tried, ...] = ()
    candidate_count: int = 0
    drift: int = 0
    verified_age: float | None = None
    reconnects: tuple[tuple[str, int], ...] = ()
    switches: int = 0
    refused: tuple[tuple[str, str, int], ...] = ()
    counted_at: float | None = None
    reload: Answer | None = None
    reloads: tuple[tuple[str, int], ...] = ()
    limits: tuple[Limit, ...] = ()
    holes: tuple[Hole, ...] = ()
    resolver: ResolverReport | None = None
    leases: tuple[Lease, ...] = ()
    services: tuple[ServiceReport, ...] = ()
    public_ip: PublicAddress | None = None


def with_resolver(status: Status, resolver: ResolverReport) -> Status:
    """Return `status` with the gateway's own resolver, without which workloads have no names.

    It makes the gateway unhealthy while it does not answer, but not where another program answers
    in its place: that may be intended.
    """
    failed = (limit_of_list(it.url, it.problem, it.age) for it in resolver.lists if it.problem)
    of_names = limits_of_names(resolver.problem, resolver.remedy)
    limits = (*status.limits, *of_names, *failed)
    status = replace(status, resolver=resolver, limits=limits)
    if status.healthy and not resolver.answers and not resolver.others_answer:
        problem = resolver.problem or "it is being started"
        status = replace(status, healthy=False, reason=Reason.RESOLVER_DOWN, detail=problem)
    return status


def with_services(status: Status, services: tuple[ServiceReport, ...]) -> Status:
    """Return `status` with the optional services; a problem of one is a limit, and not more."""
    failed = (limit_of_service(it.name, it.problem, it.remedy) for it in services if it.problem)
    return replace(status, services=services, limits=(*status.limits, *failed))


def name(state: State) -> str:
    """Return the name of `state` in the log, in health and in metrics."""
    return type(state).__name__.lower()


def reason(state: State) -> Reason:
    """Return why the tunnel carries traffic in `state`, or why not."""
    match state:
        case Connected():
            return Reason.RESOLVER_SILENT if state.resolver_is_silent else Reason.ANSWERS
        case Stopping():
            return Reason.STOPPING
        case Paused():
            return Reason.PAUSED
        case Locked() | Resolving() | Fetching() | Connecting():
            return state.reason


def detail(state: State) -> str:
    """Return what a person may want to know beyond the reason."""
    return "" if isinstance(state, Connected | Stopping) else state.detail


def attempts(state: State) -> int:
    """Return how many attempts to connect have failed, one after the other."""
    match state:
        case Resolving() | Fetching() | Connecting():
            return state.turn.attempt
        case Locked():
            return state.attempt
        case Connected() | Paused() | Stopping():
            return 0


def diagnosis(state: State) -> Diagnosis | None:
    """Return why the last handshake failed, None if none has."""
    if isinstance(state, Resolving | Fetching | Connecting):
        return state.turn.diagnosis
    return None


def is_healthy(state: State) -> bool:
    """Return whether workloads can use the network in `state`."""
    return isinstance(state, Connected) and not state.resolver_is_silent


def endpoint(state: State) -> str:
    """Return the endpoints that `state` is about, for people; they may be names."""
    match state:
        case Connecting() | Connected():
            return state.tunnel.endpoint_text
        case Resolving():
            return state.turn.candidate.endpoint_text
        case Fetching():
            return state.errand.host
        case Locked() | Paused() | Stopping():
            return ""


def status_of(state: State, now: float) -> Status:
    """Return what `state` says by itself at `now`."""
    pulse, tunnel = Pulse(), None
    if isinstance(state, Connecting | Connected):
        pulse, tunnel = state.pulse, state.tunnel
    return Status(
        at=now,
        state=name(state),
        healthy=is_healthy(state),
        reason=reason(state),
        since=state.since,
        detail=detail(state),
        attempts=attempts(state),
        diagnosis=str(found.cause) if (found := diagnosis(state)) else "",
        endpoint=endpoint(state),
        endpoints=tunnel.endpoints if tunnel else (),
        listen_port=tunnel.listen_port if tunnel else None,
        handshake_age=None if pulse.handshake_at is None else now - pulse.handshake_at,
        received=pulse.received,
        sent=pulse.sent,
        addresses=tuple(map(str, tunnel.addresses)) if tunnel else (),
        leases=leases_of(state),
    )


class Tally:
    """Sums of kernel counters that never decrease, by family and direction.

    The kernel's counters start from zero whenever rules are replaced.
    """

    def __init__(self) -> None:
        self._before: Counter[tuple[str, str]] = Counter()
        self._since: Mapping[tuple[str, str], int] = {}

    def read(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Take `counts` as what was counted since the counters were last zero.

        If one is smaller than before, another program has replaced the rules.
        """
        if any(counts.get(where, 0) < number for where, number in self._since.items()):
            self.restart_counts()
        self._since = dict(counts)

    def restart_counts(self) -> None:
        """Note that the kernel counts from zero again."""
        self._before.update(self._since)
        self._since = {}

    @property
    def total(self) -> Counter[tuple[str, str]]:
        """Everything counted so far, with zero for a counter that was read and never increased."""
        total = Counter(self._before)
        total.update(self._since)
        return total
