"""Which host in a tunnel is asked to forward ports. Pure."""

from ipaddress import IPv4Address, IPv4Interface

from gateway.model import Candidate
from gateway.model.forwarding import ForwarderKind, Forwarding

PROTONS_GATEWAY = IPv4Address("10.2.0.1")
PROTONS_ADDRESS = IPv4Address("10.2.0.2")
"""What Proton VPN gives each client, and where it listens for NAT-PMP."""


def gateway_for(forwarding: Forwarding, tunnel: Candidate) -> IPv4Address | None:
    """Return the host in `tunnel` that is asked for ports, None if that cannot be known.

    Where the user names none: the tunnel's resolver if it has a private address, because servers
    that forward ports are mostly their own resolver; else the first address of the tunnel's subnet.
    """
    if forwarding.gateway is not None:
        return forwarding.gateway
    if forwarding.kind is ForwarderKind.PROTONVPN:
        return PROTONS_GATEWAY
    own = address_of(tunnel)
    for resolver in tunnel.dns:
        if isinstance(resolver, IPv4Address) and resolver.is_private and not resolver.is_loopback:
            return resolver
    if own is None or own.network.num_addresses <= 2:  # noqa: PLR2004 - /31 and /32
        return None
    first = own.network[1]
    return None if first == own.ip else first


def address_of(tunnel: Candidate) -> IPv4Interface | None:
    """Return the address in the tunnel that asks: both protocols are for IPv4 here."""
    return next((it for it in tunnel.addresses if isinstance(it, IPv4Interface)), None)


def looks_like_proton(tunnel: Candidate) -> bool:
    """Return whether `tunnel` has the addresses that Proton VPN writes into its files."""
    own = address_of(tunnel)
    return own is not None and own.ip == PROTONS_ADDRESS and PROTONS_GATEWAY in tunnel.dns
