"""Firewall rules for the encrypted flow, the tunnel itself, and what both need of the link."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from gateway.model import INTERFACE, Endpoint, Facts, Interface, PortRange, Tunnel, Uplink
from gateway.policy import marks
from gateway.policy.rules import (
    ICMP_OF,
    Accept,
    Chain,
    CtState,
    Drop,
    Entry,
    Family,
    Ports,
    Reject,
    Rule,
    SetMark,
    Transport,
)

REDIRECT = 5
"""An ICMP type (RFC 792)."""

ENCRYPTED = "P3 the encrypted flow"
PASSED = "P14 passed the firewall"
"""The reasons of the rules that hold the two secret marks."""

EXTRA_HEADERS = "P7 no options or extension headers"
"""The reason of the rules that refuse what could say where a packet goes next."""

NEW = frozenset({CtState.NEW})
KNOWN = frozenset({CtState.ESTABLISHED})
ERRORS = frozenset({CtState.RELATED})

ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 134, 135, 136
ROUTER_SOLICITATION, REDIRECT_IPV6 = 133, 137
"""ICMPv6 types (RFC 4861, section 4)."""

NEIGHBOUR_DISCOVERY = (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)

ABOUT_ROUTES = {
    Family.IPV4: (REDIRECT,),
    Family.IPV6: (ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, REDIRECT_IPV6),
}
"""The types of messages that change routes, or ask for such."""

LINK_LOCAL = ip_network("fe80::/10")
NEIGHBOUR_MULTICAST = ip_network("ff02::1:ff00:0/104")
"""Where neighbour solicitations are sent to (RFC 4291, section 2.7.1)."""


def encrypted_flow(uplink: Uplink, endpoint: Endpoint, tunnel: Tunnel) -> Iterator[Entry]:
    """Yield what admits the encrypted flow, by everything that tells it from other packets (P3).

    The source port is taken by WireGuard's own socket. Against a raw socket that forges it stands
    the mark (`marks`). What arriving packets get of it is for strict reverse-path filtering, which
    asks the routing rules with the mark where src_valid_mark is set (net/ipv4/fib_frontend.c).
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


def no_routes_by_loopback(family: Family, loopback: str) -> Iterator[Entry]:
    """Yield what keeps out messages about routes that pretend to come from a neighbour (P11).

    A workload with CAP_NET_RAW can send them to itself by loopback, where the kernel believes them
    like others. No one else sends any there.
    """
    protocol = ICMP_OF[family]
    for kind in ABOUT_ROUTES[family]:
        yield (
            Chain.INPUT,
            Rule(
                why="P11 no routes by loopback",
                verdict=Drop(),
                in_interface=loopback,
                protocol=protocol,
                icmp_type=kind,
            ),
        )


def no_mark_on_loopback(loopback: str, tunnel: Tunnel) -> Iterator[Entry]:
    """Yield what keeps the encrypted flow, and so its mark, off loopback (P3).

    A raw socket there could read it (SO_RCVMARK, Linux 5.19), if the endpoint were an address of
    this host: one that whoever answers for the endpoint's name has chosen.
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


def plain_only(uplinks: Iterable[Uplink]) -> Iterator[Entry]:
    """Yield what refuses IPv4 options and IPv6 extension headers on `uplinks` (P7).

    A source route (RFC 791) or routing header (RFC 8200) names the hosts to pass on the way: a
    router in a listed subnet that honours it would carry the packet out. Any process can set one,
    by setsockopt IP_OPTIONS. Arriving ones are dropped as well, because the kernel answers a client
    with the options that it sent, the route reversed (net/ipv4/ip_options.c, __ip_options_echo).
    None of the gateway's own packets has any.
    """
    for uplink in uplinks:
        rule = Rule(why=EXTRA_HEADERS, verdict=Drop(), extra_headers=True)
        yield Chain.INPUT, replace(rule, in_interface=uplink.name)
        yield Chain.OUTPUT, replace(rule, verdict=Reject(), out_interface=uplink.name)


def in_tunnel(family: Family, address: Interface, ports: Iterable[PortRange]) -> Iterator[Entry]:
    """Yield what passes in the tunnel, from and to its `address` (P4, P9)."""
    inward = Rule(
        why="P4 answers in the tunnel",
        verdict=Accept(),
        in_interface=INTERFACE,
        destination=ip_network(address.ip),
        ct_states=KNOWN,
    )
    yield Chain.INPUT, inward
    # Errors and no more: connection tracking may call a new flow related to another one (helpers).
    errors = ICMP_OF[family]
    yield Chain.INPUT, replace(inward, protocol=errors, ct_states=ERRORS)
    for port in ports:
        yield (
            Chain.INPUT,
            replace(
                inward,
                why="P9 a listed port in the tunnel",
                protocol=Transport(port.protocol),
                destination_ports=Ports(port.first, port.last),
                ct_states=NEW,
            ),
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


def neighbours(family: Family, uplink: Uplink) -> Iterator[Entry]:
    """Yield the neighbour discovery that IPv6 needs on a link where something may pass (P5).

    It is what ARP is to IPv4, except that it runs over the firewall. Outwards it reaches the link
    and nothing behind it.

    Advertisements are accepted from the routers that are in use and from no others: each one can
    make routes (RFC 4861, section 6.3.4), and any neighbour can call itself a router. A router is
    in use while a route of the main table leads over its link-local address. The first such route
    is older than the gateway, or an engine or operator sets it.
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


def guard_marks(facts: Facts) -> Iterator[Entry]:
    """Yield what marks packets that passed, for the egress guard to know them by (P14).

    The guard takes the mark off as a packet leaves. But the kernel also hands the sender's own
    multicast back to it, from behind the last chain (net/ipv6/ip6_output.c, ip6_finish_output2),
    and a raw socket may read the mark of what it receives (SO_RCVMARK, Linux 5.19).
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
