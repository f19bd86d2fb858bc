"""What the gateway reports of itself: its state and the reason, its limits, and its counts.

Programs read codes, which do not change; people read the texts. docs/known-issues.md explains the
limits: none makes the gateway unhealthy. docs/health.md lists every code (test_docs_health.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.model import Candidate, Config, Endpoint
from gateway.policy.evidence import Pulse
from gateway.policy.reload import Answer
from gateway.policy.rules import Family
from gateway.policy.states import Connected, Connecting, Locked, Reason, Resolving, State, Stopping

REASONS: dict[Reason, str] = {
    Reason.STARTING: "starting",
    Reason.NO_HANDSHAKE: "no handshake",
    Reason.SILENT: "handshake but nothing received",
    Reason.INTERFACE_LOST: "the tunnel's interface was lost",
    Reason.MOVED: "the way to the server changed",
    Reason.NOT_BUILT: "the tunnel could not be set up",
    Reason.NOT_RESOLVED: "the endpoint's name could not be resolved",
    Reason.RETURNING: "trying the first server again",
    Reason.RECONFIGURED: "the configuration was changed",
    Reason.FIREWALL: "the firewall rules could not be put into force",
    Reason.DRIFT: "firewall drift",
    Reason.UNCHECKED: "the kernel could not be asked or changed for now",
    Reason.KEPT_DOWN: "another program could send past the firewall",
    Reason.ANSWERS: "the server answers",
    Reason.RESOLVER_SILENT: "the server answers, but the resolver in the tunnel is silent",
    Reason.STOPPING: "stopping",
    Reason.HUNG: "the gateway has reported nothing new",
}
"""The text of each reason, for people."""


class LimitCode(StrEnum):
    """What a machine or a configuration keeps the gateway from guaranteeing."""

    NO_GUARD = "no_guard"
    GUARD_NOT_ROUTED = "guard_not_routed"
    NO_GUARD_IN_ADVANCE = "no_guard_in_advance"
    NO_QUEUES = "no_queues"
    IPV4_OPTIONS = "ipv4_options"
    IPV6_EXTENSION_HEADERS = "ipv6_extension_headers"
    CHOSEN_MARK = "chosen_mark"
    OLD_FLOWS = "old_flows"
    RESOLVERS_NOT_KEPT = "resolvers_not_kept"
    NO_NAMES = "no_names"


@dataclass(frozen=True)
class Limit:
    """One limit: its code, and for people what is not guaranteed and what to do about it."""

    code: LimitCode
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


@dataclass(frozen=True)
class Status:
    """What the gateway reports of itself; nothing in it is secret.

    `at` is when it was reported. `endpoint` is a text for people, `endpoints` are the servers that
    the state is about, empty while they are names. `guard`: the egress guard stops packet sockets.
    `verified_age` is how long ago the kernel was last read back and found as wanted. `reconnects`
    counts lost tunnels by reason code, `switches` changes to another server, `refused` packets by
    family (`ipv4`, `ipv6`) and direction (`in`, `out`, `forward`), and the egress guard's frames as
    family `any` and direction `guard`, as of `counted_at` or later. `drift` counts changes by
    others that were reverted, `reloads` the answers by outcome; `reload` is the last one.
    """

    at: float
    state: str
    healthy: bool
    reason: Reason
    since: float
    detail: str = ""
    endpoint: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    handshake_age: float | None = None
    received: int = 0
    sent: int = 0
    firewall: str = ""
    guard: bool = False
    tunnel: str = ""
    drift: int = 0
    verified_age: float | None = None
    reconnects: tuple[tuple[str, int], ...] = ()
    switches: int = 0
    refused: tuple[tuple[str, str, int], ...] = ()
    counted_at: float | None = None
    reload: Answer | None = None
    reloads: tuple[tuple[str, int], ...] = ()
    limits: tuple[Limit, ...] = ()


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
        case Locked() | Resolving() | Connecting():
            return state.reason


def detail(state: State) -> str:
    """Return what a person may want to know beyond the reason."""
    return state.detail if isinstance(state, Locked | Resolving | Connecting) else ""


def is_healthy(state: State) -> bool:
    """Return whether workloads can use the network in `state`."""
    return isinstance(state, Connected) and not state.resolver_is_silent


def endpoint(state: State) -> str:
    """Return the endpoints that `state` is about, for people; they may be names."""
    match state:
        case Connecting() | Connected():
            return _endpoints(state.tunnel)
        case Resolving():
            return _endpoints(state.turn.candidate)
        case Locked() | Stopping():
            return ""


def _endpoints(tunnel: Candidate) -> str:
    return ", ".join(dict.fromkeys(str(peer.endpoint) for peer in tunnel.peers))


def status_of(state: State, now: float) -> Status:
    """Return what `state` says by itself at `now`."""
    pulse = state.pulse if isinstance(state, Connecting | Connected) else Pulse()
    return Status(
        at=now,
        state=name(state),
        healthy=is_healthy(state),
        reason=reason(state),
        since=state.since,
        detail=detail(state),
        endpoint=endpoint(state),
        endpoints=state.tunnel.endpoints if isinstance(state, Connecting | Connected) else (),
        handshake_age=None if pulse.handshake_at is None else now - pulse.handshake_at,
        received=pulse.received,
        sent=pulse.sent,
    )


DROP_NET_RAW = "give workloads `cap_drop: [NET_RAW]`"
"""The remedy for everything that takes a packet socket, a raw socket or a mark."""

OWN_RESOLVER = "mount a file of your own at /etc/resolv.conf, here and in the workloads"
"""The remedy where the resolver file cannot be written, such as Docker's with a read-only root."""


