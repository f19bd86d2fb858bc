"""Every condition of every accepting rule is there for a promise: without it, something leaks.

It also shows that the promises in tests/model are sharp: they notice each rule that is looser.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from ipaddress import ip_address
from itertools import combinations
from typing import Any

import pytest

from gateway.firewall.nft import render as render_nftables
from gateway.model import Config
from gateway.policy.evidence import Pulse
from gateway.policy.firewall import LOOPBACK, essence, ruleset_for
from gateway.policy.rules import (
    Accept,
    AnyPorts,
    Chain,
    Family,
    Networks,
    NetworkSet,
    PortSet,
    Rule,
    Ruleset,
)
from gateway.policy.states import Locked, Reason, Stopping
from tests.model import nft_text
from tests.model.packets import (
    ACCEPT,
    ICMP,
    ICMPV6,
    INCOMING,
    INVALID,
    OUTGOING,
    TCP,
    UDP,
    Packet,
    walk,
)
from tests.model.promises import excuse_in, excuse_out
from tests.scenarios import (
    DUAL,
    HOLES,
    IPV4_ONLY,
    ONE_UPLINK,
    SCENARIOS,
    connected,
    connecting,
    resolving,
)

pytestmark = pytest.mark.promise("P3", "P4", "P5", "P7", "P8", "P9", "P10")

NUMBERS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "ipv6-icmp": ICMPV6}
STRANGER = {Family.IPV4: ip_address("203.0.113.99"), Family.IPV6: ip_address("2001:db8:ffff::99")}
LINKS = ("eth9", "eth0", "eth1", "wg0", LOOPBACK)
STATES = ("NEW", "ESTABLISHED", "RELATED", INVALID)

OTHERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "in_interface": ("in_interface", LINKS),
    "out_interface": ("out_interface", LINKS),
    "source": ("source", ()),
    "destination": ("destination", ()),
    "protocol": ("protocol", (47, ICMPV6, TCP)),
    "source_ports": ("source_port", (1,)),
    "destination_ports": ("destination_port", (1,)),
    "icmp_type": ("icmp_type", (200,)),
    "user": ("user", (0, 1000)),
    "mark": ("mark", (0xDEAD,)),
    "connmark": ("connmark", (0xDEAD,)),
    "ct_states": ("state", STATES),
    "ct_direction": ("direction", ("ORIGINAL", "REPLY")),
}
"""What a packet may have instead, by the condition that a rule has lost."""


MANY_RULES = {
    "connected-many-holes",
    "connected-holes-two-uplinks",
    "connected-holes",
    "connected-guarded",
}
"""Scenarios that take seconds."""


def redundant(rule: Rule, condition: str) -> bool:
    """Return whether another rule lets pass what `rule` would without `condition`.

    A resolver in a listed subnet may be reached at its other ports as everybody else there.
    """
    return rule.why == "P10 the configured resolver" and condition == "destination_ports"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in MANY_RULES)) for name in SCENARIOS],
)
def test_a_rule_without_one_of_its_conditions_lets_something_leak(name: str) -> None:
    """Each accepting rule loses each of its conditions in turn, loopback's left out."""
    situation = SCENARIOS[name]
    ruleset = ruleset_for(*situation)
    unnoticed = []
    for chain, way, excuse in (
        (Chain.OUTPUT, OUTGOING, excuse_out),
        (Chain.INPUT, INCOMING, excuse_in),
    ):
        for family, rule, condition in accepting(ruleset, chain):
            firewall = nft_text.read(
                render_nftables.render(loosened(ruleset, family, chain, rule, condition))
            )
            if not any(
                walk(firewall, way, packet).verdict == ACCEPT and not excuse(*situation, packet)
                for packet in packets_without(rule, family, condition)
            ):
                unnoticed.append((family, chain, condition, rule))
    assert unnoticed == []


def accepting(ruleset: Ruleset, chain: Chain) -> Iterator[tuple[Family, Rule, str]]:
    """Yield each accepting rule of `chain` with each of its conditions."""
    for family in Family:
        for rule in ruleset.of(family).get(chain, ()):
            if not isinstance(rule.verdict, Accept):
                continue
            if LOOPBACK in {rule.in_interface, rule.out_interface}:
                continue
            for condition in OTHERS:
                wanted = getattr(rule, condition) not in {None, frozenset()}
                if wanted and not needed(rule, condition) and not redundant(rule, condition):
                    yield family, rule, condition


