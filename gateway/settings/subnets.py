"""The subnets outside the tunnel, less the networks of the tunnels themselves.

The three private ranges as a whole are a common way to say "my home network", and the tunnel's
address lies in one of them.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from gateway.model import Address, Network
from gateway.settings.addresses import is_public, simplified, within
from gateway.settings.checks import is_of_tunnel
from gateway.settings.findings import Findings, joined
from gateway.settings.sourced import Sourced
from gateway.settings.tunnels import SourcedTunnel

MOST_PUBLIC: Final = 16
"""How many public subnets are listed at most: each one has a policy rule."""

_AROUND: Final = {4: 24, 6: 64}
"""The prefix length of the network that a provider has at least around a single address."""


def outbound_subnets(
    given: Sourced[tuple[Network, ...]] | None,
    tunnels: Sequence[SourcedTunnel],
    findings: Findings,
) -> tuple[Network, ...]:
    """Return the subnets outside the tunnel; overlapping ones are merged and reported.

    A subnet around the network of a tunnel loses that network, which is reported too.
    """
    if not given:
        return ()
    where = given.origin.where
    subnets = simplified(given.value, where, findings)
    return tuple(
        part for subnet in subnets for part in _without_tunnels(subnet, tunnels, where, findings)
    )


def public_subnets(
    subnets: Sequence[Network], where: str, findings: Findings
) -> tuple[IPv4Network, ...]:
    """Return those of `subnets` that are on public ranges; what that means is reported."""
    public = tuple(filter(is_public, subnets))
    if public:
        findings.warn(
            where,
            f"{joined(public)} has public addresses: they are outside the tunnel only while a "
            "network of the gateway itself has this subnet, which they have to be in; otherwise, "
            "they are reached through the tunnel",
        )
    if len(public) > MOST_PUBLIC:
        findings.problem(
            where, f"has {len(public)} public subnets; list at most {MOST_PUBLIC} of them"
        )
    return public


def _without_tunnels(
    subnet: Network, tunnels: Sequence[SourcedTunnel], where: str, findings: Findings
) -> Sequence[Network]:
    """Return the parts of a subnet that no tunnel has: itself, unless it is wider than one."""
    taken = [*dict.fromkeys(one for tunnel in tunnels for one in _taken(subnet, tunnel))]
    left: list[Network] = [subnet]
    for network in taken:
        left = [part for one in left for part in _less(one, network)]
    if taken:
        findings.warn(
            where,
            f"{subnet} is used without {joined(taken)}, which the tunnel has; list the subnets of "
            "your home network alone to avoid this",
        )
    return left


def _taken(subnet: Network, tunnel: SourcedTunnel) -> Iterator[Network]:
    """Yield what belongs to a tunnel in a subnet that is wider than the tunnel's network."""
    networks = [_around(address.network) for address in tunnel.addresses.value]
    own = [one for one in networks if one != subnet and within(one, subnet)]
    yield from own
    for server in tunnel.dns.value if own else ():
        if server in subnet and (is_of_tunnel(server, tunnel) or _is_of_a_provider(server)):
            host = ip_network(server)
            if not any(within(host, one) for one in own):
                yield host


def _is_of_a_provider(server: Address) -> bool:
    """Whether a provider has its resolver at this address, which then is in the tunnel."""
    from gateway.providers.catalog import PROVIDERS  # noqa: PLC0415 - rarely needed

    return any(server in provider.resolvers for provider in PROVIDERS)


def _around(network: Network) -> Network:
    """Return the network of a tunnel's address, one of a likely size for a single address."""
    length = _AROUND[network.version]
    single = network.prefixlen == network.max_prefixlen
    return network.supernet(new_prefix=length) if single else network


def _less(subnet: Network, network: Network) -> Sequence[Network]:
    """Return a subnet without a network; nothing of it if the network covers it."""
    if not network.overlaps(subnet):
        return (subnet,)
    if within(subnet, network):
        return ()
    if isinstance(subnet, IPv4Network) and isinstance(network, IPv4Network):
        return [*subnet.address_exclude(network)]
    if isinstance(subnet, IPv6Network) and isinstance(network, IPv6Network):
        return [*subnet.address_exclude(network)]
    return ()


def against_tunnel(
    subnets: Sequence[Network], tunnel: SourcedTunnel, where: str, findings: Findings
) -> None:
    """Refuse a subnet that contains an address of the tunnel; report other overlaps."""
    allowed = [one for one in tunnel.allowed_ips if one.prefixlen]
    for subnet in subnets:
        for address in tunnel.addresses.value:
            if address.ip in subnet:
                findings.problem(where, _own(subnet, address.ip))
        for endpoint in tunnel.tunnel.endpoints:
            if endpoint.address in subnet:
                findings.info(
                    where,
                    f"the server {endpoint} is in {subnet}, outside the tunnel, which is fine",
                )
        both = [network for network in allowed if network.overlaps(subnet)]
        if both:
            findings.warn(
                where,
                f"{subnet} is in AllowedIPs too ({joined(both)}); it is reached outside the tunnel",
            )


def _own(subnet: Network, address: Address) -> str:
    return (
        f"{subnet} contains the tunnel's own address {address}, so traffic of the tunnel would go "
        "outside it; list narrower subnets"
    )
