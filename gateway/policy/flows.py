"""Firewall rules for the encrypted flow, for the tunnel, and for what both need on the link."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from gateway.model import INTERFACE, Endpoint, Interface, PortRange, Tunnel
from gateway.model.lease import Lease
from gateway.policy import marks
from gateway.policy.facts import Facts, Uplink
from gateway.policy.rules import (
    ICMP_OF,
    Accept,
    Chain,
    ChainRule,
    CtDirection,
    CtState,
    Drop,
    Family,
    Ports,
    Reject,
    Rule,
    SetMark,
    Transport,
)
from gateway.policy.sets import ports

REDIRECT = 5
"""An ICMP type (RFC 792)."""

ENCRYPTED = "P3 the encrypted flow"
PASSED = "P14 passed the firewall"
"""The reasons of the rules that hold the two secret marks."""

EXTRA_HEADERS = "P7 no options or extension headers"
"""The reason of the rules that refuse headers which can name the next hop of a packet."""

NEW = frozenset({CtState.NEW})
KNOWN = frozenset({CtState.ESTABLISHED})
NEW_OR_KNOWN = NEW | KNOWN
ERRORS = frozenset({CtState.RELATED})

ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 134, 135, 136
ROUTER_SOLICITATION, REDIRECT_IPV6 = 133, 137
"""ICMPv6 types (RFC 4861, section 4)."""

NEIGHBOUR_DISCOVERY = (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)

ABOUT_ROUTES = {
    Family.IPV4: (REDIRECT,),
    Family.IPV6: (ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, REDIRECT_IPV6),
}
"""The types of messages that change routes or ask for such messages."""

LINK_LOCAL = ip_network("fe80::/10")
NEIGHBOUR_MULTICAST = ip_network("ff02::1:ff00:0/104")
"""The destinations of neighbour solicitations (RFC 4291, section 2.7.1)."""


def encrypted_flow(uplink: Uplink, endpoint: Endpoint, tunnel: Tunnel) -> Iterator[ChainRule]:
    """Yield the rules that accept the encrypted flow, by everything that identifies it (P3).

    WireGuard's own socket has the source port. A raw socket can forge that port, but does not know
    the mark (`marks`). Arriving packets get the visible part of the mark for strict reverse-path
    filtering, which looks routes up with the mark if src_valid_mark is set (net/ipv4/
    fib_frontend.c).
    """
    server, there, here = (
        ip_network(endpoint.address),
        Ports.one(endpoint.port),
        Ports.one(tunnel.listen_port),
    )
    arriving = Rule(
        why=ENCRYPTED,
        verdict=Accept(),
        in_interface=uplink.name,
        source=server,
        protocol=Transport.UDP,
        source_ports=there,
        destination_ports=here,
    )
    yield Chain.PREROUTING, replace(arriving, verdict=SetMark(marks.shown(tunnel.fwmark)))
    yield Chain.INPUT, arriving
    yield (
        Chain.OUTPUT,
        Rule(
            why=ENCRYPTED,
            verdict=Accept(),
            out_interface=uplink.name,
            destination=server,
            protocol=Transport.UDP,
            source_ports=here,
            destination_ports=there,
            mark=tunnel.fwmark,
        ),
    )


def no_routes_over_loopback(family: Family, loopback: str) -> Iterator[ChainRule]:
    """Yield the rules that drop messages about routes that arrive on `loopback` (P11).

    A workload with CAP_NET_RAW can send them to itself, and the kernel accepts them as if a
    neighbour had sent them. No legitimate sender is on loopback.
    """
    protocol = ICMP_OF[family]
    for kind in ABOUT_ROUTES[family]:
        yield (
            Chain.INPUT,
            Rule(
                why="P11 no routes via loopback",
                verdict=Drop(),
                in_interface=loopback,
                protocol=protocol,
                icmp_type=kind,
            ),
        )


def no_mark_on_loopback(loopback: str, tunnel: Tunnel) -> Iterator[ChainRule]:
    """Yield the rule that keeps the encrypted flow, and so its mark, off loopback (P3).

    If the endpoint were an address of this host, a raw socket there could read the mark
    (SO_RCVMARK, Linux 5.19). The answer to the query for the endpoint's name chooses the address.
    """
    yield (
        Chain.OUTPUT,
        Rule(
            why="P3 the mark is not shown",
            verdict=Drop(),
            out_interface=loopback,
            mark=tunnel.fwmark,
        ),
    )


def plain_only(uplinks: Iterable[Uplink]) -> Iterator[ChainRule]:
    """Yield the rules that refuse IPv4 options and IPv6 extension headers on `uplinks` (P7).

    A source route (RFC 791) or routing header (RFC 8200) lists hosts that the packet must visit: a
    router in a listed subnet that honours it would forward the packet. Any process can set one with
    setsockopt IP_OPTIONS. Arriving ones are dropped as well, because the kernel answers a client
    with the client's own options and the route reversed (net/ipv4/ip_options.c, __ip_options_echo).
    The gateway's own packets have none.
    """
    for uplink in uplinks:
        rule = Rule(why=EXTRA_HEADERS, verdict=Drop(), extra_headers=True)
        yield Chain.INPUT, replace(rule, in_interface=uplink.name)
        yield Chain.OUTPUT, replace(rule, verdict=Reject(), out_interface=uplink.name)


def in_tunnel(
    family: Family,
    address: Interface,
    listed: tuple[PortRange, ...],
    leases: tuple[Lease, ...] = (),
) -> Iterator[ChainRule]:
    """Yield the rules for traffic in the tunnel, from and to its `address` (P4, P9).

    Only answers count as such: a flow that began outside ends with its port on the list, and with
    the lease of its port.
    """
    inward = Rule(
        why="P4 answers in the tunnel",
        verdict=Accept(),
        in_interface=INTERFACE,
        destination=ip_network(address.ip),
        ct_states=KNOWN,
        ct_direction=CtDirection.REPLY,
    )
    yield Chain.INPUT, inward
    # Only errors: conntrack helpers may make a new flow RELATED to another one.
    errors = ICMP_OF[family]
    yield Chain.INPUT, replace(inward, protocol=errors, ct_states=ERRORS, ct_direction=None)
    opened = replace(inward, ct_states=NEW_OR_KNOWN, ct_direction=None)
    why = "P9 a listed port in the tunnel"
    for transport, listening in ports(
        "vpn_input_ports", "P9 the listed ports in the tunnel", listed
    ):
        yield (
            Chain.INPUT,
            replace(opened, why=why, protocol=transport, destination_ports=listening),
        )
    why = "P9 a port that the server forwards"
    for lease, protocol in ((it, protocol) for it in leases for protocol in it.protocols):
        here = Ports.one(lease.listening)
        yield (
            Chain.INPUT,
            replace(opened, why=why, protocol=Transport(protocol), destination_ports=here),
        )
    yield (
        Chain.OUTPUT,
        Rule(
            why="P4 traffic in the tunnel",
            verdict=Accept(),
            out_interface=INTERFACE,
            source=ip_network(address.ip),
        ),
    )


def neighbours(family: Family, uplink: Uplink) -> Iterator[ChainRule]:
    """Yield the rules for neighbour discovery on a link where IPv6 may pass (P5).

    It is what ARP is to IPv4, but it passes the firewall. Packets that leave reach the link and
    nothing behind it.

    Router advertisements are accepted only from routers in use: an advertisement can add routes
    (RFC 4861, section 6.3.4), and any neighbour can send one. A router is in use while a route of
    the main table has its link-local address as gateway. The first such route is older than the
    gateway, or an engine or operator adds it.
    """
    if family is not Family.IPV6:
        return
    why = "P5 neighbour discovery"
    message = Rule(why=why, verdict=Accept(), protocol=Transport.ICMPV6)
    own = tuple(a.network for a in uplink.addresses if family.has(a))
    for kind in NEIGHBOUR_DISCOVERY:
        yield Chain.INPUT, replace(message, icmp_type=kind, in_interface=uplink.name)
        for destination in (LINK_LOCAL, NEIGHBOUR_MULTICAST, *own):
            yield (
                Chain.OUTPUT,
                replace(
                    message, icmp_type=kind, out_interface=uplink.name, destination=destination
                ),
            )
    for router in uplink.routers:
        yield (
            Chain.INPUT,
            replace(
                message,
                icmp_type=ROUTER_ADVERTISEMENT,
                in_interface=uplink.name,
                source=ip_network(router),
            ),
        )


def guard_marks(facts: Facts) -> Iterator[ChainRule]:
    """Yield the rules that mark packets that passed, so the egress guard knows them (P14).

    The guard removes the mark as a packet leaves. But after the last chain the kernel also loops
    multicast back to its sender (net/ipv6/ip6_output.c, ip6_finish_output2), and a raw socket can
    read the mark of what it receives (SO_RCVMARK, Linux 5.19). So arriving packets lose it.
    """
    if facts.guard_mark is None:
        return
    yield (
        Chain.PREROUTING,
        Rule(why="P14 the mark is not shown", verdict=SetMark(0), mark=facts.guard_mark),
    )
    for uplink in facts.uplinks:
        yield (
            Chain.POSTROUTING,
            Rule(
                why=PASSED,
                verdict=SetMark(facts.guard_mark),
                out_interface=uplink.name,
            ),
        )
