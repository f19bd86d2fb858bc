"""Which of the workloads' resolvers are asked whether they answer, and what is found.

A resolver in the tunnel is probed in any case (`gateway.policy.probing`), and asked here only to
find out why that probe fails. One that is outside the tunnel on purpose is never asked, because
nothing of the gateway's own leaves there. The others are on loopback, or where no way leads.
"""

from collections.abc import Iterator
from enum import StrEnum

from gateway.model import Address, Config, ProbeKind, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.limits import Limit, LimitCode

MOST_ASKED = 3
"""How many resolvers are asked: as many as a C library uses (resolv.conf(5), MAXNS)."""


class Fault(StrEnum):
    """Why a resolver does not answer."""

    REFUSED = "nothing listens on its UDP port 53"
    SILENT = "no answer comes from its UDP port 53"
    UNREACHABLE = "the tunnel does not lead there"


@frozen
class Finding:
    """A resolver that does not answer."""

    resolver: Address
    fault: Fault


def to_ask(tunnel: Tunnel, config: Config, *, failing: bool) -> tuple[Address, ...]:
    """Return the resolvers of `tunnel` to ask; `failing`: those in the tunnel do not answer."""
    if config.health_probe.kind is ProbeKind.OFF or config.name_server is not None:
        return ()  # what runs the gateway's own resolver reports whether it answers
    listed = (*config.outbound_subnets, *config.public_subnets)
    return tuple(
        resolver
        for resolver in tunnel.dns[:MOST_ASKED]
        if not any(resolver in subnet for subnet in listed)
        and (failing or resolver.is_loopback or not _led(resolver, tunnel))
    )


def limits_of_resolvers_asked(found: tuple[Finding, ...], tunnel: Tunnel) -> Iterator[Limit]:
    """Yield the limit of each resolver of `tunnel` that does not answer."""
    for it in found:
        if it.resolver in tunnel.dns:
            problem = f"the resolver {it.resolver} does not answer: {it.fault}"
            yield Limit(LimitCode.NO_NAMES, problem, _remedy(it))


def _remedy(finding: Finding) -> str:
    resolver = finding.resolver
    if resolver.is_loopback:
        return (
            "start the container that has the resolver, with this network, or set DNS_ADDRESS to "
            "your provider's resolver"
        )
    if finding.fault is Fault.UNREACHABLE:
        return f"add {resolver} to WIREGUARD_ALLOWED_IPS, or set DNS_ADDRESS to another resolver"
    return "set DNS_ADDRESS to your provider's resolver"


def _led(resolver: Address, tunnel: Tunnel) -> bool:
    """Return whether packets to `resolver` go into the tunnel."""
    networks = (network for peer in tunnel.peers for network in peer.allowed_ips)
    return tunnel.has_family(resolver.version) and any(resolver in it for it in networks)
