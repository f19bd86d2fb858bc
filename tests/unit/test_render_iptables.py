"""Rules in the words of iptables-save."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from gateway.firewall.xtables.chains import Line
from gateway.firewall.xtables.render import Kernel, commands, render, render_line
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

PLAIN = Rule(why="why", verdict=Drop())

RULES = {
    "-j ACCEPT": Rule(why="why", verdict=Accept()),
    "-j DROP": PLAIN,
    "-j REJECT --reject-with icmp-admin-prohibited": replace(PLAIN, verdict=Reject()),
    "-j MARK --set-xmark 0xca6c/0xffffffff": replace(PLAIN, verdict=SetMark(0xCA6C)),
    "-j CONNMARK --set-xmark 0x1/0xffffffff": replace(PLAIN, verdict=SetConnmark(1)),
}


@pytest.mark.parametrize("target", RULES)
def test_each_verdict_is_a_target(target: str) -> None:
    """Marks carry the mask that sets all bits, because iptables-save writes it."""
    text = render_line("INPUT", Line(RULES[target]), Family.IPV4)
    assert text == f"-A INPUT -m comment --comment why {target}"


MATCHES = {
    "-s 10.0.0.0/8": replace(PLAIN, source=ip_network("10.0.0.0/8")),
    "-d 192.0.2.1/32": replace(PLAIN, destination=ip_network("192.0.2.1")),
    "": replace(PLAIN, source=ip_network("0.0.0.0/0")),
    "-i eth0 -o wg0": replace(PLAIN, in_interface="eth0", out_interface="wg0"),
    "-p udp": replace(PLAIN, protocol=Transport.UDP),
    "-p udp -m udp --sport 1:9 --dport 53": replace(
        PLAIN, protocol=Transport.UDP, source_ports=Ports(1, 9), destination_ports=Ports(53, 53)
    ),
    "-p tcp -m tcp --sport 80 -m tcp --tcp-flags SYN,ACK SYN": replace(
        PLAIN, protocol=Transport.TCP, source_ports=Ports(80, 80), syn=True
    ),
    '-m u32 --u32 "0x0>>0x18&0xf=0x0:0x4,0x6:0xf"': replace(PLAIN, extra_headers=True),
    "-m owner --uid-owner 7": replace(PLAIN, user=7),
    "-m mark --mark 0x0": replace(PLAIN, mark=0),
    "-m connmark --mark 0x5": replace(PLAIN, connmark=5),
    "-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY": replace(
        PLAIN,
        ct_states=frozenset({CtState.ESTABLISHED, CtState.RELATED}),
        ct_direction=CtDirection.REPLY,
    ),
}


@pytest.mark.parametrize("match", MATCHES)
def test_each_match_is_written_as_iptables_save_does(match: str) -> None:
    """A network of no length is left out: it matches everything."""
    text = render_line("OUTPUT", Line(MATCHES[match]), Family.IPV4)
    assert text == " ".join(
        filter(None, ("-A OUTPUT", match, "-m comment --comment why", "-j DROP"))
    )


def test_ipv6_has_its_own_refusal_and_its_own_types() -> None:
    """The same rule reads as each family's tool wants it."""
    rule = Rule(why="w", verdict=Reject(), protocol=Transport.ICMPV6, icmp_type=135)
    assert render_line("INPUT", Line(rule), Family.IPV6) == (
        "-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m comment --comment w"
        " -j REJECT --reject-with icmp6-adm-prohibited"
    )


def test_extra_headers_are_asked_for_in_the_words_of_each_family() -> None:
    """By the length of the IPv4 header, and by what precedes an IPv6 transport header."""
    rule = replace(PLAIN, extra_headers=True)
    assert render_line("OUTPUT", Line(rule), Family.IPV6) == (
        "-A OUTPUT -m ipv6header ! --header protocol -m comment --comment why -j DROP"
    )


def test_a_reason_of_several_words_is_quoted() -> None:
    """Only then, as iptables-save does."""
    rule = replace(PLAIN, why="P1 nothing else leaves")
    assert '--comment "P1 nothing else leaves" -j' in render_line("INPUT", Line(rule), Family.IPV4)


