"""What a state is called, and what is told of it."""

from gateway.model import Status
from gateway.policy.machine import Connected, Connecting, Locked, Pulse, State, Stopping


def name(state: State) -> str:
    """Return the name of `state` as clients and the log get it."""
    return type(state).__name__.lower()


def reason(state: State) -> str:
    """Return why the tunnel carries traffic in `state`, or why not."""
    match state:
        case Connected():
            return "the server answers"
        case Stopping():
            return "stopping"
        case Locked() | Connecting():
            return state.reason


def detail(state: State) -> str:
    """Return what a person may want to know beyond the reason."""
    return state.detail if isinstance(state, Locked | Connecting) else ""


def status_of(state: State, now: float) -> Status:
    """Return what `state` tells of itself at `now`."""
    pulse = state.pulse if isinstance(state, Connecting | Connected) else Pulse()
    endpoints = state.tunnel.endpoints if isinstance(state, Connecting | Connected) else ()
    return Status(
        at=now,
        state=name(state),
        healthy=isinstance(state, Connected),
        reason=reason(state),
        since=state.since,
        detail=detail(state),
        endpoint=", ".join(map(str, endpoints)),
        handshake_age=None if pulse.handshake_at is None else now - pulse.handshake_at,
        received=pulse.received,
        sent=pulse.sent,
    )
