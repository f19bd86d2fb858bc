"""The lists of subnets and ports mean the same however many entries they have.

The packet model sends packets through the rules of both firewalls and through a reference with a
rule for each entry.
"""

from dataclasses import replace
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model import Config, Network, PortRange, Protocol
from gateway.model.name_server import NameServer, Upstream
from gateway.policy.firewall import ruleset_for
from gateway.policy.guard import guard_for
from gateway.policy.rules import Chain, Family, NetworkSet, Ports, PortSet, Rule, Ruleset, Transport
from gateway.policy.sets import FEW, merged_ports, networks, ports, widened
from tests.model.one_by_one import ruleset_one_by_one
from tests.model.packets import INCOMING, OUTGOING, Firewall, Packet, visits, walk
from tests.model.strategies import Situation, packets, port_ranges, situations
from tests.scenarios import GUARDED, HOLES, IPV4_ONLY, SCENARIOS, connected
from tests.unit.test_policy_properties import by_iptables, by_nft

pytestmark = pytest.mark.promise("P7", "P8", "P9", "P10")

examples = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
WAYS = {"outgoing": OUTGOING, "incoming": INCOMING}


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
@examples
def test_the_rules_mean_what_a_rule_for_each_entry_means(way: str, data: st.DataObject) -> None:
    """Verdict and marks are the same for every packet, like one that either ruleset asks for."""
    situation = data.draw(situations())
    packet = data.draw(packets(situation, WAYS[way], data.draw(st.sampled_from(RULESETS))))
    compare(firewalls(situation), WAYS[way], packet)


RULESETS = (ruleset_for, ruleset_one_by_one)


def firewalls(situation: Situation) -> list[Firewall]:
    """Return the rules of both firewalls, and the reference."""
    ruleset = ruleset_for(*situation)
    return [by_iptables(ruleset), by_nft(ruleset), by_nft(ruleset_one_by_one(*situation))]


def compare(found: list[Firewall], way: tuple[Chain, ...], packet: Packet) -> str:
    """Return the verdict on `packet`, which has to be the same of all."""
    outcomes = [walk(firewall, way, packet) for firewall in found]
    assert all(it.same(outcomes[-1]) for it in outcomes), f"{packet}\n{outcomes}"
    return outcomes[-1].verdict


def test_a_resolver_of_the_gateways_own_in_a_listed_subnet_may_be_asked_by_workloads_too() -> None:
    """As one of the tunnel may: at the ports for names and its own. Control: another host there."""
    asked = Upstream(ip_address("192.168.1.53"), 5353)
    config = Config(
        (replace(IPV4_ONLY, dns=()),),
        outbound_subnets=(ip_network("192.168.1.0/24"),),
        name_server=NameServer((asked,)),
    )
    found = firewalls((connected(config.tunnels[0]), config, GUARDED))  # type: ignore[arg-type]
    packet = Packet(
        family=Family.IPV4, source=ip_address("172.18.0.2"), destination=asked.address,
        out_interface="eth0", protocol=17, destination_port=53,
    )  # fmt: skip
    assert compare(found, OUTGOING, packet) == "accept"
    other = replace(packet, destination=ip_address("192.168.1.54"))
    assert compare(found, OUTGOING, other) == "prohibited"


SUBNETS = tuple(ip_network((172 << 24 | 16 << 20 | number << 9, 24)) for number in range(1000))
PORTS = tuple(
    PortRange(Protocol.TCP if number % 2 else Protocol.UDP, 2000 + 3 * number, 2001 + 3 * number)
    for number in range(1000)
)
MANY = replace(HOLES, outbound_subnets=SUBNETS, input_ports=PORTS, vpn_input_ports=PORTS)
HOME: Situation = (connected(IPV4_ONLY), MANY, GUARDED)


@cache
def at_home() -> list[Firewall]:
    """Return the firewalls of the gateway with a thousand of each."""
    return firewalls(HOME)


