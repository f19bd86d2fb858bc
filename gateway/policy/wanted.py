"""What the kernel has to hold for a state: rules and routes as one value."""

from dataclasses import dataclass

from gateway.model import Config, Facts
from gateway.policy.firewall import essence
from gateway.policy.routing import LOCKED, Routing, routing_for, routing_for_question
from gateway.policy.rules import Ruleset
from gateway.policy.states import Connected, Connecting, Locked, Resolving, State, Stopping


@dataclass(frozen=True)
class Wanted:
    """What the kernel has to hold in a namespace that looks like `facts`.

    The egress guard follows from the rules and the facts (`policy.guard`), the per-device settings
    from the facts.
    """

    facts: Facts
    rules: Ruleset
    routing: Routing


def routing_in(state: State, config: Config, facts: Facts) -> Routing:
    """Return the routing of `state` in a namespace like `facts`: locked, unless packets may go."""
    match state:
        case Resolving() if state.query is not None:
            return routing_for_question(state.query.resolver)
        case Connecting() if state.built:
            return routing_for(state.tunnel, config, facts)
        case Connected():
            return routing_for(state.tunnel, config, facts)
        case Locked() | Resolving() | Connecting() | Stopping():
            return LOCKED


def basis_of(state: State) -> tuple[object, ...]:
    """Return what rules and routing of `state` depend on: equal results mean an equal `Wanted`."""
    return essence(state), isinstance(state, Connecting) and state.built
