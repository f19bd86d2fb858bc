"""The lists of the configuration written a second time: a rule for each entry, in its order.

It is how the meaning of the lists was defined: the entries are not sorted, merged or made sets. The
policy has to accept and mark exactly the same packets with few rules.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from itertools import product
from typing import Any

from gateway.model import INTERFACE, Address, Config, Interface, Network, PortRange
from gateway.policy import names
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import ruleset_for
from gateway.policy.routing import reply_mark
from gateway.policy.rules import (
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
    Rules,
    Ruleset,
    SetConnmark,
    SetMark,
    Transport,
)
from gateway.policy.states import Connected, Locked, Paused, State, Stopping
from gateway.policy.ways import attached

LAST = {Chain.INPUT: 1, Chain.FORWARD: 1, Chain.OUTPUT: 2}
"""How many rules at the end of a chain refuse everything else."""

NEW = frozenset({CtState.NEW})
KNOWN = frozenset({CtState.ESTABLISHED})
ECHO = {Family.IPV4: (Transport.ICMP, 8), Family.IPV6: (Transport.ICMPV6, 128)}
NAMES = tuple(product((Transport.UDP, Transport.TCP), (53, 853)))


def ruleset_one_by_one(state: State, config: Config, facts: Facts) -> Ruleset:
    """Return the rules of a state, those for listed entries one by one."""
    bare = replace(
        config, outbound_subnets=(), public_subnets=(), input_ports=(), vpn_input_ports=()
    )
    ruleset = ruleset_for(state, bare, facts)
    is_closed = isinstance(state, Locked | Stopping) or (
        isinstance(state, Paused) and state.refused
    )
    ports = config.input_ports_while_down and not is_closed
    if not isinstance(state, Connected) and not (ports and config.input_ports):
        return ruleset
    ipv4, ipv6 = (
        _inserted(ruleset.of(family), tuple(_entries(family, state, config, facts)))
        for family in Family
    )
    return Ruleset(ipv4, ipv6)


def _inserted(rules: Rules, more: tuple[ChainRule, ...]) -> Rules:
    """Return `rules` with `more` before the rules that end each chain."""
    found = {}
    for chain in Chain:
        listed = rules.get(chain, ())
        at = len(listed) - LAST.get(chain, 0)
        inserted = (rule for where, rule in more if where is chain)
        found[chain] = (*listed[:at], *inserted, *listed[at:])
    return found


def _entries(family: Family, state: State, config: Config, facts: Facts) -> Iterator[ChainRule]:
    is_connected = isinstance(state, Connected)
    yield from _frame(facts)
    for address, ports in product(
        state.tunnel.addresses if is_connected else (), config.vpn_input_ports
    ):
        if family.has(address):
            yield (
                Chain.INPUT,
                _rule(
                    in_interface=INTERFACE, destination=ip_network(address.ip),
                    ct_states=NEW | KNOWN, protocol=Transport(ports.protocol),
                    destination_ports=_ports(ports),
                ),
            )  # fmt: skip
    for uplink in facts.uplinks:
        own = [address for address in uplink.addresses if family.has(address)]
        listed = config.outbound_subnets if is_connected else ()
        near = tuple(attached(config.public_subnets, uplink)) if is_connected else ()
        subnets = [it for it in (*listed, *near) if family.has(it)]
        if config.name_server and (subnets or config.input_ports):
            yield from names.ours(family, uplink, own, config)
            yield from names.no_way_for_ours(uplink, ends=is_connected)
        for subnet in subnets:
            yield from _subnet(family, uplink, own, subnet, _resolvers(state, config))
        for address, ports in product(own, config.input_ports):
            yield from _port(uplink, address, ports)
        if config.input_ports:
            mark = reply_mark(uplink)
            arrived = _rule(verdict=SetMark(mark), in_interface=uplink.name, connmark=mark)
            yield Chain.PREROUTING, arrived
        if subnets or config.input_ports:
            yield from _with_any_hole(family, uplink, own)


def _frame(facts: Facts) -> Iterator[ChainRule]:
    """Yield what goes with anything that passes on an uplink; it may be there already."""
    for uplink in facts.uplinks:
        refused = _rule(verdict=Drop(), extra_headers=True)
        yield Chain.INPUT, replace(refused, in_interface=uplink.name)
        yield Chain.OUTPUT, replace(refused, verdict=Reject(), out_interface=uplink.name)
        if facts.guard_mark is not None:
            passed = _rule(verdict=SetMark(facts.guard_mark), out_interface=uplink.name)
            yield Chain.POSTROUTING, passed
    if facts.guard_mark is not None and facts.uplinks:
        yield Chain.PREROUTING, _rule(verdict=SetMark(0), mark=facts.guard_mark)


def _rule(**conditions: Any) -> Rule:
    return replace(Rule(why="one by one", verdict=Accept()), **conditions)


def _ports(ports: PortRange) -> Ports:
    return Ports(ports.first, ports.last)


def _resolvers(state: State, config: Config) -> list[tuple[Address, int]]:
    """Return the resolvers that the configuration has for the tunnel, each with its port."""
    if not isinstance(state, Connected):
        return []
    if state.tunnel.dns or config.name_server is None:
        return [(it, 53) for it in state.tunnel.dns]
    asked = [(it.address, it.port) for it in config.name_server.upstreams]
    return [it for it in asked if state.tunnel.has_family(it[0].version)]


def _subnet(
    family: Family,
    uplink: Uplink,
    own: list[Interface],
    subnet: Network,
    resolvers: list[tuple[Address, int]],
) -> Iterator[ChainRule]:
    """Yield the rules of one subnet: its resolvers, no other DNS, then everything it carries."""
    onward = _rule(
        out_interface=uplink.name, ct_states=NEW | KNOWN, ct_direction=CtDirection.ORIGINAL
    )
    asked = [
        (resolver, protocol, port)
        for resolver, its in resolvers
        if resolver in subnet
        for protocol, port in (*NAMES, (Transport.UDP, its), (Transport.TCP, its))
    ]
    for address, (resolver, protocol, port) in product(own, asked):
        yield (
            Chain.OUTPUT,
            replace(
                onward, source=ip_network(address.ip), destination=ip_network(resolver),
                protocol=protocol, destination_ports=Ports.one(port),
            ),
        )  # fmt: skip
    for protocol, port in NAMES:
        yield (
            Chain.OUTPUT,
            _rule(
                verdict=Reject(tcp_reset=protocol is Transport.TCP), out_interface=uplink.name,
                destination=subnet, protocol=protocol, destination_ports=Ports.one(port),
            ),
        )  # fmt: skip
    for address in own:
        there = replace(onward, source=ip_network(address.ip), destination=subnet)
        yield Chain.OUTPUT, replace(there, protocol=Transport.TCP)
        yield Chain.OUTPUT, replace(there, protocol=Transport.UDP)
        protocol, kind = ECHO[family]
        yield Chain.OUTPUT, replace(there, protocol=protocol, icmp_type=kind)
        yield (
            Chain.INPUT,
            _rule(
                in_interface=uplink.name, source=subnet, destination=ip_network(address.ip),
                ct_states=KNOWN, ct_direction=CtDirection.REPLY,
            ),
        )  # fmt: skip


def _port(uplink: Uplink, address: Interface, ports: PortRange) -> Iterator[ChainRule]:
    """Yield the rules of one port: its flows get a mark where they begin, and pass with it."""
    mark, here = reply_mark(uplink), ip_network(address.ip)
    protocol, listening = Transport(ports.protocol), _ports(ports)
    inward = _rule(
        in_interface=uplink.name, destination=here, protocol=protocol,
        destination_ports=listening, ct_direction=CtDirection.ORIGINAL,
    )  # fmt: skip
    yield Chain.PREROUTING, replace(inward, verdict=SetConnmark(mark), ct_states=NEW)
    yield Chain.INPUT, replace(inward, connmark=mark, ct_states=NEW | KNOWN)
    yield (
        Chain.OUTPUT,
        _rule(
            out_interface=uplink.name, source=here, protocol=protocol, source_ports=listening,
            connmark=mark, ct_states=KNOWN, ct_direction=CtDirection.REPLY,
        ),
    )  # fmt: skip


def _with_any_hole(family: Family, uplink: Uplink, own: list[Interface]) -> Iterator[ChainRule]:
    """Yield what comes with any hole: neighbour discovery and errors."""
    message = _rule(protocol=Transport.ICMPV6)
    near = [ip_network("fe80::/10"), ip_network("ff02::1:ff00:0/104")]
    if family is Family.IPV6:
        for kind in (135, 136):
            yield Chain.INPUT, replace(message, icmp_type=kind, in_interface=uplink.name)
            for network in (*near, *(address.network for address in own)):
                yield (
                    Chain.OUTPUT,
                    replace(
                        message, icmp_type=kind, out_interface=uplink.name, destination=network
                    ),
                )
        for router in uplink.routers:
            yield (
                Chain.INPUT,
                replace(
                    message, icmp_type=134, in_interface=uplink.name, source=ip_network(router)
                ),
            )
    for address in own:
        about = _rule(in_interface=uplink.name, protocol=ECHO[family][0])
        if family is Family.IPV4:
            yield Chain.INPUT, replace(about, verdict=Drop(), icmp_type=5)
        there = replace(about, destination=ip_network(address.ip))
        yield Chain.INPUT, replace(there, ct_states=frozenset({CtState.RELATED}))
