"""Random configurations, namespaces and states, and packets that come close to their rules."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any

from hypothesis import strategies as st

from gateway.model import (
    EVERYTHING,
    INTERFACE,
    Config,
    Endpoint,
    HostPort,
    Peer,
    PortRange,
    Protocol,
    Secret,
    Tunnel,
)
from gateway.model.name_server import RESOLVER_USER, LocalZone, NameServer, Upstream
from gateway.model.proxies import PROXY_USER, HttpProxy, SocksProxy
from gateway.policy.evidence import Pulse
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.firewall import ruleset_for
from gateway.policy.routing import reply_mark
from gateway.policy.rules import Chain, Family, NetworkSet, PortSet, Rule, Ruleset
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Query,
    Reason,
    Resolving,
    State,
    Stopping,
    Transfer,
    Turn,
)
from tests.model.packets import ICMP, ICMPV6, INVALID, TCP, UDP, Packet

Situation = tuple[State, Config, Facts]

GUARD_MARK = 0x1234ABCD

TUNNEL_ADDRESSES = tuple(map(ip_interface, ("10.2.0.2/32", "10.64.9.9/32", "fd02::2/128")))
ENDPOINTS = tuple(
    map(ip_address, ("198.51.100.10", "203.0.113.7", "192.168.1.9", "2001:db8::10", "fd77::9"))
)
SUBNETS = tuple(
    map(
        ip_network,
        ("192.168.1.0/24", "172.16.0.0/12", "192.168.77.5/32", "192.168.0.0/24",
         "192.168.1.53/32", "172.16.3.0/24", "10.2.0.0/16", "fd77::/64", "fe80::/10",
         "fd77:0:0:1::/64", "fd77::53/128"),
    )
)  # fmt: skip
PUBLIC = (IPv4Network("172.50.0.0/16"), IPv4Network("203.0.113.128/25"))
UPLINK_ADDRESSES = tuple(
    map(
        ip_interface,
        ("172.18.0.2/16", "172.19.0.7/24", "192.168.1.2/24", "203.0.113.3/32", "fd18::2/64",
         "172.50.0.2/16", "203.0.113.2/24",
         "2001:db8:5::3/64"),
    )
)  # fmt: skip
ROUTERS = tuple(map(IPv6Address, ("fe80::1", "fe80::2")))
RESOLVERS = tuple(
    map(ip_address, ("10.2.0.1", "192.168.1.53", "172.16.3.3", "fd77::53", "127.0.0.11"))
)

NAME_SERVERS = (
    NameServer((Upstream(ip_address("1.1.1.1"), 853, "dns.example", "example"),)),
    NameServer(
        (Upstream(ip_address("192.168.1.53"), 5353), Upstream(ip_address("fd77::53"), 853, "x"))
    ),
    NameServer(
        local=(LocalZone("home.lan", (ip_address("192.168.1.1"), ip_address("fd77::1"))),),
    ),
)

ports = st.integers(1, 65535) | st.sampled_from([53, 853, 8080, 51820])


@st.composite
def port_ranges(draw: st.DrawFn) -> PortRange:
    """Draw a port, or a few in a row."""
    first = draw(ports)
    last = min(first + draw(st.sampled_from([0, 0, 3])), 65535)
    return PortRange(draw(st.sampled_from(Protocol)), first, last)


@st.composite
def tunnels(draw: st.DrawFn) -> Tunnel:
    """Draw a tunnel with one or two peers."""
    peers = draw(
        st.lists(
            st.builds(
                lambda address, port: Peer("a2V5", Endpoint(address, port), EVERYTHING),
                st.sampled_from(ENDPOINTS),
                ports,
            ),
            min_size=1,
            max_size=2,
        )
    )
    return Tunnel(
        Secret("a2V5"),
        tuple(draw(st.lists(st.sampled_from(TUNNEL_ADDRESSES), min_size=1, unique=True))),
        tuple(peers),
        listen_port=draw(st.sampled_from([51820, 40000])),
        fwmark=draw(st.sampled_from([0xCA6C, 1, 0x8123_4567])),
        dns=tuple(draw(st.lists(st.sampled_from(RESOLVERS), max_size=2, unique=True))),
    )


@st.composite
def namespaces(draw: st.DrawFn) -> Facts:
    """Draw up to three uplinks with their routes, perhaps a default route, perhaps a guard."""
    uplinks, routes = [], []
    for number in range(draw(st.integers(0, 3))):
        name, addresses = (
            f"eth{number}",
            draw(st.lists(st.sampled_from(UPLINK_ADDRESSES), max_size=3, unique=True)),
        )
        routers = draw(st.lists(st.sampled_from(ROUTERS), max_size=2, unique=True))
        uplinks.append(Uplink(name, number + 2, 1500, tuple(addresses), tuple(routers)))
        routes += [Route(address.network, name) for address in addresses]
    if uplinks:
        for destination in EVERYTHING:
            name = draw(st.sampled_from([None, *(uplink.name for uplink in uplinks)]))
            routes += [Route(destination, name)] if name else []
    return Facts(
        tuple(uplinks), tuple(routes), guard_mark=draw(st.sampled_from([None, GUARD_MARK]))
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Draw a state of a gateway with some configuration in some namespace."""
    tunnel = draw(tunnels())
    config = Config(
        (tunnel,),
        outbound_subnets=tuple(draw(st.lists(st.sampled_from(SUBNETS), max_size=6, unique=True))),
        public_subnets=tuple(draw(st.lists(st.sampled_from(PUBLIC), max_size=2, unique=True))),
        input_ports=tuple(draw(st.lists(port_ranges(), max_size=5))),
        input_ports_while_down=draw(st.booleans()),
        vpn_input_ports=tuple(draw(st.lists(port_ranges(), max_size=3))),
        name_server=draw(st.sampled_from([None, *NAME_SERVERS])),
        http_proxy=draw(st.sampled_from([None, HttpProxy(HostPort("", 8080))])),
        socks_proxy=draw(st.sampled_from([None, SocksProxy(HostPort("", 1080))])),
    )
    turn = Turn((tunnel,))
    marks = st.integers(1, 2**32 - 1)
    query = Query(draw(st.sampled_from(RESOLVERS)), draw(ports), draw(marks))
    transfer = Transfer(draw(st.sampled_from(RESOLVERS)), 443, draw(ports), draw(marks))
    state = draw(
        st.sampled_from([
            Connected(turn, tunnel, 0.0, Pulse()),
            Connected(turn, tunnel, 0.0, Pulse()),
            Connecting(turn, tunnel, Reason.STARTING, 0.0, 0.0),
            Resolving(turn, Reason.STARTING, 0.0, 0.0, query=query),
            Resolving(turn, Reason.STARTING, 0.0, 0.0),
            Fetching(turn, Reason.STARTING, 0.0, 0.0, query=query),
            Fetching(turn, Reason.STARTING, 0.0, 0.0, transfer=transfer),
            Locked(),
            Paused(0.0),
            Paused(0.0, refused=True),
            Stopping(),
        ])
    )  # fmt: skip
    return state, config, draw(namespaces())


