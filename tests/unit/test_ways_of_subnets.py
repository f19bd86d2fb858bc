"""The part of the main table that leads to listed networks."""

from ipaddress import IPv4Network, collapse_addresses, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Address
from gateway.policy.facts import Route
from gateway.policy.routing import PRIORITY_LAN, PRIORITY_MANY, TABLE_LAN, routing_for
from gateway.policy.sets import FEW
from gateway.policy.ways import routes_within
from tests.scenarios import HOLES, IPV4_ONLY, ONE_UPLINK

GATEWAYS = (None, ip_address("10.0.0.1"), ip_address("10.0.0.2"))
NETWORKS = st.builds(
    lambda number, length: IPv4Network((10 << 24 | number >> 32 - length << 32 - length, length)),
    st.integers(0, 255),
    st.integers(24, 32),
)
ROUTES = st.builds(
    Route, NETWORKS | st.just(ip_network("0.0.0.0/0")), st.sampled_from(["eth0", "eth1"]),
    st.sampled_from(GATEWAYS), st.sampled_from([0, 100]),
)  # fmt: skip


def looked_up(address: Address, routes: tuple[Route, ...]) -> tuple[str, Address | None] | None:
    """Return where a packet goes: longest prefix, lowest metric, the first of equals."""
    fitting = [route for route in routes if address in route.destination]
    best = max(fitting, key=lambda r: (r.destination.prefixlen, -r.metric), default=None)
    return (best.interface, best.gateway) if best else None


@given(listed=st.lists(NETWORKS, max_size=5), routes=st.lists(ROUTES, max_size=6))
def test_the_part_of_a_table_for_networks_says_what_the_table_says(
    listed: list[IPv4Network], routes: list[Route]
) -> None:
    """For each address of the networks the same way; for every other one none at all."""
    networks = tuple(collapse_addresses(listed))
    part = routes_within(networks, tuple(routes))
    for number in range(256):
        address = ip_address(10 << 24 | number)
        inside = any(address in network for network in networks)
        assert looked_up(address, part) == (looked_up(address, tuple(routes)) if inside else None)
    assert all(any(r.destination.subnet_of(n) for n in networks) for r in part)  # type: ignore[arg-type]
    assert len({(r.destination, r.metric) for r in part}) == len(part)


def test_families_do_not_mix() -> None:
    """A default route of IPv6 leads to no network of IPv4."""
    route = Route(ip_network("::/0"), "eth0", ip_address("fe80::1"))
    assert routes_within((ip_network("10.0.0.0/24"),), (route,)) == ()


def test_few_subnets_have_a_rule_each_and_many_have_one_for_all() -> None:
    """In each family for itself; the main table decides in both forms."""
    few = tuple(ip_network(f"192.168.{number}.0/24") for number in range(0, 2 * FEW, 2))
    many = (*few, ip_network("192.168.100.0/24"))
    six = ip_network("fd77::/64")
    for listed, rules, routes in (((*few, six), FEW + 1, 0), ((*many, six), 1, FEW + 1)):
        config = HOLES.__class__((IPV4_ONLY,), outbound_subnets=listed)
        routing = routing_for(IPV4_ONLY, config, ONE_UPLINK)
        assert sum(rule.priority == PRIORITY_LAN for rule in routing.rules) == rules
        found = [route for route in routing.routes if route.table == TABLE_LAN]
        assert len(found) == routes
        assert {route.destination for route in found} == set(listed[:-1] if routes else ())
        own = [rule for rule in routing.rules if rule.priority == PRIORITY_MANY]
        assert [(rule.family, rule.table) for rule in own] == ([(4, TABLE_LAN)] if routes else [])
