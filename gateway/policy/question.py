"""Firewall rules for what the gateway itself asks before there is a tunnel: a name, or a list."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

from gateway.model import Address
from gateway.policy.rules import (
    Accept,
    Chain,
    ChainRule,
    CtDirection,
    CtState,
    Drop,
    Family,
    Ports,
    Rule,
    SetConnmark,
    SetMark,
    Transport,
)
from gateway.policy.states import Query, Transfer

DNS = Ports.one(53)

QUESTION = 1
"""The connection mark of the question for the endpoint's name on loopback."""


def question(family: Family, interface: str, query: Query) -> Iterator[ChainRule]:
    """Yield the rules for our question for the endpoint's name through `interface` (P10).

    Our own socket has the source port. A raw socket can forge that port, but does not know the
    mark: it is random for each question and cannot be read without CAP_NET_ADMIN, because no
    routing rule has it and the last chain removes it before a packet socket could read it
    (SO_RCVMARK, Linux 5.19). On loopback the question arrives again. There a connection mark
    identifies its flow, which only a packet with the mark can set, and any destination port is
    accepted, because Docker's address translation replaces it before the filter table.
    """
    if not family.has(query.resolver):
        return
    outward = Rule(
        why="P10 the name of the endpoint",
        verdict=Accept(),
        out_interface=interface,
        destination=ip_network(query.resolver),
        protocol=Transport.UDP,
        source_ports=Ports.one(query.source_port),
        mark=query.mark,
    )
    yield _hidden("P10", query.mark)
    if query.resolver.is_loopback:
        yield (
            Chain.OUTPUT_MARK,
            replace(outward, verdict=SetConnmark(QUESTION), destination_ports=DNS),
        )
        yield Chain.OUTPUT, outward
        inward = replace(outward, in_interface=interface, out_interface=None, mark=None)
        yield Chain.INPUT, replace(inward, connmark=QUESTION)
        return
    outward = replace(outward, destination_ports=DNS)
    yield Chain.OUTPUT, outward
    yield Chain.INPUT, replace(_answers(outward), why="P10 the address of the endpoint")


def forged_answers(
    family: Family, asked: Address, loopback: str, why: str = "P3 a forged address of the endpoint"
) -> Iterator[ChainRule]:
    """Yield the rule that drops forged answers of the host `asked` on `loopback` (P3).

    The answer chooses the endpoint's address. A workload with CAP_NET_RAW could send itself packets
    with the resolver's source address, which arrive on loopback.
    """
    if family.has(asked) and not asked.is_loopback:
        source = ip_network(asked)
        yield Chain.INPUT, Rule(why=why, verdict=Drop(), in_interface=loopback, source=source)


def transfer(family: Family, interface: str, flow: Transfer) -> Iterator[ChainRule]:
    """Yield the rules for our connection through `interface` to a host of the provider (P18).

    It is identified like the question for a name, and for the same reasons. Only what began here
    is answered, and the connection ends with its rules: its socket is closed first.
    """
    if not family.has(flow.server):
        return
    outward = Rule(
        why="P18 a request to the provider",
        verdict=Accept(),
        out_interface=interface,
        destination=ip_network(flow.server),
        protocol=Transport.TCP,
        source_ports=Ports.one(flow.source_port),
        destination_ports=Ports.one(flow.port),
        mark=flow.mark,
    )
    yield _hidden("P18", flow.mark)
    yield Chain.OUTPUT, outward
    answers, began_here = _answers(outward), frozenset({CtState.ESTABLISHED})
    yield Chain.INPUT, replace(answers, ct_states=began_here, ct_direction=CtDirection.REPLY)


def _hidden(promise: str, mark: int) -> ChainRule:
    """Return the rule that takes `mark` off again, after which a packet socket could read it."""
    rule = Rule(why=f"{promise} the mark is not shown", verdict=SetMark(0), mark=mark)
    return Chain.POSTROUTING, rule


def _answers(outward: Rule) -> Rule:
    """Return the rule for the packets that answer those of `outward`."""
    return replace(
        outward,
        in_interface=outward.out_interface,
        out_interface=None,
        source=outward.destination,
        destination=None,
        source_ports=outward.destination_ports,
        destination_ports=outward.source_ports,
        mark=None,
    )
