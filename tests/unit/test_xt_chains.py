"""Sets as trees of chains: who enters, how deep they are, what one line may hold."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.firewall.xtables.chains import SLOTS, WIDTH, Line, chains_of, rows
from gateway.firewall.xtables.packing import pack
from gateway.firewall.xtables.render import Kernel, render
from gateway.policy.firewall import ruleset_for
from gateway.policy.rules import (
    Accept,
    Drop,
    Family,
    NetworkSet,
    Ports,
    PortSet,
    Reject,
    Rule,
    Transport,
)
from tests.model import iptables_text
from tests.model.packets import INCOMING, OUTGOING, walk
from tests.model.strategies import packets, situations
from tests.vocabulary import EVERY_WORD, MANY_NETWORKS, MANY_PORTS

NETWORKS = MANY_NETWORKS[Family.IPV4]
OUT = Rule(why="why", verdict=Accept(), out_interface="eth0", destination=NETWORKS)
SPINE = NetworkSet("spine", "x", tuple(sorted(ip_network((1 << 31 - n, n + 1)) for n in range(31))))
"""Networks of which each is half of what is left: the deepest tree that there can be."""


def depth(chains: dict[str, tuple[Line, ...]], name: str) -> int:
    """Return how many chains a packet visits at most, `name` included."""
    return 1 + max((depth(chains, line.jump) for line in chains[name] if line.jump), default=0)


@pytest.mark.parametrize("networks", [NETWORKS, SPINE])
def test_no_chain_is_long_and_no_tree_is_deep(networks: NetworkSet) -> None:
    """Every member is in one line, and every chain but the built-in one has few."""
    chains = chains_of("OUTPUT", [replace(OUT, destination=networks)])
    lines = [line for name, listed in chains.items() if name != "OUTPUT" for line in listed]
    leaves = [line.rule.destination for line in lines if line.jump == "OUTPUT-1-rules"]
    assert sorted(leaves) == list(networks.members)  # type: ignore[type-var]
    assert all(len(listed) <= WIDTH for listed in chains.values())
    assert depth(chains, "OUTPUT") <= 8
    assert max(map(len, chains)) <= 28, "the longest name of a chain, iptables(8)"
    assert next(iter(chains)) == "OUTPUT"


def test_rules_in_a_row_share_a_tree_and_its_way_in() -> None:
    """What they have in common is asked once, before the tree; the rest after it."""
    rules = [
        replace(OUT, protocol=Transport.TCP, verdict=Reject(tcp_reset=True)),
        replace(OUT, protocol=Transport.UDP, destination_ports=Ports(53, 53), verdict=Drop()),
        replace(OUT, source=ip_network("10.0.0.1")),
    ]
    chains = chains_of("OUTPUT", rules)
    assert chains["OUTPUT"] == (
        Line(Rule(why=NETWORKS.why, verdict=Accept(), out_interface="eth0"), "OUTPUT-1"),
    )
    assert chains["OUTPUT-1-rules"] == tuple(
        Line(replace(rule, out_interface=None, destination=None)) for rule in rules
    )


DIFFERENT = {
    "set": replace(OUT, destination=MANY_NETWORKS[Family.IPV6]),
    "field": replace(OUT, destination=None, source=NETWORKS),
    "link": replace(OUT, out_interface="eth1"),
    "kind": replace(OUT, destination=None, destination_ports=MANY_PORTS, protocol=Transport.TCP),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_set_field_or_link_has_its_own_tree(what: str) -> None:
    """And so has what comes after another rule: the order of rules is kept."""
    plain = Rule(why="between", verdict=Drop())
    chains = chains_of("OUTPUT", [OUT, DIFFERENT[what], plain, OUT])
    jumps = [line.jump for line in chains["OUTPUT"]]
    assert jumps == ["OUTPUT-1", "OUTPUT-2", "", "OUTPUT-3"]


def test_ports_of_two_protocols_have_two_trees() -> None:
    """A line for ports names its protocol."""
    tcp = Rule(why="w", verdict=Drop(), protocol=Transport.TCP, destination_ports=MANY_PORTS)
    chains = chains_of("INPUT", [tcp, replace(tcp, protocol=Transport.UDP)])
    assert {line.rule.protocol for line in chains["INPUT-1"]} == {Transport.TCP}
    assert {line.rule.protocol for line in chains["INPUT-2"]} == {Transport.UDP}


def test_a_line_holds_as_many_ports_as_multiport_does() -> None:
    """A range takes two of the slots; without the match, each has its own line."""
    singles = PortSet("s", "x", tuple(Ports(n, n) for n in range(1, 63, 2)))
    ranges = PortSet("r", "x", tuple(Ports(n, n + 1) for n in range(1, 45, 3)))
    for listed, counts in ((singles, [SLOTS, SLOTS, 1]), (ranges, [7, 7, 1])):
        parts = rows(listed, multiport=True)
        members = [part.members if isinstance(part, PortSet) else (part,) for part in parts]
        assert [len(part) for part in members] == counts
        assert tuple(span for part in members for span in part) == listed.members
    for listed in (singles, ranges):
        assert rows(listed, multiport=False) == listed.members


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_rules_without_multiport_mean_the_same(data: st.DataObject) -> None:
    """For every packet, of the policy's rules and of those with every word."""
    situation = data.draw(situations())
    way = data.draw(st.sampled_from([OUTGOING, INCOMING]))
    packet = data.draw(packets(situation, way))
    for ruleset in (ruleset_for(*situation), EVERY_WORD):
        one, other = (
            walk(
                iptables_text.read(render(ruleset, packet.family, kernel), packet.family),
                way,
                packet,
            )
            for kernel in (Kernel(), Kernel(multiport=False))
        )
        assert one.same(other)


