"""What the kernel has to hold for a state: rules and routes as one value."""

from dataclasses import dataclass, replace

from gateway.model import Config, Tunnel
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import (
    essence,
    ruleset_for,
    ruleset_in_vault,
    ruleset_outside_vault,
)
from gateway.policy.passage import divided, routing_inside, to_vault, with_mtu, within_reach
from gateway.policy.routing import (
    LOCKED,
    Routing,
    routing_for,
    routing_for_question,
    without_interface,
)
from gateway.policy.rules import Ruleset
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Resolving,
    State,
    Stopping,
)
from gateway.policy.translation import Translation, translation_for


@dataclass(frozen=True)
class Inside:
    """What the kernel has to hold for a vault: its rules and routing, and what leads there.

    `hole` is its link for the listed holes, if any is listed.
    """

    rules: Ruleset
    routing: Routing
    hole: Uplink | None
    translation: Translation


@dataclass(frozen=True)
class Vault:
    """A vault; `hole` is the link for holes that are listed, None where there can be none."""

    hole: Uplink | None = None


@dataclass(frozen=True)
class Wanted:
    """What the kernel has to hold in a namespace that looks like `facts`, which has the uplinks.

    The egress guard follows from the rules and the facts (`policy.guard`), the per-device settings
    from the facts. `inside` is for the namespace of the tunnel, if that is another one.
    """

    facts: Facts
    rules: Ruleset
    routing: Routing
    inside: Inside | None = None


def wanted_in(
    state: State,
    config: Config,
    facts: Facts,
    way_to: Tunnel | None = None,
    vault: Vault | None = None,
) -> Wanted:
    """Return what has to be in force in `state`.

    `way_to` is a tunnel whose interface is about to be made, and needs the way to its server.
    `vault` is where the tunnel and the workloads are, if not here.
    """
    if way_to is None:
        routing = routing_in(state, config, facts)
    else:
        routing = without_interface(routing_for(way_to, config, facts))
    if vault is None:
        return Wanted(facts, ruleset_for(state, config, facts), routing)
    hole, forwarded = None, within_reach(divided(config)[0], facts)
    if vault.hole and (forwarded.input_ports or forwarded.outbound_subnets):
        hole = with_mtu(vault.hole, facts)
    inside = LOCKED
    if isinstance(state, Connected) or (isinstance(state, Connecting) and state.built):
        inside = routing_inside(state.tunnel, forwarded, hole)
    outside = without_interface(routing)
    if hole is not None and routing != LOCKED:
        outside = replace(outside, rules=(*to_vault(hole), *outside.rules))
    return Wanted(
        facts,
        ruleset_outside_vault(state, config, facts, hole),
        outside,
        Inside(
            ruleset_in_vault(state, forwarded, hole),
            inside,
            hole,
            translation_for(forwarded, facts, vault.hole),
        ),
    )


def routing_in(state: State, config: Config, facts: Facts) -> Routing:
    """Return the routing of `state` in a namespace like `facts`: locked, unless packets may go."""
    match state:
        case Resolving() if state.query is not None:
            return routing_for_question(state.query.resolver)
        case Fetching() if state.transfer is not None:
            return routing_for_question(state.transfer.server, "the list of servers")
        case Fetching() if state.query is not None:
            return routing_for_question(state.query.resolver)
        case Connecting() if state.built:
            return routing_for(state.tunnel, config, facts)
        case Connected():
            return routing_for(state.tunnel, config, facts)
        case Locked() | Resolving() | Fetching() | Connecting() | Stopping():
            return LOCKED


def basis_of(state: State) -> tuple[object, ...]:
    """Return what rules and routing of `state` depend on: equal results mean an equal `Wanted`."""
    return essence(state), isinstance(state, Connecting) and state.built
