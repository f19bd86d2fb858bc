"""Firewall rules for names that are asked through a hole: who may ask which resolver (P10)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from itertools import product

from gateway.model import Address, Config, Interface
from gateway.model.name_server import RESOLVER_USER, Upstream
from gateway.policy.facts import Uplink
from gateway.policy.flows import NEW_OR_KNOWN
from gateway.policy.rules import (
    Accept,
    Chain,
    ChainRule,
    CtDirection,
    Family,
    Networks,
    Ports,
    Reject,
    Rule,
    Transport,
)

DNS = tuple(product((Transport.UDP, Transport.TCP), (Ports.one(53), Ports.one(853))))
"""DNS over UDP and TCP, and over QUIC and TLS (RFC 9250, RFC 7858)."""


def outward_to(uplink: Uplink, address: Interface, destination: Networks) -> Rule:
    """Return the rule that accepts flows from `address` in their original direction."""
    return Rule(
        why="P7 a listed LAN subnet",
        verdict=Accept(),
        out_interface=uplink.name,
        source=ip_network(address.ip),
        destination=destination,
        ct_states=NEW_OR_KNOWN,
        ct_direction=CtDirection.ORIGINAL,
    )


def resolver(uplink: Uplink, address: Interface, resolver: Upstream) -> Iterator[ChainRule]:
    """Yield the rules for queries to a configured `resolver` in a listed subnet (P10)."""
    outward = outward_to(uplink, address, ip_network(resolver.address))
    own = ((protocol, Ports.one(resolver.port)) for protocol in (Transport.UDP, Transport.TCP))
    for protocol, port in dict.fromkeys((*DNS, *own)):
        yield (
            Chain.OUTPUT,
            replace(
                outward,
                why="P10 the configured resolver",
                protocol=protocol,
                destination_ports=port,
            ),
        )


def ours(
    family: Family, uplink: Uplink, addresses: Iterable[Interface], config: Config
) -> Iterator[ChainRule]:
    """Yield the rules for the gateway's own resolver: local zones in a listed subnet."""
    zones = config.name_server.local if config.name_server else ()
    named = dict.fromkeys(it for zone in zones for it in zone.resolvers)
    local = [it for it in named if any(it in subnet for subnet in config.outbound_subnets)]
    for address, resolver in product(addresses, filter(family.has, local)):
        yield from _local_zone(uplink, address, resolver)


def _local_zone(uplink: Uplink, address: Interface, resolver: Address) -> Iterator[ChainRule]:
    """Yield the rules for questions of the gateway's own resolver to that of a local zone (P10)."""
    for protocol in (Transport.UDP, Transport.TCP):
        yield (
            Chain.OUTPUT,
            replace(
                outward_to(uplink, address, ip_network(resolver)),
                why="P10 a local zone, asked by our resolver",
                protocol=protocol,
                destination_ports=Ports.one(53),
                user=RESOLVER_USER,
            ),
        )


def no_way_for_ours(uplink: Uplink, *, ends: bool) -> Iterator[ChainRule]:
    """Yield the rules that keep the gateway's own resolver out of the holes of `uplink` (P10).

    Routes lead its questions into the tunnel. By its user it is refused here, whatever they say.
    """
    for protocol in (Transport.TCP, None):
        yield (
            Chain.OUTPUT,
            Rule(
                why="P10 our resolver asks in the tunnel",
                verdict=Reject(tcp_reset=protocol is Transport.TCP),
                out_interface=uplink.name,
                protocol=protocol,
                syn=protocol is Transport.TCP and not ends,
                user=RESOLVER_USER,
            ),
        )


def no_names(uplink: Uplink, subnets: Networks) -> Iterator[ChainRule]:
    """Yield the rules that reject DNS to the listed `subnets` (P10)."""
    for protocol, port in DNS:
        yield (
            Chain.OUTPUT,
            Rule(
                why="P10 no names via the LAN",
                verdict=Reject(tcp_reset=protocol is Transport.TCP),
                out_interface=uplink.name,
                destination=subnets,
                protocol=protocol,
                destination_ports=port,
            ),
        )
