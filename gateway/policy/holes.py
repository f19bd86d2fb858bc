"""Firewall rules for the holes that the configuration lists: LAN subnets and input ports."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from itertools import product

from gateway.model import Config, Interface, Network
from gateway.model.name_server import Upstream
from gateway.policy import names
from gateway.policy.facts import Uplink
from gateway.policy.flows import ERRORS, KNOWN, NEW, NEW_OR_KNOWN, REDIRECT, neighbours
from gateway.policy.routing import reply_mark
from gateway.policy.rules import (
    ICMP_OF,
    Accept,
    AnyPorts,
    Chain,
    ChainRule,
    CtDirection,
    Drop,
    Family,
    Networks,
    Rule,
    SetConnmark,
    SetMark,
    Transport,
)
from gateway.policy.sets import networks, ports
from gateway.policy.states import Connected, Connecting, Fetching, Paused, Resolving, State
from gateway.policy.upstreams import upstreams_of
from gateway.policy.ways import attached

LAN_PROTOCOLS: dict[Family, tuple[tuple[Transport, int | None], ...]] = {
    Family.IPV4: ((Transport.TCP, None), (Transport.UDP, None), (Transport.ICMP, 8)),
    Family.IPV6: ((Transport.TCP, None), (Transport.UDP, None), (Transport.ICMPV6, 128)),
}
"""What a LAN hole carries: TCP, UDP and echo requests (RFC 792; RFC 4443, section 4.1).

