"""Which forwarded ports are open in a state, and until when.

A lease belongs to a tunnel. It opens its port there, and nothing keeps that port open when the
lease ends or the tunnel is lost: `gateway.policy.flows` has the rule.
"""

from dataclasses import replace

from gateway.model.lease import MOST_LEASES, Connection, Lease
from gateway.policy.events import Leased
from gateway.policy.states import Connected, State
from gateway.policy.timing import Moment


def connection_of(state: State) -> Connection | None:
    """Return the connection that carries traffic in `state`, None without one."""
    return Connection(state.tunnel, state.leases) if isinstance(state, Connected) else None


def leases_of(state: State) -> tuple[Lease, ...]:
    """Return the leases whose ports are open in `state`."""
    return state.leases if isinstance(state, Connected) else ()


def leased(state: Connected, event: Leased, moment: Moment) -> Connected:
    """Return `state` with the leases of `event`, unless they are of another tunnel."""
    if event.tunnel != state.tunnel:
        return state
    return lasting(replace(state, leases=event.leases[:MOST_LEASES]), moment)


def lasting(state: Connected, moment: Moment) -> Connected:
    """Return `state` without the leases that have ended."""
    leases = tuple(it for it in state.leases if it.until > moment.now)
    return state if leases == state.leases else replace(state, leases=leases)


def next_end(state: State) -> float:
    """Return when the next lease of `state` ends, infinity if none does."""
    return min((it.until for it in leases_of(state)), default=float("inf"))