def addresses_of(situation: Situation, family: Family) -> list[IPv4Address | IPv6Address]:
    """Return the addresses that matter in a situation, and some that do not."""
    _, config, facts = situation
    strangers = ("127.0.0.1", "127.0.0.11", "224.0.0.251", "255.255.255.255", "8.8.8.8", "::1",
                 "ff02::1:ff00:2", "ff02::fb", "fe80::1", "fe80::9", "2001:4860::8888")  # fmt: skip
    found = [
        *(address.ip for uplink in facts.uplinks for address in uplink.addresses),
        *(address.ip for tunnel in config.tunnels for address in tunnel.addresses),
        *(endpoint.address for tunnel in config.tunnels for endpoint in tunnel.endpoints),
        *(subnet[-1] for subnet in config.outbound_subnets),
        *(subnet[-2] for subnet in config.public_subnets),
        *(resolver for tunnel in config.tunnels for resolver in tunnel.dns),
        *RESOLVERS,
        *map(ip_address, strangers),
    ]
    return [address for address in found if address.version == family.value]


@st.composite
def packets(
    draw: st.DrawFn,
    situation: Situation,
    way: tuple[Chain, ...],
    rules_of: Callable[[State, Config, Facts], Ruleset] = ruleset_for,
) -> Packet:
    """Draw a packet for the chains of `way`: like one that a rule asks for, or nearly so.

    A packet drawn blindly would never have all that a narrow rule asks for.
    """
    ruleset = rules_of(*situation)
    family = draw(st.sampled_from(Family))
    addresses = st.sampled_from(addresses_of(situation, family))
    packet = Packet(family=family, source=draw(addresses), destination=draw(addresses))
    rules = [rule for chain in way for rule in ruleset.of(family).get(chain, ())]
    if rules:
        packet = draw(fitting(packet, draw(st.sampled_from(rules))))
    for field in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=3)):
        packet = replace(packet, **{field: draw(FIELDS[field](situation, family))})
    outward = Chain.OUTPUT in way
    if packet.family is Family.IPV6 and packet.protocol not in {TCP, UDP, ICMPV6} and not outward:
        # nftables drops other protocols as if they were extension headers; iptables would accept
        # one in an answer, but a flow with such a protocol cannot begin here.
        packet = replace(packet, extra_headers=True)
    if draw(st.booleans()) and outward and not packet.out_interface:
        packet = replace(packet, out_interface=draw(FIELDS["out_interface"](situation, family)))
    return packet


