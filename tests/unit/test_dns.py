"""Names: the resolver file and when it is believed, and what an endpoint's name may lead to."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.model import EVERYTHING, Address, Candidate, Endpoint, NamedEndpoint, Peer, Secret
from gateway.policy.dns import (
    kept,
    resolv_conf,
    resolved,
    resolvers_found,
    resolvers_in,
    resolvers_kept,
    with_addresses,
)
from gateway.policy.facts import Facts
from tests.scenarios import IPV4_ONLY, ONE_UPLINK, ROUTES0

KEY, OTHER = Secret("one"), Secret("other")
GIVEN = (ip_address("127.0.0.11"), ip_address("fd00::53"))
OURS = resolv_conf([ip_address("10.64.0.1")], GIVEN, KEY)


def test_the_resolvers_found_outlive_the_file_that_named_them() -> None:
    """However often the gateway starts again, and applications see the tunnel's alone."""
    assert resolvers_found("nameserver 127.0.0.11\n", KEY, first=True, kept=True) == GIVEN[:1]
    assert resolvers_found(OURS, KEY, first=False, kept=True) == GIVEN
    assert [line for line in OURS.splitlines() if line.startswith("nameserver")] == [
        "nameserver 10.64.0.1"
    ]


@pytest.mark.promise("P10")
@pytest.mark.parametrize(
    "text",
    [
        "nameserver 203.0.113.10\n",
        "# Found here: 203.0.113.10\n",
        f"# Found here: 203.0.113.10 {'0' * 32}\n",
        OURS.replace("127.0.0.11", "203.0.113.10"),
        resolv_conf([], GIVEN, OTHER),
        "# Found here: \u00e9\n",
        "nameserver\n",
        "",
    ],
)
def test_where_a_gateway_has_been_only_what_it_sealed_is_believed(text: str) -> None:
    """A workload shares the file and could choose the resolver for an unencrypted query."""
    assert resolvers_found(text, KEY, first=False, kept=True) == ()


@pytest.mark.promise("P10")
def test_where_no_copy_can_be_kept_only_dockers_resolver_is_believed_without_a_seal() -> None:
    """The file may be older than the namespace, and a workload may have written it."""
    text = "nameserver 203.0.113.10\nnameserver 127.0.0.11\n"
    assert resolvers_found(text, KEY, first=True, kept=False) == GIVEN[:1]
    assert resolvers_found(text, KEY, first=False, kept=False) == ()
    assert resolvers_found(OURS, KEY, first=False, kept=False) == GIVEN
    assert len(resolvers_found(text, KEY, first=True, kept=True)) == 2, "control"


@pytest.mark.promise("P10")
@pytest.mark.parametrize("found", [(), GIVEN])
def test_a_copy_names_the_same_resolvers(found: tuple[Address, ...]) -> None:
    """None at all, too: the file is not asked again then."""
    assert resolvers_kept(kept(found)) == found


@pytest.mark.promise("P10")
def test_a_sealed_line_counts_wherever_it_is() -> None:
    """What a workload adds around it changes nothing."""
    around = f"# Found here: 203.0.113.10\nnameserver 203.0.113.10\n{OURS}"
    assert resolvers_found(around, KEY, first=False, kept=True) == GIVEN
    assert resolvers_found(around, KEY, first=True, kept=True) == GIVEN
    assert resolvers_in(around) != GIVEN, "control: the seal makes the difference"


@pytest.mark.promise("P3")
@pytest.mark.parametrize(
    "address",
    [
        "172.18.0.2",
        "172.18.255.255",
        "10.2.0.2",
        "127.0.0.1",
        "255.255.255.255",
        "224.0.0.1",
        "0.0.0.0",
    ],
)
def test_a_name_leads_to_no_address_of_this_host_and_to_none_that_is_many(address: str) -> None:
    """The flow to it would come back on loopback, where a workload can read its mark."""
    peer = Peer("cHVibGlj", NamedEndpoint("vpn.example", 51820), EVERYTHING)
    tunnel = replace(IPV4_ONLY, peers=(peer,))
    assert resolved(tunnel, {"vpn.example": (ip_address(address),)}, ONE_UPLINK) == ()
    good = ip_address("198.51.100.10")
    found = resolved(tunnel, {"vpn.example": (ip_address(address), good)}, ONE_UPLINK)
    assert [it.endpoints for it in found] == [(Endpoint(good, 51820),)]


