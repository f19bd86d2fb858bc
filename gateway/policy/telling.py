"""What a state is called, and what is told of it."""

from gateway.model import Candidate, Status
from gateway.policy.evidence import Pulse
from gateway.policy.states import Connected, Connecting, Locked, Resolving, State, Stopping

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
