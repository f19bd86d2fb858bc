"""The promises about packets, written a second time: which packet may pass, and by which promise.

Written from docs/security.md and not from the rules, so that the two can disagree. `excuse` names
the promise that lets a packet pass; a packet that passes without one is a leak.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from gateway.model import (
    INTERFACE,
    Address,
    Config,
    Network,
    PortRange,
    Tunnel,
)
from gateway.model.name_server import RESOLVER_USER
from gateway.model.proxies import PROXY_USER
from gateway.policy.facts import Facts, Uplink
from gateway.policy.question import QUESTION
from gateway.policy.routing import reply_mark
from gateway.policy.rules import Family
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Query,
    Resolving,
    State,
    Stopping,
    Transfer,
)
from gateway.policy.upstreams import upstreams_of
from tests.model.packets import ICMP, ICMPV6, TCP, UDP, Packet

LOOPBACK = "lo"
DOCKER_RESOLVER = ip_address("127.0.0.11")
LINK_LOCAL = ip_network("fe80::/10")
SOLICITED_NODES = ip_network("ff02::1:ff00:0/104")
NAMES = {53, 853}
NUMBERS = {"tcp": TCP, "udp": UDP}


def excuse_out(state: State, config: Config, facts: Facts, packet: Packet) -> str | None:
    """Return the promise by which `packet` may leave by its `out_interface`, or None."""
    found = _excuse_out(state, config, facts, packet)
    if (
        found is None
        or not _is_of_proxy(state, config, packet)
        or packet.out_interface == INTERFACE
    ):
        return found
    if packet.out_interface != LOOPBACK:
        return None if packet.direction == "ORIGINAL" else found
    # P19: on loopback a proxy answers its clients, and asks the gateway's resolver by UDP.
    asks = packet.has_ports(UDP) and packet.destination_port == 53
    asks = asks and packet.destination == ip_address("127.0.0.1")
    known = (packet.state, packet.direction) == ("ESTABLISHED", "REPLY")
    return found if found == "P10" or asks or (known and packet.protocol == TCP) else None


def _is_of_proxy(state: State, config: Config, packet: Packet) -> bool:
    """Return whether a proxy of the gateway sends `packet`; a closed gateway has none."""
    wanted = config.http_proxy is not None or config.socks_proxy is not None
    closed = isinstance(state, Locked | Stopping)
    return wanted and not closed and packet.user == PROXY_USER


def _excuse_out(state: State, config: Config, facts: Facts, packet: Packet) -> str | None:
    """Return the same for a packet whose sender does not matter."""
    if packet.out_interface == LOOPBACK:
        query = _query(state)
        ours = query is not None and packet.mark == query.mark
        shown = isinstance(state, Connecting | Connected) and packet.mark == state.tunnel.fwmark
        return None if shown else _on_loopback(state, packet, ours=ours)
    if packet.out_interface == INTERFACE:
        own = isinstance(state, Connected) and packet.source in _own(state.tunnel)
        return "P4" if own else None
    for uplink in facts.uplinks:
        if uplink.name == packet.out_interface:
            found = _leaving_on_uplink(state, config, facts, uplink, packet)
            # P7: extra headers could say where the packet goes next.
            return None if packet.extra_headers else next(found, None)
    return None


def excuse_in(state: State, config: Config, facts: Facts, packet: Packet) -> str | None:
    """Return the promise by which `packet` may come in by its `in_interface`, or None."""
    if packet.in_interface == LOOPBACK:
        if _is_about_routes(packet):
            return None
        return _on_loopback(state, packet, ours=packet.connmark == QUESTION)
    if packet.in_interface == INTERFACE:
        return _in_tunnel(state, config, packet)
    for uplink in facts.uplinks:
        if uplink.name == packet.in_interface:
            found = _arriving_on_uplink(state, config, uplink, packet)
            # P7: with extra headers, an answer would go where the packet says.
            return None if packet.extra_headers else next(found, None)
    return None


def _own(tunnel: Tunnel) -> set[object]:
    return {address.ip for address in tunnel.addresses}


def _on_loopback(state: State, packet: Packet, *, ours: bool) -> str | None:
    """`ours` is the sign of our own question: the mark on its way out, its flow's on the way in."""
    if packet.destination != DOCKER_RESOLVER:
        return "loopback"
    query = _query(state)
    asked = query is not None and (
        ours
        and packet.destination == query.resolver
        and packet.has_ports(UDP)
        and packet.source_port == query.source_port
    )
    return "P10" if asked else None


