"""A listed subnet on a public range is outside the tunnel where an uplink is in it, only there."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network

import pytest

from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import ruleset_for
from gateway.policy.limits import LimitCode, limits_of_subnets, limits_without_holes
from gateway.policy.passage import INNER, within_reach
from gateway.policy.routing import (
    PRIORITY_NEAR,
    PRIORITY_ON_LINK,
    TABLE_LAN,
    routing_for,
)
from gateway.policy.rules import Accept, Chain, Family, NetworkSet
from gateway.policy.wanted import Vault, wanted_in
from gateway.policy.ways import attached
from tests.scenarios import ETH0, ETH2, IPV4_ONLY, ON_PUBLIC_RANGE, PUBLIC_SUBNETS, connected
from tests.unit.test_policy_vault import vault_for

NETWORK = IPv4Network("172.50.0.0/16")
STATE = connected(IPV4_ONLY)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("172.50.0.2/16", ["172.50.0.0/16"]),
        ("172.50.3.2/24", ["172.50.3.0/24"]),
        ("172.50.3.2/32", ["172.50.3.2/32"]),
        ("172.48.0.2/12", ["172.50.0.0/16"]),
        ("172.0.0.2/8", ["172.50.0.0/16"]),
        ("172.0.0.2/7", []),
        ("1.2.3.4/0", []),
        ("172.51.0.2/16", []),
        ("2001:db8::2/64", []),
    ],
)
def test_what_an_uplink_is_in_is_its_own_network_alone(address: str, expected: list[str]) -> None:
    """No network of an engine is half of the internet."""
    uplink = Uplink("eth2", 4, 1500, (ip_interface(address),))
    assert {str(network): str(own) for network, own in attached([NETWORK], uplink).items()} == {
        network: address.partition("/")[0] for network in expected
    }


def test_its_rules_are_those_of_its_uplink() -> None:
    """The default route leads through eth0, which has no rule for it."""
    rules = ruleset_for(STATE, PUBLIC_SUBNETS, ON_PUBLIC_RANGE).of(Family.IPV4)
    accepted = [rule for rule in rules[Chain.OUTPUT] if rule.destination == NETWORK]
    assert {rule.out_interface for rule in accepted} == {"eth2"}
    assert {rule.source for rule in accepted if rule.verdict == Accept()} == {
        ip_network("172.50.0.2/32")
    }
    assert "203.0.113.0/24" not in str(rules), "no uplink is in it"


def test_its_table_has_no_gateway_and_ends_in_unreachable() -> None:
    """Also where the main table has lost the route of the link, and keeps a default route."""
    facts = Facts((ETH0, ETH2), tuple(r for r in ON_PUBLIC_RANGE.routes if r.interface == "eth0"))
    routing = routing_for(IPV4_ONLY, PUBLIC_SUBNETS, facts)
    (rule,) = [rule for rule in routing.rules if rule.destination == NETWORK
               and rule.priority < PRIORITY_ON_LINK]  # fmt: skip
    assert (rule.priority, rule.table) == (PRIORITY_NEAR, TABLE_LAN)
    ways = [route for route in routing.routes if route.table == TABLE_LAN]
    assert [(it.destination, it.interface, it.gateway) for it in ways] == [
        (NETWORK, "eth2", None), (NETWORK, None, None)
    ]  # fmt: skip
    assert ways[1].unreachable
    assert ways[0].source == ip_address("172.50.0.2"), "not another address of the uplink"


def test_without_its_uplink_there_is_no_rule_and_no_route() -> None:
    """So its addresses are those of the internet, in the tunnel; health says so."""
    facts = replace(ON_PUBLIC_RANGE, uplinks=(ETH0,))
    assert "172.50" not in str(ruleset_for(STATE, PUBLIC_SUBNETS, facts))
    assert "172.50" not in str(routing_for(IPV4_ONLY, PUBLIC_SUBNETS, facts))
    found = list(limits_of_subnets(PUBLIC_SUBNETS, facts))
    assert {limit.code for limit in found} == {LimitCode.NOT_ATTACHED}
    assert ["172.50.0.0/16" in it.text for it in found] == [True, False]
    (limit,) = limits_of_subnets(PUBLIC_SUBNETS, ON_PUBLIC_RANGE)
    assert "203.0.113.0/24, a public range" in limit.text


def test_several_parts_of_one_uplink_are_a_set_of_its_own() -> None:
    """Next to the set of the private subnets, which holds on every uplink."""
    parts = tuple(IPv4Network(f"172.50.{number}.0/24") for number in (1, 3, 5))
    private = tuple(map(ip_network, ("192.168.1.0/24", "192.168.3.0/24")))
    config = replace(PUBLIC_SUBNETS, public_subnets=parts, outbound_subnets=private)
    rules = ruleset_for(STATE, config, ON_PUBLIC_RANGE).of(Family.IPV4)[Chain.OUTPUT]
    sets = {(it.out_interface, it.destination.name, it.destination.members)
            for it in rules if isinstance(it.destination, NetworkSet)}  # fmt: skip
    assert sets == {
        ("eth0", "outbound_subnets", private),
        ("eth2", "outbound_subnets", private),
        ("eth2", "near_4", parts),
    }


def test_workloads_in_a_vault_reach_it_through_that_uplink_alone() -> None:
    """In the vault it is as any listed subnet, and only as long as the uplink is there."""
    assert within_reach(PUBLIC_SUBNETS, ON_PUBLIC_RANGE).outbound_subnets == (NETWORK,)
    vault = vault_for(replace(PUBLIC_SUBNETS, outbound_subnets=(NETWORK,)))
    assert isinstance(vault, Vault)
    wanted = wanted_in(STATE, PUBLIC_SUBNETS, ON_PUBLIC_RANGE, vault=vault)
    assert wanted.inside
    assert str(NETWORK) in str(wanted.inside.rules)
    assert str(NETWORK) in str(wanted.inside.routing)
    onward = [rule for rule in wanted.rules.of(Family.IPV4)[Chain.FORWARD]
              if rule.destination == NETWORK and rule.verdict == Accept()]  # fmt: skip
    assert {(rule.out_interface, rule.source) for rule in onward} == {
        ("eth2", ip_network(INNER[4].ip))
    }
    gone = wanted_in(STATE, PUBLIC_SUBNETS, Facts((ETH0,)), vault=vault)
    assert "172.50" not in str(gone)


def test_a_vault_without_translation_has_none() -> None:
    """As for every listed hole."""
    assert list(limits_without_holes(PUBLIC_SUBNETS, "no NAT", "load it"))