WRONG = {
    "two sets": replace(OUT, source=NETWORKS),
    "extra headers": replace(OUT, extra_headers=True),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_tree_cannot_say_is_refused(what: str) -> None:
    """Nothing is written that would mean something else than the rule."""
    with pytest.raises(ValueError, match="set"):
        chains_of("OUTPUT", [WRONG[what]])


# As iptables 1.8.9 put them into Linux 6.18, without counters.
PACKED = {
    "a network": (
        Family.IPV4,
        Rule(why="", verdict=Accept(), destination=ip_network("10.1.0.0/16")),
        bytes(4) + bytes([10, 1, 0, 0]) + bytes(4) + bytes([255, 255, 0, 0]),
        {},
    ),
    "a source of IPv6": (
        Family.IPV6,
        Rule(why="", verdict=Accept(), source=ip_network("fd00::/8")),
        b"\xfd" + bytes(31) + b"\xff" + bytes(15) + bytes(16),
        {},
    ),
    "ports": (
        Family.IPV4,
        Rule(
            why="", verdict=Accept(), protocol=Transport.UDP,
            source_ports=PortSet("p", "x", (Ports(1, 2), Ports(5, 5))),
        ),
        bytes(16),
        {
            80: b"\x11\x00\x00\x00",
            112: b"\x50\x00multiport\x00",
            143: b"\x01\x00\x03\x01\x00\x02\x00\x05\x00\x00\x00",
            176: b"\x01\x00\x00",
        },
    ),
    "a range": (
        Family.IPV6,
        Rule(
            why="", verdict=Accept(), protocol=Transport.TCP, destination_ports=Ports(258, 772)
        ),
        bytes(64),
        {
            128: b"\x06\x00\x00\x01\x00",
            168: b"\x30\x00tcp\x00",
            200: b"\x00\x00\xff\xff\x02\x01\x04\x03\x00\x00\x00\x00",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PACKED)
def test_a_line_of_a_tree_has_the_bytes_that_iptables_writes(what: str) -> None:
    """Addresses and masks first; the target is the name of a chain."""
    family, rule, addresses, others = PACKED[what]
    blob = pack(Line(rule, "OUTPUT-1"), family)
    assert blob[: len(addresses)] == addresses
    for place, expected in others.items():
        assert blob[place : place + len(expected)] == expected
    assert blob[-40:] == b"\x28\x00" + b"OUTPUT-1".ljust(30, b"\0") + bytes(8)
