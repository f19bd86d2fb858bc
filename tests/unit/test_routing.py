"""The routes and policy rules of a state, beyond what the golden files show."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from gateway.model import INTERFACE, Config
from gateway.policy.facts import Facts
from gateway.policy.routing import (
    LOCKED,
    METRIC_END,
    PRIORITY_ANSWERS,
    PRIORITY_ARRIVED,
    PRIORITY_FIRST,
    PRIORITY_LAST,
    TABLE_MAIN,
    reply_mark,
    routing_for,
    routing_for_question,
    without_interface,
)
from gateway.policy.states import Resolving, Stopping
from gateway.policy.tables import TABLE_TUNNEL
from gateway.policy.wanted import routing_in
from gateway.policy.ways import links_of
from tests.scenarios import (
    CLOSED_WHILE_DOWN,
    DUAL,
    ETH0,
    ETH1,
    HOLES,
    IPV4_ONLY,
    ONE_UPLINK,
    PEER,
    SCENARIOS,
    TWO_UPLINKS,
    resolving,
)


def test_the_gateway_owns_its_tables_and_its_range_of_priorities() -> None:
    """The tunnel's table, one for each uplink that answers from input ports, and 1 to 199."""
    assert LOCKED.tables == (TABLE_TUNNEL,)
    routing = routing_for(IPV4_ONLY, HOLES, TWO_UPLINKS)
    assert routing.tables == (TABLE_TUNNEL, reply_mark(ETH0), reply_mark(ETH1))
    assert len({TABLE_MAIN, *routing.tables}) == 4
    assert (PRIORITY_FIRST, PRIORITY_LAST) == (1, 199)
    priorities = [rule.priority for rule in routing.rules]
    assert priorities == sorted(priorities)
    assert PRIORITY_FIRST <= min(priorities) <= max(priorities) <= PRIORITY_LAST


def test_each_family_ends_where_nothing_can_be_reached() -> None:
    """Behind every other route, in every state."""
    for name, (state, config, facts) in SCENARIOS.items():
        routing = routing_in(state, config, facts)
        ends = [route for route in routing.routes if route.unreachable]
        last = [end for end in ends if end.table == TABLE_TUNNEL]
        assert [str(end.destination) for end in last] == ["0.0.0.0/0", "::/0"], name
        near = list(links_of(config.public_subnets, facts))
        others = [end.destination for end in ends if end not in last]
        assert others == near, name
        assert {end.metric for end in ends} == {METRIC_END}, name
        assert all(route.metric < METRIC_END for route in routing.routes if route not in ends)
        assert routing.rules[-2:] == LOCKED.rules[-2:], name


@pytest.mark.parametrize("state", [resolving(None), Stopping()], ids=["resolving", "stopping"])
def test_a_state_that_lets_nothing_out_has_the_locked_routing(
    state: Resolving | Stopping,
) -> None:
    """Listed subnets are for a connection."""
    assert routing_in(state, CLOSED_WHILE_DOWN, TWO_UPLINKS) == LOCKED


def test_input_ports_are_answered_without_a_tunnel() -> None:
    """By the routes that they have with one; a gateway that stops has none."""
    assert routing_in(Stopping(), HOLES, TWO_UPLINKS) == LOCKED
    waiting = routing_in(resolving(None), HOLES, TWO_UPLINKS)
    more = set(waiting.rules) - set(LOCKED.rules)
    assert {rule.priority for rule in more} == {PRIORITY_ARRIVED, PRIORITY_ANSWERS}
    assert more < set(routing_for(IPV4_ONLY, HOLES, TWO_UPLINKS).rules)
    assert set(waiting.routes) < set(routing_for(IPV4_ONLY, HOLES, TWO_UPLINKS).routes)


def test_an_interface_that_is_not_built_has_no_routes() -> None:
    """The way to its server is made when it is built."""
    state, config, facts = SCENARIOS["connecting-ports-closed"]
    assert routing_in(replace(state, built=False), config, facts) == LOCKED  # type: ignore[call-arg]
    assert routing_in(state, config, facts) == routing_for(IPV4_ONLY, config, facts)


def test_only_a_resolver_beyond_an_uplink_needs_a_route() -> None:
    """Docker's listens inside; the rule for any other names its address alone."""
    assert routing_for_question(ip_address("127.0.0.11")) == LOCKED
    routing = routing_for_question(ip_address("192.0.2.53"))
    (rule,) = set(routing.rules) - set(LOCKED.rules)
    assert (rule.table, rule.fwmark, str(rule.destination)) == (TABLE_MAIN, None, "192.0.2.53/32")


def test_before_the_interface_exists_all_but_its_routes_are_there() -> None:
    """WireGuard sends its first handshake as the link goes up."""
    whole = routing_for(IPV4_ONLY, HOLES, TWO_UPLINKS)
    before = without_interface(whole)
    assert before.rules == whole.rules
    assert set(whole.routes) - set(before.routes) == {
        route for route in whole.routes if route.interface == INTERFACE
    }
    assert before.tables == whole.tables


def test_two_peers_with_the_same_network_make_one_route() -> None:
    """The kernel would refuse the second."""
    second = replace(PEER, public_key="other")
    twice = routing_for(replace(IPV4_ONLY, peers=(PEER, second)), HOLES, ONE_UPLINK)
    once = routing_for(IPV4_ONLY, HOLES, ONE_UPLINK)
    assert twice.routes == once.routes


def test_a_family_without_an_address_has_no_route_into_the_tunnel() -> None:
    """It is unreachable; no packet of it could have a source address."""
    config = Config((IPV4_ONLY,))
    inward = [r for r in routing_for(IPV4_ONLY, config, ONE_UPLINK).routes if r.interface]
    assert [str(route.destination) for route in inward] == ["0.0.0.0/0"]
    both = [r for r in routing_for(DUAL, config, ONE_UPLINK).routes if r.interface]
    assert [str(route.destination) for route in both] == ["0.0.0.0/0", "::/0"]


def test_without_input_ports_no_uplink_has_a_table() -> None:
    """Nothing is to be answered."""
    closed = replace(HOLES, input_ports=())
    assert routing_for(IPV4_ONLY, closed, TWO_UPLINKS).tables == (TABLE_TUNNEL,)
    assert routing_for(IPV4_ONLY, HOLES, Facts()).tables == (TABLE_TUNNEL,)


def test_the_ipv6_networks_of_the_tunnel_stay_in_it() -> None:
    """Its prefixes, resolvers and allowed IPs, each once; not everything, and not loopback."""
    networks = tuple(map(ip_network, ("::/0", "fd77::/64", "10.9.0.0/16", "fd77::/64")))
    tunnel = replace(
        DUAL,
        addresses=(ip_interface("10.2.0.2/24"), ip_interface("fd02::2/64")),
        peers=(replace(DUAL.peers[0], allowed_ips=networks),),
        dns=tuple(map(ip_address, ("fd99::53", "10.2.0.1", "::1"))),
    )
    rules = routing_for(tunnel, Config((tunnel,)), ONE_UPLINK).rules
    named = [str(rule.destination) for rule in rules if rule.priority == 135]
    assert named == ["fd02::/64", "fd99::53/128", "fd77::/64"]
    assert {rule.table for rule in rules if rule.priority == 135} == {TABLE_TUNNEL}