WRONG = {
    "a reason with a quote": replace(PLAIN, why='say "no"'),
    "a reason of two lines": replace(PLAIN, why="one\n-A INPUT -j ACCEPT"),
    "no reason": replace(PLAIN, why=""),
    "a reason that is too long": replace(PLAIN, why="x" * 129),
    "a pattern for interfaces": replace(PLAIN, in_interface="eth+"),
    "an interface of two words": replace(PLAIN, out_interface="lo -j ACCEPT"),
    "an interface that is too long": replace(PLAIN, out_interface="x" * 16),
    "a network of the other family": replace(PLAIN, source=ip_network("fd00::/8")),
    "ports without a protocol": replace(PLAIN, source_ports=Ports(1, 1)),
    "ports of ICMP": replace(PLAIN, protocol=Transport.ICMP, source_ports=Ports(1, 1)),
    "an ICMP type of TCP": replace(PLAIN, protocol=Transport.TCP, icmp_type=1),
    "an opening packet of UDP": replace(PLAIN, protocol=Transport.UDP, syn=True),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_iptables_has_no_words_for_is_refused(what: str) -> None:
    """Nothing is written that would mean something else than the rule."""
    with pytest.raises(ValueError, match=r"."):
        render_line("INPUT", Line(WRONG[what]), Family.IPV4)


def test_an_empty_ruleset_is_closed() -> None:
    """The filter chains drop; the mangle chains, which only mark, do not."""
    text = render(Ruleset(), Family.IPV6)
    assert text.splitlines()[:5] == [
        "*filter",
        ":INPUT DROP [0:0]",
        ":FORWARD DROP [0:0]",
        ":OUTPUT DROP [0:0]",
        "COMMIT",
    ]
    assert text.count("ACCEPT") == text.partition("*mangle")[2].count("ACCEPT") == 5


def test_states_are_listed_in_the_order_of_iptables_save() -> None:
    """All of them, and a rule that asks for none asks for the direction alone."""
    rule = replace(PLAIN, ct_states=frozenset(CtState))
    assert "--ctstate NEW,RELATED,ESTABLISHED -m comment" in render_line(
        "INPUT", Line(rule), Family.IPV4
    )
    alone = replace(PLAIN, ct_direction=CtDirection.ORIGINAL)
    assert "-m conntrack --ctdir ORIGINAL -m comment" in render_line(
        "INPUT", Line(alone), Family.IPV4
    )


def test_the_commands_fill_both_tables_of_their_family() -> None:
    """Policies first, then empty chains, then the rules in their order."""
    rules = {
        Chain.OUTPUT: (replace(PLAIN, why="a"), replace(PLAIN, why="b", extra_headers=True)),
        Chain.OUTPUT_MARK: (replace(PLAIN, why="c", verdict=SetMark(7)),),
    }
    lines = commands(Ruleset(rules, rules), Family.IPV6)
    assert lines == [
        "ip6tables -t filter -P INPUT DROP",
        "ip6tables -t filter -P FORWARD DROP",
        "ip6tables -t filter -P OUTPUT DROP",
        "ip6tables -t filter -F",
        "ip6tables -t filter -X",
        "ip6tables -t filter -A OUTPUT -m comment --comment a -j DROP",
        (
            "ip6tables -t filter -A OUTPUT -m ipv6header ! --header protocol"
            " -m comment --comment b -j DROP"
        ),
        "ip6tables -t mangle -P PREROUTING ACCEPT",
        "ip6tables -t mangle -P INPUT ACCEPT",
        "ip6tables -t mangle -P FORWARD ACCEPT",
        "ip6tables -t mangle -P OUTPUT ACCEPT",
        "ip6tables -t mangle -P POSTROUTING ACCEPT",
        "ip6tables -t mangle -F",
        "ip6tables -t mangle -X",
        "ip6tables -t mangle -A OUTPUT -m comment --comment c -j MARK --set-xmark 0x7/0xffffffff",
    ]
    blind = commands(Ruleset(rules), Family.IPV4, Kernel(extra_headers=False))
    assert [line for line in blind if " -A " in line] == [
        "iptables -t filter -A OUTPUT -m comment --comment a -j DROP",
        "iptables -t mangle -A OUTPUT -m comment --comment c -j MARK --set-xmark 0x7/0xffffffff",
    ]


def test_a_reset_and_a_type_of_icmp_have_their_words() -> None:
    """An ICMP type needs its protocol, of either family."""
    reset = replace(PLAIN, verdict=Reject(tcp_reset=True), protocol=Transport.TCP)
    assert render_line("INPUT", Line(reset), Family.IPV6).endswith(
        "-j REJECT --reject-with tcp-reset"
    )
    echo = replace(PLAIN, protocol=Transport.ICMP, icmp_type=8)
    assert "-p icmp -m icmp --icmp-type 8 -m" in render_line("INPUT", Line(echo), Family.IPV4)
    with pytest.raises(ValueError, match="an ICMP type needs the protocol"):
        render_line("INPUT", Line(replace(PLAIN, icmp_type=8)), Family.IPV4)
