"""The MTU and the addresses of the tunnel's interface in this namespace."""

from dataclasses import replace
from typing import TypeVar

from gateway.model import Candidate, Tunnel
from gateway.policy.facts import Facts
from gateway.policy.routing import IPV4
from gateway.policy.ways import uplink_to

C = TypeVar("C", bound=Candidate)

OVERHEAD = 80
"""The most bytes that WireGuard adds to a packet: 80 over IPv6, 60 over IPv4; as wg-quick(8)."""

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
    """Return `tunnel` without IPv6 addresses if IPv6 is disabled in the namespace.

    Docker disables it in containers on networks without IPv6, and the kernel then refuses an IPv6
    address on any interface. IPv6 stays refused, as for a tunnel that never had it. A tunnel with
    only IPv6 addresses keeps them: building it fails with the reason.
    """
    kept = tuple(a for a in tunnel.addresses if a.version == IPV4 or facts.ipv6)
    return replace(tunnel, addresses=kept) if kept else tunnel