Nothing else: a router in the subnet could unpack IPIP, 6in4 or GRE (protocols 4, 41 and 47) and
forward the packet inside.
"""


def open_in(state: State, config: Config) -> tuple[Config, tuple[Upstream, ...]]:
    """Return `config` with the holes that are open in `state`, and the resolvers they may lead to.

    Clients of input ports need no tunnel, so these are open while it is down, if the user has not
    decided otherwise.
    """
    match state:
        case Connected():
            return config, upstreams_of(state.tunnel, config)
        case Resolving() | Fetching() | Connecting() | Paused(refused=False) if (
            config.input_ports_while_down
        ):
            return replace(config, outbound_subnets=(), public_subnets=()), ()
        case _:
            return replace(config, outbound_subnets=(), public_subnets=(), input_ports=()), ()


def has_holes(config: Config) -> bool:
    """Return whether `config` lists any hole."""
    return bool(config.input_ports or config.outbound_subnets or config.public_subnets)


def holes(
    family: Family,
    uplink: Uplink,
    config: Config,
    resolvers: Iterable[Upstream],
    near: Sequence[Network] | None = None,
    *,
    ends: bool = True,
) -> Iterator[ChainRule]:
    """Yield the rules of `family` for the listed holes of `uplink`, for each of its addresses.

    `resolvers` are those that workloads ask, or the gateway's own resolver for them. `near` are the
    listed public subnets that the uplink is in, by default those of its addresses. `ends`: a TCP
    connection that is refused ends, as it does only with a tunnel (P15).
    """
    addresses = [address for address in uplink.addresses if family.has(address)]
    near = tuple(attached(config.public_subnets, uplink)) if near is None else near
    listed = (*config.outbound_subnets, *near)
    everywhere, here = (
        networks("outbound_subnets", "P7 the listed LAN subnets", family, config.outbound_subnets),
        networks(f"near_{uplink.index}", "P7 the listed subnets here", family, tuple(near)),
    )
    groups = [subnets for subnets in (everywhere, here) if subnets is not None]
    known = [it for it in resolvers if family.has(it.address)] if groups else []
    asked = [it for it in known if any(it.address in subnet for subnet in listed)]
    for address, resolver in product(addresses, asked):
        yield from names.resolver(uplink, address, resolver)
    if config.name_server is not None and (groups or config.input_ports):
        yield from names.ours(family, uplink, addresses, config)
        yield from names.no_way_for_ours(uplink, ends=ends)
    for subnets in groups:
        yield from names.no_names(uplink, subnets)
    for subnets, address in product(groups, addresses):
        yield from _lan(uplink, address, subnets)
    open_ports = ports("input_ports", "P8 the listed input ports", config.input_ports)
    for (protocol, listening), address in product(open_ports, addresses):
        yield from _input_ports(uplink, address, protocol, listening)
    if config.input_ports:
        yield _arrival_mark(uplink)
    if groups or config.input_ports:
        yield from neighbours(family, uplink)
        for address in addresses:
            yield from _errors(family, uplink, address)


def _lan(uplink: Uplink, address: Interface, subnets: Networks) -> Iterator[ChainRule]:
    """Yield the rules for flows that begin in the namespace and go to the listed `subnets` (P7).

    Packets leave only in their flow's original direction and from the uplink's own address. The
    answers to a flow that came in through the tunnel match neither condition.
    """
    outward = names.outward_to(uplink, address, subnets)
    for protocol, kind in LAN_PROTOCOLS[Family(address.version)]:
        yield Chain.OUTPUT, replace(outward, protocol=protocol, icmp_type=kind)
    yield (
        Chain.INPUT,
        Rule(
            why="P7 answers from a listed LAN subnet",
            verdict=Accept(),
            in_interface=uplink.name,
            source=subnets,
            destination=ip_network(address.ip),
            ct_states=KNOWN,
            ct_direction=CtDirection.REPLY,
        ),
    )


def _input_ports(
    uplink: Uplink, address: Interface, protocol: Transport, listening: AnyPorts
) -> Iterator[ChainRule]:
    """Yield the rules for clients of the listed ports, and for the answers to them (P8).

    A flow gets the connection mark only if it begins at this uplink. A flow that came in through
    the tunnel or on loopback does not have the mark, so its answers do not pass.
    """
    why, mark = "P8 a listed input port", reply_mark(uplink)
    inward = Rule(
        why=why,
        verdict=Accept(),
        in_interface=uplink.name,
        destination=ip_network(address.ip),
        protocol=protocol,
        destination_ports=listening,
        connmark=mark,
        ct_states=NEW_OR_KNOWN,
        ct_direction=CtDirection.ORIGINAL,
    )
    yield (
        Chain.PREROUTING,
        replace(inward, verdict=SetConnmark(mark), connmark=None, ct_states=NEW),
    )
    yield Chain.INPUT, inward
    yield (
        Chain.OUTPUT,
        Rule(
            why="P8 answers from a listed input port",
            verdict=Accept(),
            out_interface=uplink.name,
            source=ip_network(address.ip),
            protocol=protocol,
            source_ports=listening,
            connmark=mark,
            ct_states=KNOWN,
            ct_direction=CtDirection.REPLY,
        ),
    )


def _arrival_mark(uplink: Uplink) -> ChainRule:
    """Return the rule that marks arriving packets of flows to an input port.

    Strict reverse-path filtering uses that mark in its route lookup, and so finds the client behind
    the uplink that the packet arrived on.
    """
    mark = reply_mark(uplink)
    return (
        Chain.PREROUTING,
        Rule(
            why="P8 arrived on this uplink",
            verdict=SetMark(mark),
            in_interface=uplink.name,
            connmark=mark,
        ),
    )


def _errors(family: Family, uplink: Uplink, address: Interface) -> Iterator[ChainRule]:
    """Yield the rules for ICMP errors about a flow of a hole, so that the flow fails at once.

    In IPv4 a redirect counts as an error. A neighbour could send one to move the flow to itself, so
    it is dropped. The uplink's sysctl is not enough: the kernel combines it with that of all links
    (kernel documentation, networking/ip-sysctl, accept_redirects). In IPv6 a redirect is not an
    error.
    """
    protocol = ICMP_OF[family]
    if family is Family.IPV4:
        yield (
            Chain.INPUT,
            Rule(
                why="P11 no redirects of a flow",
                verdict=Drop(),
                in_interface=uplink.name,
                protocol=protocol,
                icmp_type=REDIRECT,
            ),
        )
    yield (
        Chain.INPUT,
        Rule(
            why="P12 errors about a flow of a hole",
            verdict=Accept(),
            in_interface=uplink.name,
            destination=ip_network(address.ip),
            protocol=protocol,
            ct_states=ERRORS,
        ),
    )