def test_the_file_has_every_resolver_in_order_and_no_search_domain() -> None:
    """resolv.conf(5): the first that answers wins; `search .` keeps names as they are."""
    two = [ip_address("10.64.0.1"), ip_address("fd02::53")]
    lines = resolv_conf(two, GIVEN, KEY).splitlines()
    assert lines[0] == "# Names resolve in the tunnel, or not at all."
    assert lines[1].startswith("# Found here: 127.0.0.11 fd00::53 ")
    assert lines[2:] == ["search .", "nameserver 10.64.0.1", "nameserver fd02::53"]
    assert resolv_conf(two, GIVEN, KEY).endswith("\n")


@pytest.mark.promise("P10")
def test_the_seal_is_that_of_the_key_and_long_enough_not_to_be_guessed() -> None:
    """128 bits; who has the key of another gateway makes another one."""
    (found,) = [line for line in OURS.splitlines() if line.startswith("# Found here:")]
    seal = found.rpartition(" ")[2]
    assert len(seal) == 32
    assert int(seal, 16) >= 0
    assert seal not in resolv_conf([], GIVEN, OTHER)
    assert seal in resolv_conf([], GIVEN, KEY), "control: the tunnel's resolvers are not sealed"


def test_resolvers_are_read_as_the_c_library_reads_them() -> None:
    """Other lines do not count, a zone is left out, and so is what is not an address."""
    text = (
        "# nameserver 192.0.2.1\noptions ndots:0\nnameserver 192.0.2.2 # ours\n"
        "nameserver fe80::1%eth0\nnameserver\nnameserver elsewhere\nsearch 192.0.2.3\n"
    )
    assert resolvers_in(text) == (ip_address("192.0.2.2"), ip_address("fe80::1"))
    assert resolvers_in(OURS) == GIVEN


def named(*names: str) -> Candidate:
    """Return a candidate with one peer for each name, and one whose endpoint is an address."""
    peers = [
        Peer(f"{number}", NamedEndpoint(name, 1000 + number), EVERYTHING, Secret("psk"), number)
        for number, name in enumerate(names)
    ]
    return replace(IPV4_ONLY, peers=(*IPV4_ONLY.peers, *peers), listen_port=7, mtu=1300)


ONE, TWO, THREE = (ip_address(f"198.51.100.{number}") for number in (1, 2, 3))


def test_each_name_has_its_addresses_in_turn_as_often_as_the_longest_list_takes() -> None:
    """Everything else of the tunnel stays as it was configured."""
    tunnel = named("a.example", "b.example")
    found = resolved(tunnel, {"a.example": (ONE, TWO), "b.example": (THREE,)}, ONE_UPLINK)
    servers = [[str(peer.endpoint) for peer in it.peers] for it in found]
    fixed = str(IPV4_ONLY.peers[0].endpoint)
    assert servers == [
        [fixed, "198.51.100.1:1000", "198.51.100.3:1001"],
        [fixed, "198.51.100.2:1000", "198.51.100.3:1001"],
    ]
    for it in found:
        assert it.peers[0] == IPV4_ONLY.peers[0]
        assert [peer.public_key for peer in it.peers[1:]] == ["0", "1"]
        assert [peer.preshared_key for peer in it.peers[1:]] == [Secret("psk")] * 2
        assert [peer.persistent_keepalive for peer in it.peers[1:]] == [0, 1]
        assert [peer.allowed_ips for peer in it.peers] == [EVERYTHING] * 3
        assert replace(it, peers=tunnel.peers) == tunnel  # type: ignore[arg-type]


def test_a_name_without_an_answer_leaves_nothing_to_connect_to() -> None:
    """Even if the other one has an address."""
    tunnel = named("a.example", "b.example")
    assert resolved(tunnel, {"a.example": (ONE,)}, ONE_UPLINK) == ()


def test_a_tunnel_without_names_is_complete() -> None:
    """Once, whatever the namespace looks like."""
    assert resolved(IPV4_ONLY, {}, Facts()) == (IPV4_ONLY,)


def test_an_address_that_no_uplink_has_a_route_to_is_left_out() -> None:
    """An IPv6 address where there is only IPv4, for example."""
    only_ipv4 = replace(ONE_UPLINK, routes=ROUTES0[:2])
    answers = {"a.example": (ip_address("2001:db8::7"), ONE)}
    found = resolved(named("a.example"), answers, only_ipv4)
    assert [it.endpoints[-1].address for it in found] == [ONE]
    assert len(resolved(named("a.example"), answers, ONE_UPLINK)) == 2, "control"


def test_a_tunnel_needs_a_mark_and_every_address() -> None:
    """What is missing is a fault of the caller, not of the configuration."""
    with pytest.raises(KeyError, match=r"a\.example"):
        with_addresses(named("a.example"), {})
    unmarked = Candidate(IPV4_ONLY.private_key, IPV4_ONLY.addresses, IPV4_ONLY.peers)
    with pytest.raises(ValueError, match="no firewall mark"):
        with_addresses(unmarked, {})
