"""Rules in the words of nft."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from gateway.errors import FirewallError
from gateway.firewall.nft.render import render, render_rule
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
    Ruleset,
    SetConnmark,
    SetMark,
    Transport,
)

PLAIN = Rule(why="why", verdict=Accept())

VERDICTS = {
    "accept": Accept(),
    "counter drop": Drop(),
    "counter reject with icmp admin-prohibited": Reject(),
    "meta mark set 0xca6c": SetMark(0xCA6C),
    "ct mark set 0x1": SetConnmark(1),
}


@pytest.mark.parametrize("words", VERDICTS)
def test_each_verdict_has_its_words(words: str) -> None:
    """What refuses is counted, as every rule of iptables is."""
    text = render_rule(replace(PLAIN, verdict=VERDICTS[words]), Family.IPV4)
    assert text == f'meta nfproto ipv4 {words} comment "why"'


MATCHES = {
    "tcp flags & (syn | ack) == syn": replace(PLAIN, protocol=Transport.TCP, syn=True),
    "tcp sport 80 tcp flags & (syn | ack) == syn": replace(
        PLAIN, protocol=Transport.TCP, source_ports=Ports(80, 80), syn=True
    ),
    "ip saddr 10.0.0.0/8": replace(PLAIN, source=ip_network("10.0.0.0/8")),
    "ip daddr 192.0.2.1/32": replace(PLAIN, destination=ip_network("192.0.2.1")),
    "": replace(PLAIN, source=ip_network("0.0.0.0/0")),
    'iifname "eth0" oifname "wg0"': replace(PLAIN, in_interface="eth0", out_interface="wg0"),
    "meta l4proto udp": replace(PLAIN, protocol=Transport.UDP),
    "udp sport 1-9 udp dport 53": replace(
        PLAIN, protocol=Transport.UDP, source_ports=Ports(1, 9), destination_ports=Ports(53, 53)
    ),
    "meta skuid 7": replace(PLAIN, user=7),
    "meta mark 0x0": replace(PLAIN, mark=0),
    "ct mark 0x5": replace(PLAIN, connmark=5),
    "ct state established,related ct direction reply": replace(
        PLAIN,
        ct_states=frozenset({CtState.RELATED, CtState.ESTABLISHED}),
        ct_direction=CtDirection.REPLY,
    ),
}


@pytest.mark.parametrize("words", MATCHES)
def test_each_match_has_its_words(words: str) -> None:
    """A network of no length is left out: it matches everything."""
    text = render_rule(MATCHES[words], Family.IPV4)
    expected = " ".join(filter(None, ("meta nfproto ipv4", words, 'accept comment "why"')))
    assert text == expected


def test_ipv6_has_its_own_addresses_types_and_refusal() -> None:
    """The same rule reads as the family wants it."""
    rule = Rule(
        why="w",
        verdict=Reject(),
        source=ip_network("fe80::/10"),
        protocol=Transport.ICMPV6,
        icmp_type=135,
    )
    assert render_rule(rule, Family.IPV6) == (
        "meta nfproto ipv6 ip6 saddr fe80::/10 icmpv6 type 135"
        ' counter reject with icmpv6 admin-prohibited comment "w"'
    )


def test_a_reset_answers_tcp_of_either_family() -> None:
    """A reset looks the same in both."""
    rule = replace(PLAIN, verdict=Reject(tcp_reset=True), protocol=Transport.TCP)
    for family, name in ((Family.IPV4, "ipv4"), (Family.IPV6, "ipv6")):
        assert render_rule(rule, family) == (
            f'meta nfproto {name} meta l4proto tcp counter reject with tcp reset comment "why"'
        )


WRONG = {
    "a reason with a quote": replace(PLAIN, why='say "no"'),
    "a reason of two lines": replace(PLAIN, why="one\ntwo"),
    "no reason": replace(PLAIN, why=""),
    "a reason that is too long": replace(PLAIN, why="x" * 129),
    "a pattern for interfaces": replace(PLAIN, in_interface="eth*"),
    "an interface with a quote": replace(PLAIN, out_interface='lo" accept'),
    "an interface that is too long": replace(PLAIN, out_interface="x" * 16),
    "a network of the other family": replace(PLAIN, source=ip_network("fd00::/8")),
    "ports without a protocol": replace(PLAIN, source_ports=Ports(1, 1)),
    "ports of ICMP": replace(PLAIN, protocol=Transport.ICMP, source_ports=Ports(1, 1)),
    "an ICMP type of TCP": replace(PLAIN, protocol=Transport.TCP, icmp_type=1),
    "an opening packet of UDP": replace(PLAIN, protocol=Transport.UDP, syn=True),
    "an ICMPv6 type in IPv4": replace(PLAIN, protocol=Transport.ICMPV6, icmp_type=1),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_nft_has_no_words_for_is_refused(what: str) -> None:
    """Nothing is written that would mean something else than the rule."""
    with pytest.raises(FirewallError):
        render_rule(WRONG[what], Family.IPV4)


def test_an_empty_ruleset_is_closed() -> None:
    """The filter chains drop; the mangle chains, which only mark, do not."""
    heads = [line.strip() for line in render(Ruleset()).splitlines() if "hook" in line]
    assert heads == [
        "type filter hook prerouting priority mangle; policy accept;",
        "type filter hook input priority filter; policy drop;",
        "type filter hook forward priority filter; policy drop;",
        "type route hook output priority mangle; policy accept;",
        "type filter hook output priority filter; policy drop;",
        "type filter hook postrouting priority mangle; policy accept;",
    ]


def test_the_table_is_filled_in_one_transaction_and_no_other_is_touched() -> None:
    """The first line makes the second possible; Docker's own table is not named at all."""
    lines = render(Ruleset()).splitlines()
    assert lines[:3] == [
        "add table inet portcullis",
        "flush table inet portcullis",
        "table inet portcullis {",
    ]
    assert "flush ruleset" not in render(Ruleset())


def test_both_families_stand_in_one_chain_in_their_order() -> None:
    """Each family keeps the order of its rules."""
    rules = {Chain.INPUT: (replace(PLAIN, why="a"), replace(PLAIN, why="b"))}
    lines = [
        line.strip() for line in render(Ruleset(rules, rules)).splitlines() if "why" not in line
    ]
    assert [line for line in lines if line.startswith("meta")] == [
        'meta nfproto ipv4 accept comment "a"',
        'meta nfproto ipv4 accept comment "b"',
        'meta nfproto ipv6 accept comment "a"',
        'meta nfproto ipv6 accept comment "b"',
    ]
