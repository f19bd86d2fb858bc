"""The small parts of staying up: ways to a server, addresses of a name, counts."""

from dataclasses import replace
from ipaddress import ip_address

from gateway.firewall.nft.listing import refused
from gateway.firewall.xtables.entry import COUNTERS, ENTRY_SIZE, packets
from gateway.model import EVERYTHING, NamedEndpoint, Peer
from gateway.policy.dns import resolved
from gateway.policy.rules import Family
from gateway.policy.ways import ways
from tests.fakes.world import other_uplink
from tests.scenarios import IPV4_ONLY, ONE_UPLINK, TWO_UPLINKS

NAMED = replace(
    IPV4_ONLY, peers=(Peer("cHVibGlj", NamedEndpoint("vpn.example", 51820), EVERYTHING),)
)

# As nft 1.0.6 prints it, shortened.
LISTED = """\
inet portcullis input 6 5
  [ counter pkts 3 bytes 180 ]
table inet portcullis {
\tchain input {
\t\tmeta nfproto ipv4 iifname "lo" accept comment "counter packets 9 bytes 9 drop"
\t\tmeta nfproto ipv4 counter packets 3 bytes 180 drop comment "P1 nothing else enters"
\t}

\tchain output {
\t\tmeta nfproto ipv4 meta l4proto tcp counter packets 4 bytes 240 reject with tcp reset
\t\tmeta nfproto ipv4 counter packets 5 bytes 300 reject with icmp admin-prohibited
\t\tmeta nfproto ipv6 counter packets 7 bytes 560 reject with icmpv6 admin-prohibited
\t\tdrop comment "the rest"
\t}
}
"""


def test_refused_packets_are_added_up_by_family_and_chain() -> None:
    """From the listing that is read for the comparison anyway; a comment is not a counter."""
    assert refused(LISTED) == {
        ("ipv4", "input"): 3,
        ("ipv4", "output"): 9,
        ("ipv6", "output"): 7,
    }


def test_an_entry_of_a_legacy_table_has_its_count_before_its_first_match() -> None:
    """Packets, then bytes, in both families."""
    for family in Family:
        head = bytes(ENTRY_SIZE[family] - COUNTERS.size)
        assert packets(family, head + COUNTERS.pack(42, 4200) + b"match") == 42


def test_the_way_to_a_server_is_uplink_gateway_and_own_address() -> None:
    """What does not lead there makes no difference."""
    usual = ways(IPV4_ONLY, ONE_UPLINK)
    assert usual == "198.51.100.10 via 172.18.0.1 dev eth0 src 172.18.0.2"
    assert ways(IPV4_ONLY, TWO_UPLINKS) == usual
    assert ways(IPV4_ONLY, other_uplink(ONE_UPLINK)) != usual
    assert ways(IPV4_ONLY, replace(ONE_UPLINK, routes=())) == "no route to 198.51.100.10"


def test_addresses_that_no_server_can_have_are_left_out() -> None:
    """Loopback, multicast, none at all, and the tunnel's own; the rest take turns."""
    odd = ("127.0.0.1", "::1", "224.0.0.1", "0.0.0.0", "10.2.0.2", "ff02::1")
    good = ("198.51.100.7", "2001:db8::7")
    answers = {"vpn.example": tuple(map(ip_address, (*odd, *good)))}
    found = resolved(NAMED, answers, ONE_UPLINK)
    assert [str(t.endpoints[0].address) for t in found] == list(good)
    assert resolved(NAMED, {"vpn.example": tuple(map(ip_address, odd))}, ONE_UPLINK) == ()
