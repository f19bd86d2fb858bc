"""A candidate becomes a tunnel when its servers have addresses and its flow has a mark."""

from ipaddress import ip_address

import pytest

from gateway.model import EVERYTHING, Candidate, CandidatePeer, Endpoint, NamedEndpoint, Tunnel
from gateway.policy.dns import with_addresses
from tests.scenarios import IPV4_ONLY

FIRST, SECOND = ip_address("203.0.113.7"), ip_address("203.0.113.8")
NAMED = Candidate(
    IPV4_ONLY.private_key,
    IPV4_ONLY.addresses,
    (
        CandidatePeer("Zmlyc3Q", NamedEndpoint("a.example", 1), EVERYTHING, None, 7),
        CandidatePeer("c2Vjb25k", Endpoint(SECOND, 2), EVERYTHING),
    ),
    listen_port=4000,
    fwmark=7,
    mtu=1300,
    dns=(FIRST,),
)


def test_a_candidate_becomes_a_tunnel_with_all_of_its_values() -> None:
    """Names get their addresses; nothing else changes."""
    tunnel = with_addresses(NAMED, {"a.example": FIRST})
    assert isinstance(tunnel, Tunnel)
    assert [peer.endpoint for peer in tunnel.peers] == [Endpoint(FIRST, 1), Endpoint(SECOND, 2)]
    assert [peer.persistent_keepalive for peer in tunnel.peers] == [7, 25]
    for field in ("private_key", "addresses", "listen_port", "fwmark", "mtu", "dns"):
        assert getattr(tunnel, field) == getattr(NAMED, field)
    assert with_addresses(tunnel, {}) == tunnel


def test_a_name_without_an_address_or_a_missing_mark_makes_no_tunnel() -> None:
    """It could not be built, or would leave without a mark."""
    with pytest.raises(KeyError):
        with_addresses(NAMED, {})
    unmarked = Candidate(NAMED.private_key, NAMED.addresses, NAMED.peers)
    with pytest.raises(ValueError, match="no firewall mark"):
        with_addresses(unmarked, {"a.example": FIRST})
    with pytest.raises(TypeError):
        Tunnel(NAMED.private_key, NAMED.addresses, ())  # type: ignore[call-arg] # no mark
