"""What the kernel has to hold for a state: rules and routes as one value."""

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.model import Config, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import (
    essence,
    ruleset_for,
    ruleset_in_vault,
    ruleset_outside_vault,
)
from gateway.policy.holes import has_holes, open_in
from gateway.policy.passage import (
    divided,
    routing_inside,
    routing_while_down,
    to_vault,
    with_mtu,
    within_reach,
)
from gateway.policy.routing import (
    LOCKED,
    routing_for,
    routing_for_question,
    with_answers,
    without_interface,
)
from gateway.policy.rules import Ruleset
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Query,
    Resolving,
    State,
    Transfer,
)
from gateway.policy.tables import Routing
from gateway.policy.translation import Translation, translation_for

if TYPE_CHECKING:
    from gateway.policy.hijack import Redirection
    from gateway.policy.redirected import PortRedirection


@frozen
class Inside:
    """What the kernel has to hold for a vault: its rules and routing, and what leads there.

    `hole` is its link for the listed holes, if any is listed.
    """

    rules: Ruleset
    routing: Routing
    hole: Uplink | None
    translation: Translation


@frozen
class Vault:
    """A vault; `hole` is the link for holes that are listed, None where there can be none."""

    hole: Uplink | None = None


@frozen
class Wanted:
    """What the kernel has to hold in a namespace that looks like `facts`, which has the uplinks.

    The egress guard follows from the rules and the facts (`policy.guard`), the per-device settings
    from the facts. `inside` is for the namespace of the tunnel, if that is another one.
    `redirection` is for that of the gateway's own resolver, None where nothing is redirected, and
    `ports` for the workloads', None where no forwarded port is.
    """

    facts: Facts
    rules: Ruleset
    routing: Routing
    inside: Inside | None = None
    redirection: "Redirection | None" = None
    ports: "PortRedirection | None" = None


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
    redirection, ports = _redirection(state, config), _ports(state, config)
    if vault is None:
        rules = ruleset_for(state, config, facts)
        return Wanted(facts, rules, routing, redirection=redirection, ports=ports)
    hole, forwarded = None, within_reach(divided(config)[0], facts)
    if vault.hole and has_holes(forwarded):
        hole = with_mtu(vault.hole, facts)
    if isinstance(state, Connected) or (isinstance(state, Connecting) and state.built):
        inside = routing_inside(state.tunnel, forwarded, hole)
    else:
        inside = routing_while_down(open_in(state, forwarded)[0], hole)
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
        redirection,
        ports,
    )


def routing_in(state: State, config: Config, facts: Facts) -> Routing:
    """Return the routing of `state` in a namespace like `facts`: locked, unless packets may go."""
    if isinstance(state, Connected) or (isinstance(state, Connecting) and state.built):
        return routing_for(state.tunnel, config, facts)
    return with_answers(_routing_to_ask(state), open_in(state, config)[0], facts)


def _routing_to_ask(state: State) -> Routing:
    """Return the routing of `state` without a tunnel, and without the listed holes."""
    match state:
        case Fetching(transfer=Transfer() as flow):
            return routing_for_question(flow.server, "a request to the provider")
        case Resolving(query=Query() as query) | Fetching(query=Query() as query):
            return routing_for_question(query.resolver)
        case _:
            return LOCKED


def basis_of(state: State) -> tuple[object, ...]:
    """Return what rules and routing of `state` depend on: equal results mean an equal `Wanted`."""
    return essence(state), isinstance(state, Connecting) and state.built


def _redirection(state: State, config: Config) -> "Redirection | None":
    """Return which questions are redirected in `state`."""
    if config.name_server is None or not config.name_server.hijack:
        return None
    from gateway.policy.hijack import redirection_for  # noqa: PLC0415 - few want it

    return redirection_for(state, config)


def _ports(state: State, config: Config) -> "PortRedirection | None":
    """Return which forwarded ports are redirected in `state`."""
    if not isinstance(state, Connected) or not state.leases:
        return None
    from gateway.policy.redirected import port_redirection_for  # noqa: PLC0415 - few want it

    return port_redirection_for(state, config)
