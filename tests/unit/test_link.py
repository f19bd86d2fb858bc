"""What the tunnel's interface gets: an MTU that fits through the uplink, and addresses."""

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from gateway.policy.facts import Facts
from gateway.policy.link import fitted, tunnel_mtu
from tests.scenarios import DUAL, ETH0, IPV4_ONLY, ONE_UPLINK, ROUTES0


@pytest.mark.parametrize("tunnel", [IPV4_ONLY, DUAL], ids=["IPv4 server", "IPv6 server"])
@pytest.mark.parametrize(
    ("uplink", "mtu"), [(1500, 1420), (9000, 8920), (1400, 1320), (1360, 1280), (1300, 1280)]
)
def test_the_mtu_leaves_80_bytes_for_wireguard_over_either_family(
    tunnel: object, uplink: int, mtu: int
) -> None:
    """40 bytes of IPv6, 8 of UDP, 32 of WireGuard, as wg-quick(8) reckons; never below 1280."""
    facts = replace(ONE_UPLINK, uplinks=(replace(ETH0, mtu=uplink),))
    assert tunnel_mtu(tunnel, facts) == mtu  # type: ignore[arg-type]  # both are tunnels


def test_a_configured_mtu_is_used_as_it_is() -> None:
    """It is the user's to know better, in both directions."""
    assert tunnel_mtu(replace(IPV4_ONLY, mtu=1200), ONE_UPLINK) == 1200
    assert tunnel_mtu(replace(IPV4_ONLY, mtu=9000), ONE_UPLINK) == 9000


def test_without_a_way_to_the_server_the_mtu_is_that_of_ethernet() -> None:
    """The interface is made all the same, and an uplink may appear later."""
    assert tunnel_mtu(IPV4_ONLY, Facts()) == 1420


def test_ipv6_addresses_are_left_out_where_the_namespace_has_no_ipv6() -> None:
    """A tunnel with nothing else keeps them, and its failure says why."""
    without = Facts((ETH0,), ROUTES0, ipv6=False)
    assert [str(a) for a in fitted(DUAL, without).addresses] == ["10.2.0.2/32"]
    assert fitted(DUAL, ONE_UPLINK) == DUAL
    only = replace(DUAL, addresses=(ip_interface("fd02::2/128"),))
    assert fitted(only, without) == only
