"""What the gateway reports of itself: its state and why, what it cannot guarantee, and counts.

Limits are shown by health, `gateway status` and the log, and explained in docs/known-issues.md.
None of them makes the gateway unhealthy: the tunnel carries what it should.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.model import Candidate, Config
from gateway.policy.evidence import Pulse
from gateway.policy.rules import Family
from gateway.policy.states import Connected, Connecting, Locked, Resolving, State, Stopping


@dataclass(frozen=True)
class Status:
    """What the gateway tells of itself; nothing in it is secret.

    `at` is when it was told, `verified_age` how long ago the kernel was last read back and found as
    wanted. `reconnects` counts lost tunnels by reason, `switches` changes to
    another server, `refused` packets by family (`ipv4`, `ipv6`) and direction (`in`, `out`,
    `forward`), and the egress guard's frames of `any` family as direction `guard`; `drift` changes
    by others that were put back. `limits` are the promises that this kernel or container cannot
    keep, with the remedy.
    """

    at: float
    state: str
    healthy: bool
    reason: str
    since: float
    detail: str = ""
    endpoint: str = ""
    handshake_age: float | None = None
    received: int = 0
    sent: int = 0
    firewall: str = ""
    tunnel: str = ""
    drift: int = 0
    verified_age: float | None = None
    reconnects: tuple[tuple[str, int], ...] = ()
    switches: int = 0
    refused: tuple[tuple[str, str, int], ...] = ()
    limits: tuple[str, ...] = ()


ANSWERS = "the server answers"
RESOLVER_SILENT = "the server answers, but the resolver in the tunnel is silent"


def name(state: State) -> str:
    """Return the name of `state` as clients and the log get it."""
    return type(state).__name__.lower()


def reason(state: State) -> str:
    """Return why the tunnel carries traffic in `state`, or why not."""
    match state:
        case Connected():
            return RESOLVER_SILENT if state.resolver_is_silent else ANSWERS
        case Stopping():
            return "stopping"
        case Locked() | Resolving() | Connecting():
            return state.reason


def detail(state: State) -> str:
    """Return what a person may want to know beyond the reason."""
    return state.detail if isinstance(state, Locked | Resolving | Connecting) else ""


def is_healthy(state: State) -> bool:
    """Say whether workloads can use the network in `state`."""
    return isinstance(state, Connected) and not state.resolver_is_silent


def endpoint(state: State) -> str:
    """Return the endpoints that `state` is about, as people write them."""
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
    """Return what `state` tells of itself at `now`."""
    pulse = state.pulse if isinstance(state, Connecting | Connected) else Pulse()
    return Status(
        at=now,
        state=name(state),
        healthy=is_healthy(state),
        reason=reason(state),
        since=state.since,
        detail=detail(state),
        endpoint=endpoint(state),
        handshake_age=None if pulse.handshake_at is None else now - pulse.handshake_at,
        received=pulse.received,
        sent=pulse.sent,
    )


DROP_NET_RAW = "give workloads `cap_drop: [NET_RAW]`"
"""The remedy for all that takes a packet socket, a raw socket or a mark."""

NO_GUARD = "packet sockets are not stopped"
"""How the limit begins of a kernel that cannot have the egress guard."""


def limit_without_guard(missing: str, remedy: str) -> str:
    """Return the limit of a machine without the egress guard, because of what is `missing`."""
    return f"{NO_GUARD}: {missing}; {'; or '.join(dict.fromkeys((remedy, DROP_NET_RAW)))}"


def limits_of_guard(*, routed: bool, in_advance: bool) -> Iterator[str]:
    """Yield the limits of an egress guard.

    It is `routed` if it can ask whether a frame was, and `in_advance` if it can guard an interface
    that is not there yet.
    """
    if not routed:
        yield (
            "the egress guard cannot ask whether a frame was routed (the kernel lacks "
            f"IP_ROUTE_CLASSID), so that who finds out its mark passes it; {DROP_NET_RAW}"
        )
    if not in_advance:
        yield (
            "an interface that appears later is closed to packet sockets a moment later (the "
            f"kernel's guard cannot wait for a name, as it can since Linux 6.16); {DROP_NET_RAW}"
        )


def limit_without_queues(missing: str, remedy: str = DROP_NET_RAW) -> str:
    """Return the limit of a machine where AF_XDP sockets are not stopped, because of `missing`."""
    return f"AF_XDP sockets are not stopped: {missing}; {remedy}"


def limit_of_extra_headers(family: Family) -> str:
    """Return the limit of a kernel whose legacy tables cannot ask for `Rule.extra_headers`."""
    what, module = {
        Family.IPV4: ("IPv4 options, source routes among them,", "xt_u32"),
        Family.IPV6: ("IPv6 extension headers, routing headers among them,", "ip6t_ipv6header"),
    }[family]
    return (
        f"{what} are not refused (the kernel lacks {module}): a router in a listed LAN subnet that"
        f" honours them would carry a packet out; load {module} on the host (modprobe {module}),"
        " or use FIREWALL_BACKEND=nftables"
    )


def limits_of_config(config: Config) -> Iterator[str]:
    """Yield the limits that the user has chosen. `config` is as loaded: no mark is drawn yet."""
    if any(tunnel.fwmark is not None for tunnel in config.tunnels):
        yield (
            "the firewall mark of the encrypted flow is the FwMark that was chosen, which "
            f"`ip rule` shows to everybody; leave FwMark out, or {DROP_NET_RAW}"
        )


def limits_of_resolvers(config: Config, problem: str) -> Iterator[str]:
    """Yield the limit of a container that cannot keep its resolvers, because of `problem`.

    It matters where one of them is to be asked for an endpoint's name.
    """
    is_asked = config.endpoint_resolver is None and any(t.names for t in config.tunnels)
    if problem and is_asked:
        yield (
            f"the container's resolvers cannot be kept across a restart ({problem}), so only "
            "Docker's own at 127.0.0.11 is asked for the endpoint's name; set "
            "WIREGUARD_ENDPOINT_RESOLVER"
        )


Where = tuple[str, str]
"""Family and direction."""


class Tally:
    """A total that never goes back."""

    def __init__(self) -> None:
        self._before: Counter[Where] = Counter()
        self._since: Mapping[Where, int] = {}

    def read(self, counts: Mapping[Where, int]) -> None:
        """Take `counts` as what was counted since they last began anew.

        Where one is smaller than before, they did so unnoticed: somebody else's hands.
        """
        if any(counts.get(where, 0) < number for where, number in self._since.items()):
            self.begin_anew()
        self._since = dict(counts)

    def begin_anew(self) -> None:
        """Say that the kernel counts from zero again."""
        self._before.update(self._since)
        self._since = {}

    @property
    def total(self) -> Counter[Where]:
        """Everything counted so far; what was looked at and never counted is there with zero."""
        total = Counter(self._before)
        total.update(self._since)
        return total
