"""What the egress guard lets pass, derived from the firewall's rules."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from gateway.firewall.nft.guard import TABLE, Guard, render_devices
from gateway.firewall.nft.program import Nft
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.guard import DeviceGuard, GuardRules, guard_for
from gateway.policy.rules import Accept, Chain, CtDirection, CtState, Family, Reject, Rule, Ruleset
from tests.scenarios import ETH0, ETH1, GUARD_MARK, SCENARIOS

ONE = Facts((ETH0,), guard_mark=GUARD_MARK)
BOTH = Facts((ETH0, ETH1), guard_mark=GUARD_MARK)
ARP_OPERATIONS = ("1 arp daddr ether 00:00:00:00:00:00", "2")
PLAIN4 = (
    'meta protocol ip ip hdrlength != 5 counter drop comment "P7 no options or extension headers"',
)
PLAIN6 = (
    (
        "meta protocol ip6 ip6 nexthdr != 6 ip6 nexthdr != 17 ip6 nexthdr != 58 ip6 nexthdr != 44"
        ' counter drop comment "P7 no options or extension headers"'
    ),
    (
        "meta protocol ip6 ip6 nexthdr 44 frag nexthdr != 6 frag nexthdr != 17 frag nexthdr != 58"
        ' counter drop comment "P7 no options or extension headers"'
    ),
)
NEVER = 'counter drop comment "never passed the firewall"'


def arp(source: str, target: str) -> list[str]:
    """Return the lines for requests and replies from `source` about `target`."""
    return [
        "meta protocol arp @ll,96,16 0x0806 arp htype 1 arp ptype ip arp hlen 6 arp plen 4"
        f" arp operation {operation} arp saddr ip {source} arp daddr ip {target} meta length 42"
        ' accept comment "ARP as the kernel sends it"'
        for operation in ARP_OPERATIONS
    ]


def chains(rules: GuardRules) -> dict[str, list[str]]:
    """Return the lines of each device's chain, without what begins every chain."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in map(str.strip, render_devices(rules).splitlines()):
        if "hook egress" in line:
            name = line.split('"')[1]
            assert line.endswith("policy drop;")
            found[name] = []
        elif line.endswith('"'):
            found[name].append(line)
    return found


def test_a_closed_firewall_lets_nothing_pass_not_even_arp() -> None:
    """Loopback is not an uplink, so nothing is left of the closed rules."""
    assert chains(guard_for(closed(), BOTH)) == {
        "eth0": [NEVER],
        "eth1": [NEVER],
    }


