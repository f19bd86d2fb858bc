"""What the tunnel's interface gets of its configuration here: its MTU and its addresses."""

from dataclasses import replace
from typing import TypeVar

from gateway.model import Candidate, Facts, Tunnel
from gateway.policy.routing import IPV4
from gateway.policy.ways import uplink_to

C = TypeVar("C", bound=Candidate)

OVERHEAD = 80
"""Bytes that WireGuard adds to a packet at most: over IPv6; it is 60 over IPv4 (as wg-quick)."""

SMALLEST_MTU = 1280
"""The smallest MTU that IPv6 works with (RFC 8200, section 5)."""


def tunnel_mtu(tunnel: Tunnel, facts: Facts) -> int:
    """Return the MTU of the tunnel in bytes: as configured, or the uplink's less the overhead."""
    if tunnel.mtu is not None:
        return tunnel.mtu
    uplinks = [uplink_to(endpoint.address, facts) for endpoint in tunnel.endpoints]
    path = min((uplink.mtu for uplink in uplinks if uplink), default=1500)
    return max(SMALLEST_MTU, path - OVERHEAD)


def fitted(tunnel: C, facts: Facts) -> C:
    """Return `tunnel` without IPv6 addresses where the namespace has IPv6 switched off.

    Docker switches it off in containers on networks without IPv6, and the kernel then refuses an
    IPv6 address on any interface. IPv6 stays refused, as for a tunnel that never had it. A tunnel
    with nothing else keeps its addresses: building it fails and says why.
    """
    kept = tuple(a for a in tunnel.addresses if a.version == IPV4 or facts.ipv6)
    return replace(tunnel, addresses=kept) if kept else tunnel