def needed(rule: Rule, condition: str) -> bool:
    """Return whether a rule without `condition` cannot be written: ports need a protocol."""
    ports = rule.source_ports or rule.destination_ports
    return condition == "protocol" and (ports is not None or rule.icmp_type is not None)


def loosened(ruleset: Ruleset, family: Family, chain: Chain, rule: Rule, condition: str) -> Ruleset:
    """Return `ruleset` with `rule` without `condition`."""
    looser = replace(rule, **{condition: frozenset() if condition == "ct_states" else None})
    rules = tuple(looser if it == rule else it for it in ruleset.of(family)[chain])
    changed = {**ruleset.of(family), chain: rules}
    if family is Family.IPV4:
        return replace(ruleset, ipv4=changed)
    return replace(ruleset, ipv6=changed)


def packets_without(rule: Rule, family: Family, condition: str) -> Iterator[Packet]:
    """Yield packets that meet `rule` in everything but `condition`."""
    packet = Packet(
        family=family,
        source=host(rule.source, family),
        destination=host(rule.destination, family),
        in_interface=rule.in_interface or "",
        out_interface=rule.out_interface or "",
        protocol=NUMBERS[rule.protocol] if rule.protocol else UDP,
        source_port=first_port(rule.source_ports, 33000),
        destination_port=first_port(rule.destination_ports, 33001),
        icmp_type=rule.icmp_type or 0,
        user=rule.user or 0,
        mark=rule.mark or 0,
        connmark=rule.connmark or 0,
        state=min(rule.ct_states).value if rule.ct_states else "NEW",
        direction=rule.ct_direction.value if rule.ct_direction else "ORIGINAL",
    )
    field, values = OTHERS[condition]
    for value in values or (STRANGER[family],):
        yield replace(packet, **{field: value})


def first_port(ports: AnyPorts | None, otherwise: int) -> int:
    """Return the first of `ports`."""
    first = ports.members[0] if isinstance(ports, PortSet) else ports
    return first.first if first else otherwise


def host(networks: Networks | None, family: Family) -> Any:
    """Return an address of `networks`, or a stranger's."""
    if networks is None:
        return STRANGER[family] - 1
    network = networks.members[-1] if isinstance(networks, NetworkSet) else networks
    return network[min(5, network.num_addresses - 1)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_rules_depend_on_nothing_else_of_a_state(name: str) -> None:
    """What changes every second while a state lasts changes no rule, so rules are made once."""
    state, config, facts = SCENARIOS[name]
    later = {"since": 77.0, "reason": Reason.SILENT, "detail": "later", "retry_at": 99.0}
    later |= {"built": True, "give_up_at": 88.0, "pulse": Pulse(handshake_at=5.0)}
    later |= {"resolver_failures": 3, "resolver_failing_at": 6.0, "attempt": 4}
    known = {field.name for field in fields(state)} & later.keys()
    other = replace(state, **{field: later[field] for field in known})
    assert other != state, "control"
    assert essence(other) == essence(state)
    assert ruleset_for(other, config, facts) == ruleset_for(state, config, facts)


def test_states_with_different_rules_have_different_essences() -> None:
    """Otherwise the rules of a former state would stay in force."""
    config, facts = HOLES, ONE_UPLINK
    states = [
        Locked(),
        Stopping(),
        *map(resolving, (None, "192.168.1.53", "127.0.0.11")),
        *map(connecting, (IPV4_ONLY, DUAL)),
        *map(connected, (IPV4_ONLY, DUAL)),
    ]
    for one, other in combinations(states, 2):
        if ruleset_for(one, config, facts) != ruleset_for(other, config, facts):
            assert essence(one) != essence(other), f"{one}\n{other}"
    assert essence(Locked()) == essence(Stopping()), "control: some are equal"


@pytest.mark.parametrize(
    ("holes", "asks"),
    [
        ({"input_ports": HOLES.input_ports}, True),
        ({"outbound_subnets": HOLES.outbound_subnets}, True),
        ({}, False),
    ],
    ids=["ports", "subnets", "none"],
)
def test_an_uplink_with_a_hole_of_either_kind_finds_its_neighbours(
    holes: dict[str, Any], *, asks: bool
) -> None:
    """By neighbour discovery, without which no IPv6 packet would arrive there."""
    config = Config((IPV4_ONLY,), **holes)
    rules = ruleset_for(connected(IPV4_ONLY), config, ONE_UPLINK).ipv6[Chain.OUTPUT]
    assert any(rule.icmp_type == 135 for rule in rules) == asks