def _is_about_routes(packet: Packet) -> bool:
    """Return whether it is a redirect, or a router's message."""
    if packet.family is Family.IPV4:
        return packet.has_ports(ICMP) and packet.icmp_type == 5
    return packet.has_ports(ICMPV6) and packet.icmp_type in {133, 134, 137}


def _in_tunnel(state: State, config: Config, packet: Packet) -> str | None:
    if not isinstance(state, Connected) or packet.destination not in _own(state.tunnel):
        return None
    errors = ICMP if packet.family is Family.IPV4 else ICMPV6
    if (packet.state, packet.direction) == ("ESTABLISHED", "REPLY"):
        return "P4"
    if (packet.state, packet.protocol) == ("RELATED", errors):
        return "P4"
    listed = any(
        packet.has_ports(NUMBERS[ports.protocol])
        and ports.first <= packet.destination_port <= ports.last
        for ports in config.vpn_input_ports
    )
    forwarded = any(
        packet.has_ports(NUMBERS[protocol]) and packet.destination_port == lease.listening
        for lease in state.leases
        if lease.version == packet.family.value
        for protocol in lease.protocols
    )
    is_of_a_flow = packet.state in {"NEW", "ESTABLISHED"}
    return "P9" if (listed or forwarded) and is_of_a_flow else None


def _leaving_on_uplink(
    state: State, config: Config, facts: Facts, uplink: Uplink, packet: Packet
) -> Iterator[str]:
    addresses = {address.ip for address in uplink.addresses}
    if isinstance(state, Connecting | Connected):
        for endpoint in state.tunnel.endpoints:
            if (
                packet.destination == endpoint.address
                and packet.has_ports(UDP)
                and packet.destination_port == endpoint.port
                and packet.source_port == state.tunnel.listen_port
                and packet.mark == state.tunnel.fwmark
                and _leads(facts, endpoint.address) == uplink.name
            ):
                yield "P3"
    if (flow := _transfer(state)) is not None and (
        packet.destination == flow.server
        and packet.has_ports(TCP)
        and (packet.source_port, packet.destination_port) == (flow.source_port, flow.port)
        and packet.mark == flow.mark
        and _leads(facts, flow.server) == uplink.name
    ):
        yield "P18"
    if (query := _query(state)) is not None and (
        packet.destination == query.resolver
        and packet.has_ports(UDP)
        and (packet.source_port, packet.destination_port) == (query.source_port, 53)
        and packet.mark == query.mark
    ):
        yield "P10"
    if _speaks(state, config) and packet.has_ports(ICMPV6) and packet.icmp_type in {135, 136}:
        near: list[Network] = [LINK_LOCAL, SOLICITED_NODES]
        near += [address.network for address in uplink.addresses]
        if any(packet.destination in network for network in near):
            yield "P5"
    if packet.source in addresses:
        yield from _hole_out(state, config, uplink, packet)


def _speaks(state: State, config: Config) -> bool:
    """Return whether anything may pass on an uplink in this state."""
    asks = _query(state) is not None or _transfer(state) is not None
    return asks or bool(_ports(state, config)) or isinstance(state, Connecting | Connected)


def _ports(state: State, config: Config) -> tuple[PortRange, ...]:
    """Return the input ports that are open: without a tunnel, unless the user closes them then."""
    is_down = isinstance(state, Resolving | Fetching | Connecting | Paused)
    is_refused = isinstance(state, Paused) and state.refused
    waits = is_down and not is_refused and config.input_ports_while_down
    return config.input_ports if waits or isinstance(state, Connected) else ()


def _query(state: State) -> Query | None:
    """Return the question for a name that is under way."""
    return state.query if isinstance(state, Resolving | Fetching) else None


def _transfer(state: State) -> Transfer | None:
    """Return the connection to the host of a list that is under way."""
    return state.transfer if isinstance(state, Fetching) else None


def _is_for_local_zone(config: Config, packet: Packet) -> bool:
    """Return whether `packet` goes to the resolver of a local zone."""
    zones = config.name_server.local if config.name_server else ()
    return (
        (packet.has_ports(UDP) or packet.has_ports(TCP))
        and packet.destination_port == 53
        and any(packet.destination in zone.resolvers for zone in zones)
    )