def limit_without_guard(missing: str, remedy: str) -> Limit:
    """Return the limit of a machine without the egress guard, because of what is `missing`."""
    remedies = dict.fromkeys((remedy, DROP_NET_RAW))
    return Limit(
        LimitCode.NO_GUARD, f"packet sockets are not stopped: {missing}", "; or ".join(remedies)
    )


def limits_of_guard(*, routed: bool, in_advance: bool) -> Iterator[Limit]:
    """Yield the limits of an egress guard.

    It is `routed` if it can check whether a frame was routed, and `in_advance` if it can guard an
    interface that does not exist yet.
    """
    if not routed:
        yield Limit(
            LimitCode.GUARD_NOT_ROUTED,
            "the egress guard cannot check whether a frame was routed (the kernel lacks "
            "IP_ROUTE_CLASSID), so anyone who learns its mark passes it",
            DROP_NET_RAW,
        )
    if not in_advance:
        yield Limit(
            LimitCode.NO_GUARD_IN_ADVANCE,
            "an interface that appears later is closed to packet sockets a moment later (guards "
            "for interfaces that do not exist yet take Linux 6.16)",
            DROP_NET_RAW,
        )


def limit_without_queues(missing: str, remedy: str = DROP_NET_RAW) -> Limit:
    """Return the limit of a machine where AF_XDP sockets are not stopped, because of `missing`."""
    return Limit(LimitCode.NO_QUEUES, f"AF_XDP sockets are not stopped: {missing}", remedy)


def limit_of_extra_headers(family: Family) -> Limit:
    """Return the limit of a kernel whose legacy tables cannot match `Rule.extra_headers`."""
    code, what, module = {
        Family.IPV4: (LimitCode.IPV4_OPTIONS, "IPv4 options, source routes among them,", "xt_u32"),
        Family.IPV6: (
            LimitCode.IPV6_EXTENSION_HEADERS,
            "IPv6 extension headers, routing headers among them,",
            "ip6t_ipv6header",
        ),
    }[family]
    return Limit(
        code,
        f"{what} are not refused (the kernel lacks {module}): a router in a listed LAN subnet that"
        " honours them would forward a packet",
        f"load {module} on the host (modprobe {module}), or use FIREWALL_BACKEND=nftables",
    )


def limits_of_config(config: Config, drawn: int | None = None) -> Iterator[Limit]:
    """Yield the limits that the user has chosen; `drawn` is the mark of tunnels without FwMark."""
    if any(tunnel.fwmark not in {None, drawn} for tunnel in config.tunnels):
        yield Limit(
            LimitCode.CHOSEN_MARK,
            "the firewall mark of the encrypted flow is the configured FwMark, which `ip rule` "
            "shows to every workload",
            f"leave FwMark out, or {DROP_NET_RAW}",
        )


def limit_without_flush(missing: str, remedy: str) -> Limit:
    """Return the limit of a machine that cannot forget flows, because of what is `missing`."""
    text = f"flows older than the gateway are not forgotten: {missing}"
    return Limit(LimitCode.OLD_FLOWS, text, remedy)


def limit_of_old_flows(problem: str) -> Limit:
    """Return the limit of a start that could not check for old flows, because of `problem`."""
    return Limit(
        LimitCode.OLD_FLOWS,
        f"flows older than the gateway may not be forgotten: {problem}",
        "restart the gateway when the host is less busy; no rule depends on it (P6)",
    )


def limits_of_resolvers(config: Config, problem: str) -> Iterator[Limit]:
    """Yield the limit of a container that cannot keep its resolvers, because of `problem`.

    It matters if one of them is asked for an endpoint's name.
    """
    is_asked = config.endpoint_resolver is None and any(t.names for t in config.tunnels)
    if problem and is_asked:
        yield Limit(
            LimitCode.RESOLVERS_NOT_KEPT,
            f"the container's resolvers cannot be kept across a restart ({problem}), so only "
            "Docker's own at 127.0.0.11 is asked for the endpoint's name",
            "set WIREGUARD_ENDPOINT_RESOLVER",
        )


def limits_of_names(problem: str) -> Iterator[Limit]:
    """Yield the limit of workloads whose names do not resolve, because of `problem` if any."""
    if problem:
        yield Limit(LimitCode.NO_NAMES, f"names do not resolve: {problem}", OWN_RESOLVER)


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