@st.composite
def fitting(draw: st.DrawFn, packet: Packet, rule: Rule) -> Packet:
    """Draw a packet that meets every condition of `rule`; the rest is as in `packet`."""
    numbers = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "ipv6-icmp": ICMPV6}
    wanted: dict[str, Any] = {
        "in_interface": rule.in_interface,
        "out_interface": rule.out_interface,
        "source": draw(hosts(draw(member(rule.source)))),
        "destination": draw(hosts(draw(member(rule.destination)))),
        "protocol": numbers[rule.protocol] if rule.protocol else None,
        "icmp_type": rule.icmp_type,
        "syn": rule.syn or None,
        "extra_headers": rule.extra_headers or None,
        "user": rule.user,
        "mark": rule.mark,
        "connmark": rule.connmark,
        "direction": rule.ct_direction and rule.ct_direction.value,
        "state": draw(st.sampled_from(sorted(rule.ct_states))).value if rule.ct_states else None,
    }
    for field in ("source_ports", "destination_ports"):
        span = draw(member(getattr(rule, field)))
        wanted[field.removesuffix("s")] = span and draw(st.integers(span.first, span.last))
    return replace(packet, **{name: value for name, value in wanted.items() if value is not None})


def member(matched: Any) -> st.SearchStrategy[Any]:
    """Draw a member of a set, or return what is not a set."""
    if isinstance(matched, NetworkSet | PortSet):
        return st.sampled_from(matched.members)
    return st.just(matched)


def hosts(
    network: IPv4Network | IPv6Network | None,
) -> st.SearchStrategy[IPv4Address | IPv6Address | None]:
    """Draw an address of `network`."""
    if network is None:
        return st.none()
    return st.integers(0, network.num_addresses - 1).map(lambda number: network[number])


def _marks(situation: Situation, _: Family) -> st.SearchStrategy[int]:
    state, config, facts = situation
    known = [0, GUARD_MARK, *(tunnel.fwmark for tunnel in config.tunnels)]
    known += map(reply_mark, facts.uplinks)
    if isinstance(state, Resolving | Fetching) and state.query:
        known.append(state.query.mark)
    if isinstance(state, Fetching) and state.transfer:
        known.append(state.transfer.mark)
    return st.sampled_from(known) | st.integers(0, 2**32 - 1)


def _interfaces(situation: Situation, _: Family) -> st.SearchStrategy[str]:
    names = [uplink.name for uplink in situation[2].uplinks]
    return st.sampled_from(["lo", INTERFACE, *names, "eth9"])


def _addresses(
    situation: Situation, family: Family
) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    return st.sampled_from(addresses_of(situation, family)) | st.ip_addresses(v=family.value)


def _ports(situation: Situation, _: Family) -> st.SearchStrategy[int]:
    config = situation[1]
    listed = [port.first for port in (*config.input_ports, *config.vpn_input_ports)]
    listed += [port for tunnel in config.tunnels for port in (tunnel.listen_port, 53, 853)]
    return st.sampled_from([*listed, *(port - 1 for port in listed)]) | st.integers(0, 65535)


FIELDS: dict[str, Any] = {
    "source": _addresses,
    "destination": _addresses,
    "in_interface": _interfaces,
    "out_interface": _interfaces,
    "protocol": lambda *_: st.sampled_from([TCP, UDP, ICMP, ICMPV6, 4, 41, 47, 132]),
    "source_port": _ports,
    "destination_port": _ports,
    "icmp_type": lambda *_: st.sampled_from([0, 3, 5, 8, 128, 133, 134, 135, 136, 137, 143]),
    "syn": lambda *_: st.booleans(),
    "later_fragment": lambda *_: st.booleans(),
    "extra_headers": lambda *_: st.booleans(),
    "user": lambda *_: st.sampled_from([None, 0, RESOLVER_USER, PROXY_USER]),
    "mark": _marks,
    "connmark": _marks,
    "state": lambda *_: st.sampled_from(["NEW", "ESTABLISHED", "RELATED", INVALID]),
    "direction": lambda *_: st.sampled_from(["ORIGINAL", "REPLY"]),
}
"""What may be changed about a packet, and to what."""