def _hole_out(state: State, config: Config, uplink: Uplink, packet: Packet) -> Iterator[str]:
    """Yield the holes that a packet from one of the uplink's own addresses may take."""
    ours = packet.user == RESOLVER_USER and config.name_server is not None
    onward = packet.state in {"NEW", "ESTABLISHED"} and packet.direction == "ORIGINAL"
    listed = isinstance(state, Connected) and _is_listed(packet.destination, config, uplink)
    names = (packet.has_ports(UDP) or packet.has_ports(TCP)) and packet.destination_port in NAMES
    echo = packet.has_ports(ICMP if packet.family is Family.IPV4 else ICMPV6) and (
        packet.icmp_type == (8 if packet.family is Family.IPV4 else 128)
    )
    carried = packet.protocol in {TCP, UDP} or echo
    asked = isinstance(state, Connected) and any(
        packet.destination == it.address and packet.destination_port in {*NAMES, it.port}
        for it in upstreams_of(state.tunnel, config)
        if packet.has_ports(UDP) or packet.has_ports(TCP)
    )
    local = ours and _is_for_local_zone(config, packet)
    if onward and listed and carried and (asked or local or not names):
        # P10: no hole is for the gateway's own resolver but that to a configured one.
        yield from () if ours and not (asked or local) else ("P7",)
    if ours:
        return
    for ports in _ports(state, config):
        if (
            packet.has_ports(NUMBERS[ports.protocol])
            and ports.first <= packet.source_port <= ports.last
            and packet.direction == "REPLY"
            and _began_at(uplink, packet)
        ):
            yield "P8"


def _arriving_on_uplink(
    state: State, config: Config, uplink: Uplink, packet: Packet
) -> Iterator[str]:
    if isinstance(state, Connecting | Connected):
        for endpoint in state.tunnel.endpoints:
            if (
                packet.source == endpoint.address
                and packet.has_ports(UDP)
                and packet.source_port == endpoint.port
                and packet.destination_port == state.tunnel.listen_port
            ):
                yield "P3"
    if (flow := _transfer(state)) is not None and (
        packet.source == flow.server
        and packet.has_ports(TCP)
        and (packet.source_port, packet.destination_port) == (flow.port, flow.source_port)
        and (packet.state, packet.direction) == ("ESTABLISHED", "REPLY")
    ):
        yield "P18"
    if (query := _query(state)) is not None and (
        packet.source == query.resolver
        and packet.has_ports(UDP)
        and (packet.source_port, packet.destination_port) == (53, query.source_port)
    ):
        yield "P10"
    if _speaks(state, config) and packet.has_ports(ICMPV6):
        if packet.icmp_type in {135, 136}:
            yield "P5"
        if packet.icmp_type == 134 and packet.source in uplink.routers:
            yield "P5"
    if packet.destination in {a.ip for a in uplink.addresses}:
        yield from _hole_in(state, config, uplink, packet)


def _hole_in(state: State, config: Config, uplink: Uplink, packet: Packet) -> Iterator[str]:
    """Yield the holes that a packet to one of the uplink's own addresses may take."""
    known = (packet.state, packet.direction) == ("ESTABLISHED", "REPLY")
    known = known and isinstance(state, Connected)
    if known and _is_listed(packet.source, config, uplink):
        yield "P7"
    for ports in _ports(state, config):
        if (
            packet.has_ports(NUMBERS[ports.protocol])
            and ports.first <= packet.destination_port <= ports.last
            and packet.direction == "ORIGINAL"
            and (packet.state == "NEW" or _began_at(uplink, packet))
        ):
            yield "P8"
    protocol = ICMP if packet.family is Family.IPV4 else ICMPV6
    near = [address.network for address in uplink.addresses]
    public = any(one.overlaps(other) for one in config.public_subnets for other in near)
    listed = isinstance(state, Connected) and (config.outbound_subnets or public)
    open_ = listed or _ports(state, config)
    redirect = packet.family is Family.IPV4 and _is_about_routes(packet)
    if open_ and packet.state == "RELATED" and packet.protocol == protocol and not redirect:
        yield "P12"


def _is_listed(address: Address, config: Config, uplink: Uplink) -> bool:
    """Return whether a listed subnet has the address; a public one only in the uplink's network."""
    if any(address in subnet for subnet in config.outbound_subnets):
        return True
    public = any(address in subnet for subnet in config.public_subnets)
    return public and any(address in own.network for own in uplink.addresses)


def _began_at(uplink: Uplink, packet: Packet) -> bool:
    """Return whether the packet belongs to a flow that began at `uplink`."""
    return packet.state == "ESTABLISHED" and packet.connmark == reply_mark(uplink)


def _leads(facts: Facts, address: object) -> str | None:
    """Return the interface that the main table leads `address` to: longest prefix, then metric."""
    fitting = [route for route in facts.routes if address in route.destination]
    fitting.sort(key=lambda route: (-route.destination.prefixlen, route.metric))
    return fitting[0].interface if fitting else None
