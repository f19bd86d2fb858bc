"""The path to a server through the namespace, and what counts as another one."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from gateway.policy.facts import Facts, Route
from gateway.policy.ways import (
    has_moved,
    route_to,
    shared_addresses,
    steady,
    uplink_to,
    ways,
)
from tests.scenarios import (
    DUAL,
    ETH0,
    ETH1,
    IPV4_ONLY,
    ONE_UPLINK,
    ROUTES0,
    ROUTES1,
    SERVER4,
    TWO_UPLINKS,
)

SERVER = SERVER4.address
DEFAULT, LINK = ROUTES0[:2]
OTHER_DEFAULT = Route(ip_network("0.0.0.0/0"), "eth1", ip_address("172.19.0.1"), metric=100)
EXACT = Route(ip_network("198.51.100.0/24"), "eth1", metric=5000)


def test_the_longest_prefix_wins_and_then_the_lowest_metric() -> None:
    """As in the kernel, for uplinks alone."""
    both = replace(TWO_UPLINKS, routes=(OTHER_DEFAULT, *TWO_UPLINKS.routes))
    assert route_to(SERVER, both) == DEFAULT
    assert uplink_to(SERVER, both) == ETH0
    longer = replace(both, routes=(*both.routes, EXACT))
    assert uplink_to(SERVER, longer) == ETH1
    tunnel = Route(ip_network("198.51.100.10/32"), "wg0")
    assert uplink_to(SERVER, replace(longer, routes=(*longer.routes, tunnel))) == ETH1


def test_without_a_route_there_is_no_uplink() -> None:
    """Even if there is a link."""
    assert route_to(SERVER, replace(ONE_UPLINK, routes=(LINK,))) is None
    assert uplink_to(SERVER, replace(ONE_UPLINK, routes=(LINK,))) is None


def test_the_way_names_every_endpoint_and_every_address_of_its_family() -> None:
    """People compare it with `ip route get`."""
    two = replace(ETH0, addresses=(*ETH0.addresses, ip_interface("172.18.0.9/16")))
    assert ways(IPV4_ONLY, replace(ONE_UPLINK, uplinks=(two,))) == (
        "198.51.100.10 via 172.18.0.1 dev eth0 src 172.18.0.2, 172.18.0.9"
    )
    assert ways(DUAL, ONE_UPLINK) == "2001:db8:100::10 via fd18::1 dev eth0 src fd18::2"
    peers = (*IPV4_ONLY.peers, *DUAL.peers)
    assert ways(replace(IPV4_ONLY, peers=peers), ONE_UPLINK) == "; ".join(
        (ways(IPV4_ONLY, ONE_UPLINK), ways(DUAL, ONE_UPLINK))
    )


def test_a_way_may_have_no_gateway_and_no_address() -> None:
    """A server on the same link, and an uplink that has lost its address."""
    near = replace(ONE_UPLINK, routes=(Route(ip_network("198.51.100.0/24"), "eth0"),))
    assert ways(IPV4_ONLY, near) == "198.51.100.10 dev eth0 src 172.18.0.2"
    bare = replace(near, uplinks=(replace(ETH0, addresses=()),))
    assert ways(IPV4_ONLY, bare) == "198.51.100.10 dev eth0 src none"


def moved(before: Facts, after: Facts) -> bool:
    """Return whether the way to IPV4_ONLY's server differs."""
    return has_moved(IPV4_ONLY, before, after)


def test_another_link_of_the_same_name_is_another_way() -> None:
    """A container that was detached and attached again has the same addresses and gateway."""
    again = replace(ONE_UPLINK, uplinks=(replace(ETH0, index=9),))
    assert moved(ONE_UPLINK, again)
    assert not moved(ONE_UPLINK, replace(ONE_UPLINK))


def test_another_gateway_is_another_way() -> None:
    """On the same link."""
    routes = (replace(DEFAULT, gateway=ip_address("172.18.0.9")), *ROUTES0[1:])
    assert moved(ONE_UPLINK, replace(ONE_UPLINK, routes=routes))


def test_a_way_that_goes_or_comes_counts() -> None:
    """Both ways round."""
    assert moved(ONE_UPLINK, Facts())
    assert moved(Facts(), ONE_UPLINK)
    assert not moved(Facts(), Facts())


def test_an_address_that_was_lost_counts_and_one_more_does_not() -> None:
    """A neighbour can add one by a router advertisement, but not take one away."""
    more = replace(ETH0, addresses=(*ETH0.addresses, ip_interface("172.18.0.9/16")))
    several = replace(ONE_UPLINK, uplinks=(more,))
    assert not moved(ONE_UPLINK, several)
    assert moved(several, ONE_UPLINK)
    none = replace(ONE_UPLINK, uplinks=(replace(ETH0, addresses=ETH0.addresses[1:]),))
    assert moved(none, ONE_UPLINK), "it had none, so WireGuard has no source address yet"
    six = replace(ONE_UPLINK, uplinks=(replace(ETH0, addresses=ETH0.addresses[:1]),))
    assert not moved(ONE_UPLINK, six), "of the other family"


def test_every_endpoint_counts() -> None:
    """A tunnel with two servers is built again when the way to either has changed."""
    both = replace(IPV4_ONLY, peers=(*IPV4_ONLY.peers, *DUAL.peers))
    without_ipv6 = replace(ONE_UPLINK, routes=ROUTES0[:2])
    assert has_moved(both, ONE_UPLINK, without_ipv6)
    assert not moved(ONE_UPLINK, without_ipv6), "control: the other way is the same"


def test_an_uplink_counts_once_it_is_in_all_looks() -> None:
    """By index and name, because a link may be replaced by one of the same name."""
    assert steady([TWO_UPLINKS, TWO_UPLINKS]) == TWO_UPLINKS
    assert steady([ONE_UPLINK, TWO_UPLINKS]) == ONE_UPLINK
    replaced = replace(TWO_UPLINKS, uplinks=(ETH0, replace(ETH1, index=9)))
    assert steady([TWO_UPLINKS, replaced]) == ONE_UPLINK
    later = replace(TWO_UPLINKS, uplinks=(replace(ETH0, mtu=1400), ETH1))
    assert steady([TWO_UPLINKS, later]) == later, "what else is new is taken from the last look"


def test_addresses_that_the_tunnel_shares_with_uplinks_are_named() -> None:
    """Each with the uplink that has it."""
    own = IPV4_ONLY.addresses[0]
    wide = ip_interface(f"{own.ip}/16")
    clash = Facts((replace(ETH0, addresses=(wide,)), replace(ETH1, addresses=(own,))), ROUTES1)
    assert shared_addresses(IPV4_ONLY, clash) == "10.2.0.2 on eth0, 10.2.0.2 on eth1"
    assert shared_addresses(IPV4_ONLY, TWO_UPLINKS) == ""