@given(data=st.data())
@settings(examples, max_examples=examples.max_examples // 5)
def test_a_thousand_of_each_mean_what_a_thousand_rules_mean(data: st.DataObject) -> None:
    """An address or port of an entry, or the one before or behind it, in either direction."""
    subnet, listed = data.draw(st.sampled_from(SUBNETS)), data.draw(st.sampled_from(PORTS))
    offset = data.draw(st.sampled_from([-1, 0, 255, 256]))
    port = data.draw(
        st.sampled_from([listed.first - 1, listed.first, listed.last, listed.last + 1])
    )
    own, far = ip_address("172.18.0.2"), subnet.network_address + offset
    number = {"tcp": 6, "udp": 17}[data.draw(st.sampled_from(["tcp", "udp"]))]
    out = Packet(family=Family.IPV4, source=own, destination=far, out_interface="eth0", protocol=6)
    expected = "accept" if far in subnet else "prohibited"
    assert compare(at_home(), OUTGOING, replace(out, protocol=17)) == expected
    client = Packet(
        family=Family.IPV4, source=ip_address("203.0.113.9"), destination=own,
        in_interface="eth0", protocol=number, destination_port=port,
    )  # fmt: skip
    is_listed = (
        listed.first <= port <= listed.last and number == {"tcp": 6, "udp": 17}[listed.protocol]
    )
    assert compare(at_home(), INCOMING, client) == ("accept" if is_listed else "drop")
    tunnelled = replace(client, in_interface="wg0", destination=ip_address("10.2.0.2"))
    assert compare(at_home(), INCOMING, tunnelled) == ("accept" if is_listed else "drop")


def test_a_packet_meets_few_rules_of_a_thousand_holes() -> None:
    """What iptables compares it with; a packet of the tunnel meets as many as with one of each."""
    few, many = by_iptables(ruleset_for(connected(IPV4_ONLY), HOLES, GUARDED)), at_home()[0]
    at = Family.IPV4, Chain.OUTPUT
    own = ip_address("172.18.0.2")
    worst = max(
        visits(many[at], Packet(
            family=Family.IPV4, source=own, destination=subnet.network_address,
            out_interface="eth0", state="ESTABLISHED",
        ))
        for subnet in SUBNETS
    )  # fmt: skip
    assert worst <= 60
    tunnelled = Packet(
        family=Family.IPV4, source=ip_address("10.2.0.2"), destination=ip_address("8.8.8.8"),
        out_interface="wg0",
    )  # fmt: skip
    assert visits(many[at], tunnelled) == visits(few[at], tunnelled) <= 3


def test_the_number_of_rules_does_not_grow_with_the_lists() -> None:
    """Two entries of each kind make as many rules as a thousand."""
    two = replace(MANY, outbound_subnets=SUBNETS[:2], input_ports=PORTS[:4], vpn_input_ports=())
    thousand = replace(MANY, vpn_input_ports=())
    counts = [
        {chain: len(rules) for chain, rules in ruleset_for(HOME[0], config, GUARDED).ipv4.items()}
        for config in (two, thousand)
    ]
    assert counts[0] == counts[1]


def test_the_guard_lets_through_the_same_sets() -> None:
    """Its rules are made of the accepting ones, whatever they match."""
    ruleset = ruleset_for(*HOME)
    rules = {rule for _family, rule in guard_for(ruleset, GUARDED).devices[0].rules}
    matched = {rule.destination for rule in rules} | {rule.source_ports for rule in rules}
    assert {it.name for it in matched if isinstance(it, NetworkSet | PortSet)} == {
        "outbound_subnets", "input_ports_tcp", "input_ports_udp",
    }  # fmt: skip


def sets_of(ruleset: Ruleset) -> list[NetworkSet | PortSet]:
    """Return every set that a rule of `ruleset` matches."""
    rules: list[Rule] = [
        rule for family in Family for rules in ruleset.of(family).values() for rule in rules
    ]
    matched = (
        getattr(rule, field)
        for rule in rules
        for field in ("source", "destination", "source_ports", "destination_ports")
    )
    return [it for it in matched if isinstance(it, NetworkSet | PortSet)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_sets_of_one_name_are_equal_in_a_ruleset(name: str) -> None:
    """A firewall keeps one set of a name; networks have one for each family."""
    known: dict[tuple[str, int], object] = {}
    for it in sets_of(ruleset_for(*SCENARIOS[name])):
        version = it.members[0].version if isinstance(it, NetworkSet) else 0
        assert known.setdefault((it.name, version), it) == it


@given(listed=st.lists(st.integers(0, 60), max_size=12), lengths=st.data())
def test_merged_networks_have_the_same_addresses(listed: list[int], lengths: st.DataObject) -> None:
    """No address more or less; members are sorted and disjoint, and one alone is not a set."""
    given_: list[Network] = []
    for number in listed:
        length = lengths.draw(st.integers(26, 32))
        given_.append(ip_network((10 << 24 | number, length), strict=False))
    found = networks("n", "w", Family.IPV4, (*given_, ip_network("fd00::/64")))
    members = found.members if isinstance(found, NetworkSet) else (found,) if found else ()
    assert (found is None) is not given_
    assert isinstance(found, NetworkSet) is (len(members) > 1)
    for number in range(128):
        address = ip_address(10 << 24 | number)
        assert sum(address in member for member in members) == any(address in n for n in given_)
    assert list(members) == sorted(members)


@given(listed=st.lists(port_ranges(), max_size=12))
def test_merged_ports_are_the_same_ports(listed: list[PortRange]) -> None:
    """Each protocol has its own; ranges are sorted, with at least one port between two."""
    found = dict(ports("n", "w", tuple(listed)))
    for protocol in Protocol:
        matched = found.get(Transport(protocol))
        spans = matched.members if isinstance(matched, PortSet) else (matched,) if matched else ()
        assert {p for span in spans for p in range(span.first, span.last + 1)} == {
            p for it in listed if it.protocol is protocol for p in range(it.first, it.last + 1)
        }
        assert all(a.last + 1 < b.first for a, b in pairwise(spans))


EDGES: dict[str, tuple[list[tuple[int, int]], list[Ports]]] = {
    "adjoining": ([(80, 81), (82, 82)], [Ports(80, 82)]),
    "one apart": ([(80, 81), (83, 83)], [Ports(80, 81), Ports(83, 83)]),
    "within": ([(80, 90), (82, 84)], [Ports(80, 90)]),
    "first and last": ([(65535, 65535), (1, 1)], [Ports(1, 1), Ports(65535, 65535)]),
}


@pytest.mark.parametrize("name", EDGES)
def test_ranges_are_merged_exactly_where_they_meet(name: str) -> None:
    """The next port belongs to the range, the one after it does not."""
    given_, expected = EDGES[name]
    listed = tuple(PortRange(Protocol.UDP, first, last) for first, last in given_)
    ((transport, matched),) = ports("n", "w", listed)
    assert transport is Transport.UDP
    assert matched == (PortSet("n_udp", "w", tuple(expected)) if expected[1:] else expected[0])


def test_the_scenario_with_many_entries_has_sets() -> None:
    """Its golden files show them, and the others single entries."""
    state, config, facts = SCENARIOS["connected-many-holes"]
    assert {it.name for it in sets_of(ruleset_for(state, config, facts))} == {
        "outbound_subnets", "input_ports_tcp", "input_ports_udp", "vpn_input_ports_tcp",
    }  # fmt: skip
    assert sets_of(ruleset_for(state, Config((IPV4_ONLY,)), facts)) == []


@given(listed=st.lists(port_ranges(), max_size=30))
def test_widened_ranges_are_few_and_have_every_listed_port(listed: list[PortRange]) -> None:
    """Not one port more, unless there are too many ranges."""
    found = widened(tuple(listed))
    for protocol, spans in merged_ports(tuple(listed)).items():
        ours = [it for it in found if it.protocol == protocol]
        assert len(ours) == min(len(spans), FEW)
        if len(spans) <= FEW:
            assert [(it.first, it.last) for it in ours] == [(it.first, it.last) for it in spans]
        assert all(any(it.first <= s.first <= s.last <= it.last for it in ours) for s in spans)
        assert all(a.last < b.first for a, b in pairwise(ours))


def test_the_smallest_gaps_are_closed_first() -> None:
    """What is far from every listed port stays outside."""
    far = [1000 * number for number in range(1, FEW + 1)]
    listed = [PortRange(Protocol.TCP, port, port) for port in (*far, 2002, 3004)]
    assert [(it.first, it.last) for it in widened(tuple(listed))] == [
        (port, {2000: 2002, 3000: 3004}.get(port, port)) for port in far
    ]