def test_the_encrypted_flow_passes_with_the_mark_and_loses_it() -> None:
    """The mark replaces the firewall's own mark and is removed, so that it is never seen."""
    ruleset = ruleset_for(*SCENARIOS["connecting-ports-closed"])
    assert chains(guard_for(ruleset, BOTH)) == {
        "eth0": [
            *arp("172.18.0.2", "172.18.0.0/16"),
            *PLAIN4,
            (
                "meta mark 0x1234abcd meta protocol ip ip daddr 198.51.100.10/32"
                " udp sport 51820 udp dport 51820 meta mark set 0x0 accept"
                ' comment "P3 the encrypted flow"'
            ),
            NEVER,
        ],
        "eth1": [NEVER],
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_uplink_passes_what_its_accepting_rules_accept_and_nothing_else(name: str) -> None:
    """One line for each accepting rule of the uplink, each with the mark."""
    state, config, facts = SCENARIOS[name]
    ruleset = ruleset_for(state, config, facts)
    for uplink, lines in chains(guard_for(ruleset, replace(facts, guard_mark=GUARD_MARK))).items():
        accepted = {
            rule.why
            for rules in (ruleset.ipv4, ruleset.ipv6)
            for rule in rules.get(Chain.OUTPUT, ())
            if isinstance(rule.verdict, Accept) and rule.out_interface == uplink
        }
        marked = [line for line in lines if line.startswith("meta mark 0x1234abcd")]
        assert {line.split('"')[1] for line in marked} == accepted
        others = [line for line in lines if line not in marked]
        assert others[-1] == NEVER
        assert all(
            line.startswith("meta protocol arp") or line in {*PLAIN4, *PLAIN6}
            for line in others[:-1]
        )


def test_options_and_extension_headers_are_dropped_before_anything_is_accepted() -> None:
    """Of each family that has any business on the uplink; IPv6 has been fragmented there."""
    ruleset = ruleset_for(*SCENARIOS["connected-holes"])
    lines = chains(guard_for(ruleset, ONE))["eth0"]
    first = next(i for i, line in enumerate(lines) if line.startswith("meta mark"))
    assert lines[:first] == [*arp("172.18.0.2", "172.18.0.0/16"), *PLAIN4, *PLAIN6]


def test_a_ping_of_a_lan_host_may_be_as_long_as_it_likes() -> None:
    """The limit on the length is neighbour discovery's alone."""
    ruleset = ruleset_for(*SCENARIOS["connected-holes"])
    rules = replace(guard_for(ruleset, ONE), routed=True)
    pings = [line for line in chains(rules)["eth0"] if "type 8" in line or "type 128" in line]
    assert len(pings) == 2
    assert not [line for line in pings if "meta length" in line]


def test_an_uplink_with_ipv6_alone_has_no_arp() -> None:
    """Where IPv4 has no business, nothing asks for an IPv4 neighbour."""
    state, config, facts = SCENARIOS["connecting-ipv6-endpoint"]
    lines = chains(
        guard_for(ruleset_for(state, config, facts), replace(facts, guard_mark=GUARD_MARK))
    )
    assert not [line for line in lines["eth0"] if "arp" in line]


def test_arp_asks_for_the_uplinks_network_and_for_gateways_beyond_it() -> None:
    """A host with a /32 has its gateway outside of its network."""
    uplink = Uplink("eth0", 2, 1500, (ip_interface("203.0.113.9/32"),))
    routes = (
        Route(ip_network("0.0.0.0/0"), "eth0", ip_address("192.0.2.1")),
        Route(ip_network("10.0.0.0/8"), "eth1", ip_address("192.0.2.99")),
        Route(ip_network("192.0.2.1/32"), "eth0"),
    )
    anything = (Rule(why="any", verdict=Accept(), out_interface="eth0"),)
    ruleset = Ruleset(ipv4={Chain.OUTPUT: anything})
    lines = chains(guard_for(ruleset, Facts((uplink,), routes, guard_mark=GUARD_MARK)))["eth0"]
    assert lines[:4] == [
        *arp("203.0.113.9", "203.0.113.9/32"),
        *arp("203.0.113.9", "192.0.2.1/32"),
    ]
    assert len(lines) == 7


def test_rules_that_differ_in_what_the_hook_cannot_see_become_one() -> None:
    """Marks and connection tracking are what the guard's own mark replaces."""
    rule = Rule(why="hole", verdict=Accept(), out_interface="eth0", mark=1)
    rules = (
        rule,
        replace(rule, mark=2),
        replace(rule, connmark=3),
        replace(rule, verdict=Reject()),
    )
    lines = chains(guard_for(Ruleset(ipv6={Chain.OUTPUT: rules}), ONE))["eth0"]
    assert lines == [
        *PLAIN6,
        'meta mark 0x1234abcd meta protocol ip6 meta mark set 0x0 accept comment "hole"',
        NEVER,
    ]


def test_packets_must_have_been_routed_where_the_kernel_can_check() -> None:
    """Every accepting rule asks for it but ARP's, which has no route."""
    rules = guard_for(ruleset_for(*SCENARIOS["connected-guarded"]), ONE)
    lines = chains(replace(rules, routed=True))["eth0"]
    later = [line for line in lines if "frag-off" in line]
    why = {
        line.partition("comment")[2]
        for line in lines
        if "port " in line or "icmp type" in line or "icmpv6 type 128" in line
    }
    assert {line.partition("comment")[2] for line in later} == why != set()
    assert not [line for line in later if "port " in line], "later fragments have no ports"
    asking = [line for line in lines if "meta mark 0x1234abcd meta rtclassid != 0xffffffff" in line]
    assert asking
    others = [line for line in lines if line not in asking]
    assert others[-1] == NEVER
    assert all(
        line.startswith("meta protocol arp") or line in {*PLAIN4, *PLAIN6} for line in others[:-1]
    )


def test_neighbour_discovery_carries_nothing_but_an_address() -> None:
    """A raw socket could hang a message on it, which the firewall does not see."""
    ruleset = ruleset_for(*SCENARIOS["connecting-ipv6-endpoint"])
    lines = chains(guard_for(ruleset, ONE))["eth0"]
    discovery = [line for line in lines if "icmpv6" in line]
    assert len(discovery) == 6
    assert all(" meta length <= 86 meta mark set 0x0 accept " in line for line in discovery)


LISTED = f"""\
table {TABLE} {{
\tchain egress-eth0 {{
\t\ttype filter hook egress device "eth0" priority filter; policy drop;
\t\tmeta mark 0x1234abcd ip daddr 198.51.100.10 meta mark set 0x00000000 accept comment "P3"
\t\tcounter packets 5 bytes 300 drop comment "never passed the firewall"
\t}}

\tchain egress-eth1 {{
\t\ttype filter hook egress device "eth1" priority filter; policy drop;
\t\tcounter packets 2 bytes 84 drop comment "never passed the firewall"
\t}}
}}
"""


def test_dropped_frames_are_counted_on_all_devices_together() -> None:
    """As nft lists them."""

    def run(argv: tuple[str, ...], **_options: object) -> str:
        return LISTED if "list" in argv else ""

    guard = Guard(Nft(run), in_advance=False, routed=False)
    assert guard.refused() == {("any", "guard"): 7}


@pytest.mark.parametrize("mark", [None, 0, -1, 1 << 32])
def test_a_mark_that_packets_have_anyway_is_refused(mark: int | None) -> None:
    """Zero is the mark of every unmarked packet; None is that of facts that were never read."""
    with pytest.raises(ValueError, match="a mark from 1"):
        guard_for(closed(), replace(ONE, guard_mark=mark))


def test_everything_that_the_hook_cannot_see_is_left_to_the_mark() -> None:
    """A rule that names no uplink is one of each; a rule for another uplink is not."""
    rule = Rule(why="hole", verdict=Accept())
    rules = (
        rule,
        replace(rule, out_interface="eth0"),
        replace(rule, ct_states=frozenset({CtState.NEW})),
        replace(rule, ct_direction=CtDirection.REPLY),
        replace(rule, mark=5),
        replace(rule, connmark=6),
        replace(rule, why="another", out_interface="eth1"),
    )
    found = guard_for(Ruleset(ipv6={Chain.OUTPUT: rules}), BOTH)
    first, second = found.devices
    assert [it.why for _, it in first.rules] == ["hole"]
    assert [it.why for _, it in second.rules] == ["hole", "another"]
    assert first.rules == ((Family.IPV6, rule),)


@pytest.mark.parametrize("mark", [1, (1 << 32) - 1])
def test_every_other_mark_is_taken(mark: int) -> None:
    """The smallest and the largest."""
    assert guard_for(closed(), replace(ONE, guard_mark=mark)).mark == mark


def test_links_that_are_down_are_guarded_before_they_come_up() -> None:
    """Nothing passes on them."""
    found = guard_for(ruleset_for(*SCENARIOS["connected"]), replace(ONE, down=("eth7",)))
    assert found.devices[-1] == DeviceGuard("eth7")
    assert (found.devices[-1].rules, found.devices[-1].arp) == ((), ())
