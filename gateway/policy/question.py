"""Firewall rules for the gateway's own question: the addresses of the endpoint's name."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

from gateway.policy.rules import (
    Accept,
    Chain,
    Drop,
    Entry,
    Family,
    Ports,
    Rule,
    SetConnmark,
    SetMark,
    Transport,
)
from gateway.policy.states import Query

DNS = Ports.one(53)

QUESTION = 1
"""The connection mark of the question for the endpoint's name on loopback."""


def question(family: Family, interface: str, query: Query) -> Iterator[Entry]:
    """Yield what lets our question for the endpoint's name pass by `interface` (P10).

    The source port is taken by our own socket. Against a raw socket that forges it stands the
    mark: random for each question, and not to be read without CAP_NET_ADMIN, since no routing rule
    names it and the last chain takes it off, before a packet socket could be shown it
    (SO_RCVMARK, Linux 5.19). On loopback the question comes in again: there its flow is known by
    a connection mark that only the mark can give, and its port is left open, because Docker's
    address translation has replaced it before any filter sees the packet.
    """
    if not family.has(query.resolver):
        return
    here, resolver = Ports.one(query.source_port), ip_network(query.resolver)
    outward = Rule(
        why="P10 the name of the endpoint",
        verdict=Accept(),
        out_interface=interface,
        destination=resolver,
        protocol=Transport.UDP,
        source_ports=here,
        mark=query.mark,
    )
    yield (
        Chain.POSTROUTING,
        Rule(why="P10 the mark is not shown", verdict=SetMark(0), mark=query.mark),
    )
    if query.resolver.is_loopback:
        yield (
            Chain.OUTPUT_MARK,
            replace(outward, verdict=SetConnmark(QUESTION), destination_ports=DNS),
        )
        yield Chain.OUTPUT, outward
        inward = replace(outward, in_interface=interface, out_interface=None, mark=None)
        yield Chain.INPUT, replace(inward, connmark=QUESTION)
        return
    yield Chain.OUTPUT, replace(outward, destination_ports=DNS)
    yield (
        Chain.INPUT,
        Rule(
            why="P10 the address of the endpoint",
            verdict=Accept(),
            in_interface=interface,
            source=resolver,
            protocol=Transport.UDP,
            source_ports=DNS,
            destination_ports=here,
        ),
    )


def forged_answers(family: Family, query: Query, loopback: str) -> Iterator[Entry]:
    """Yield what keeps out answers to our question that only pretend to come from outside (P3).

    Whoever chooses the endpoint's address sees where the gateway is. A workload with CAP_NET_RAW
    could send itself packets in the resolver's name, which arrive by `loopback`.
    """
    if family.has(query.resolver) and not query.resolver.is_loopback:
        source = ip_network(query.resolver)
        why = "P3 a forged address of the endpoint"
        yield Chain.INPUT, Rule(why=why, verdict=Drop(), in_interface=loopback, source=source)
