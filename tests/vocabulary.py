"""Rulesets that use every word of the vocabulary, for tests of the backends."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

from gateway.policy.rules import (
    ICMP_OF,
    Accept,
    Chain,
    CtDirection,
    CtState,
    Drop,
    Family,
    NetworkSet,
    Ports,
    PortSet,
    Reject,
    Rule,
    Rules,
    Ruleset,
    SetConnmark,
    SetMark,
    Transport,
)

OUR_NETWORK = {Family.IPV4: ip_network("192.168.7.0/24"), Family.IPV6: ip_network("fd07::/64")}
EVERYTHING = {Family.IPV4: ip_network("0.0.0.0/0"), Family.IPV6: ip_network("::/0")}
HOST = {Family.IPV4: ip_network("203.0.113.9"), Family.IPV6: ip_network("2001:db8::9")}


SOME_NETWORKS = {
    Family.IPV4: NetworkSet("some", "x", tuple(map(ip_network, ("10.1.0.0/16", "192.0.2.3/32")))),
    Family.IPV6: NetworkSet(
        "some", "x", tuple(map(ip_network, ("fd01::/64", "fd01:0:0:2::3/128")))
    ),
}
"""A set of two, the fewest that a set has."""

MANY_NETWORKS = {
    Family.IPV4: NetworkSet(
        "many", "x", tuple(ip_network((10 << 24 | number << 8, 24)) for number in range(1, 90, 3))
    ),
    Family.IPV6: NetworkSet(
        "many", "x", tuple(ip_network((0xFD << 120 | n << 64, 64)) for n in range(1, 90, 3))
    ),
}
"""More than a chain of iptables has room for."""

SOME_PORTS = PortSet("some_ports", "x", (Ports(0, 7), Ports(9, 9)))
MANY_PORTS = PortSet(
    "many_ports", "x", (*(Ports(n, n + n % 2) for n in range(100, 500, 3)), Ports(65535, 65535))
)


def _sets(family: Family) -> Iterator[Rule]:
    """Yield rules that match sets, alone and in a row."""
    plain = Rule(why="set", verdict=Drop(), in_interface="eth0")
    yield replace(plain, source=SOME_NETWORKS[family])
    for protocol in (Transport.TCP, Transport.UDP):
        yield replace(plain, destination=MANY_NETWORKS[family], protocol=protocol)
        yield replace(
            plain,
            destination=MANY_NETWORKS[family],
            protocol=protocol,
            destination_ports=Ports(53, 53),
            verdict=Reject(tcp_reset=protocol is Transport.TCP),
        )
    kind = {Family.IPV4: 8, Family.IPV6: 128}[family]
    yield replace(
        plain, destination=MANY_NETWORKS[family], protocol=ICMP_OF[family], icmp_type=kind
    )
    yield replace(plain, source=OUR_NETWORK[family], destination=MANY_NETWORKS[family], mark=3)
    listening = replace(plain, ct_states=frozenset({CtState.NEW}), protocol=Transport.TCP)
    yield replace(listening, destination_ports=MANY_PORTS)
    yield replace(listening, destination_ports=MANY_PORTS, source=HOST[family], connmark=9)
    yield replace(listening, protocol=Transport.UDP, destination_ports=MANY_PORTS)
    yield replace(listening, source_ports=SOME_PORTS, verdict=Accept())


def _every_word(family: Family) -> Rules:
    """Return rules that together have every match, every verdict and every chain."""
    marks = (
        Rule(why="all bits of a mark", verdict=SetMark(0xFFFFFFFF), in_interface="eth0"),
        Rule(why="begins (here)", verdict=SetConnmark(0x706C0002), ct_states=frozenset(CtState)),
        Rule(why="marks a set", verdict=SetMark(5), source=MANY_NETWORKS[family], in_interface="e"),
        Rule(
            why="and another",
            verdict=SetConnmark(6),
            source=MANY_NETWORKS[family],
            in_interface="e",
            mark=5,
        ),
        Rule(why="last", verdict=SetMark(7), mark=5),
    )
    rules = [
        Rule(why="plain", verdict=Accept(), in_interface="lo"),
        Rule(why="the longest name", verdict=Accept(), in_interface="br-0123456789.7"),
        Rule(why="a host", verdict=Drop(), source=HOST[family], destination=OUR_NETWORK[family]),
        Rule(why="everything", verdict=Drop(), source=EVERYTHING[family], mark=1),
        Rule(why="x" * 128, verdict=Reject(), mark=0),
        Rule(why="! odd, but allowed: #%&()*+/<=>?@[]^_`{|}~;", verdict=Drop(), connmark=5),
        Rule(why="way back", verdict=Drop(), ct_direction=CtDirection.REPLY),
        Rule(why="two marks", verdict=Drop(), mark=0xCA6C, connmark=0xFFFFFFFF),
        Rule(
            why="states",
            verdict=Drop(),
            ct_states=frozenset({CtState.ESTABLISHED, CtState.RELATED}),
            ct_direction=CtDirection.ORIGINAL,
        ),
    ]
    for protocol in (Transport.TCP, Transport.UDP):
        rules += [
            Rule(why="headers", verdict=Drop(), protocol=protocol, extra_headers=True),
            Rule(why="protocol alone", verdict=Drop(), protocol=protocol),
            Rule(
                why="ports",
                verdict=Reject(),
                protocol=protocol,
                source_ports=Ports(0, 1023),
                destination_ports=Ports(51820, 51820),
            ),
        ]
    for opening in (True, False):
        rules.append(
            Rule(why="reset", verdict=Reject(tcp_reset=True), protocol=Transport.TCP, syn=opening)
        )
    if family is Family.IPV6:
        rules += [
            Rule(why="ICMPv6", verdict=Accept(), protocol=Transport.ICMPV6, icmp_type=kind)
            for kind in (1, 134, 135, 136)
        ]
    else:
        rules += [
            Rule(why="ICMP", verdict=Accept(), protocol=Transport.ICMP, icmp_type=kind)
            for kind in (5, 8, None)
        ]
    rules += _sets(family)
    return {
        Chain.PREROUTING: marks,
        Chain.INPUT: tuple(rules),
        Chain.FORWARD: (
            Rule(why="both ways", verdict=Drop(), in_interface="eth0", out_interface="wg0"),
        ),
        Chain.OUTPUT_MARK: (Rule(why="mark", verdict=SetMark(7), out_interface="eth0"),),
        Chain.OUTPUT: (
            Rule(why="whose", verdict=Reject(), out_interface="eth0", user=53853),
            Rule(why="out", verdict=Accept(), out_interface="lo"),
        ),
        Chain.POSTROUTING: (Rule(why="mark", verdict=SetMark(8), out_interface="eth0"),),
    }


EVERY_WORD = Ruleset(_every_word(Family.IPV4), _every_word(Family.IPV6))
"""A ruleset that makes no sense but uses everything."""
