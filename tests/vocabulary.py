"""Rulesets that use every word of the vocabulary, for tests of the backends."""

from ipaddress import ip_network

from gateway.policy.rules import (
    Accept,
    Chain,
    CtDirection,
    CtState,
    Drop,
    Family,
    Ports,
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


def _every_word(family: Family) -> Rules:
    """Return rules that together have every match, every verdict and every chain."""
    marks = (
        Rule(why="all bits of a mark", verdict=SetMark(0xFFFFFFFF), in_interface="eth0"),
        Rule(why="begins (here)", verdict=SetConnmark(0x706C0002), ct_states=frozenset(CtState)),
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
    rules.append(Rule(why="reset", verdict=Reject(tcp_reset=True), protocol=Transport.TCP))
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
    return {
        Chain.PREROUTING: marks,
        Chain.INPUT: tuple(rules),
        Chain.FORWARD: (
            Rule(why="both ways", verdict=Drop(), in_interface="eth0", out_interface="wg0"),
        ),
        Chain.OUTPUT_MARK: (Rule(why="mark", verdict=SetMark(7), out_interface="eth0"),),
        Chain.OUTPUT: (Rule(why="out", verdict=Accept(), out_interface="lo"),),
        Chain.POSTROUTING: (Rule(why="mark", verdict=SetMark(8), out_interface="eth0"),),
    }


EVERY_WORD = Ruleset(_every_word(Family.IPV4), _every_word(Family.IPV6))
"""A ruleset that makes no sense but uses everything."""
