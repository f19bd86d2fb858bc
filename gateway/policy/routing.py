"""The routes and policy rules that the gateway wants, as data: the second barrier.

The tunnel has a routing table of its own that ends in `unreachable`, and a rule that sends
everything there before the main table is used. The exceptions have smaller priorities, each as
narrow as possible:

    100  marked packets of flows to an input port   the table of the uplink they came in on
    101  answers from an input port                 the table of the uplink whose address they have
    110  the encrypted flow, by mark, to its endpoint                main
    120  the listed LAN subnets                                      main
    121  listed public subnets that an uplink is in                  a table without any gateway
    130  IPv4 on the same link as an uplink                          main
    131  the listed LAN subnets, if they are many                    a table of their part of main
    135  the IPv6 networks that the tunnel names                     the tunnel's table
    140  private networks                                            main, less its default route
    150  everything                                                  the tunnel's table

Rule 121 keeps a public subnet on its link, whatever gateway the main table may have for it.

Rule 130 opens nothing (the firewall refuses what no list names). Under strict reverse-path
filtering, the kernel answers an ARP request only if the route to its sender uses the interface that
it came in on (net/ipv4/arp.c arp_process, net/ipv4/fib_frontend.c). IPv6 has no such rule:
neighbour discovery looks no routing rule up (net/ipv6/ndisc.c, ndisc_send_skb), and any
neighbour could put a prefix on the link by a router advertisement (RFC 4861, section 4.6.2) and so
take it out of the tunnel.

Rule 135 keeps such a neighbour from doing the same by rule 140 with the tunnel's own networks: its
addresses' prefixes, its resolvers, and the allowed IPs that are not everything.

Rule 140 is for the engine: when it attaches a network, it asks for the way to the gateway of that
network before the gateway knows it, and turns the answer into a default route (libnetwork,
osl/route_linux.go, programGateway). Without the rule that route would lead into the tunnel, or be
missing. The rule is there in every state, because a closed gateway may wait for such an uplink.

Rule 100 is for packets that arrive: strict reverse-path filtering looks routes up with their mark.
Rule 101 is for packets that leave, by source address, transport and source port. A mark would come
too late for them: the kernel looks a route up before it builds the answer to a client
(tcp_v4_send_synack). If a chain then marks the packet and it is routed again, later chains still
see the interface of the first look-up (net/netfilter/core.c, nf_hook_slow). Many ranges of ports
are widened: the rule only chooses the uplink for a packet from that uplink's address.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network
from itertools import product

from gateway.model import INTERFACE, Address, Config, Network, Tunnel
from gateway.policy import marks
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.sets import few_and_many, widened
from gateway.policy.tables import TABLE_TUNNEL, PolicyRule, Routing, TableRoute
from gateway.policy.ways import links_of, named_by, on_link, routes_within

PRIORITY_FIRST = 1
PRIORITY_ARRIVED = 100
PRIORITY_ANSWERS = 101
PRIORITY_ENCRYPTED = 110
PRIORITY_LAN = 120
PRIORITY_NEAR = 121
PRIORITY_ON_LINK = 130
PRIORITY_MANY = 131
PRIORITY_NAMED = 135
PRIORITY_ATTACHING = 140
PRIORITY_TUNNEL = 150
PRIORITY_LAST = 199
"""Every policy rule with a priority from PRIORITY_FIRST to PRIORITY_LAST belongs to the gateway.

That is everything between the kernel's own first rule, for the addresses of this host, and the last
one here: a rule of another program before these could send packets past the tunnel's table.
"""

TABLE_MAIN = 254
TABLE_UPLINKS = 0x706C0000
"""The table, and the mark, of the uplink with index n is TABLE_UPLINKS + n."""
TABLE_LAN = TABLE_UPLINKS
"""The table for public subnets, and for many LAN subnets: no link has the index 0."""

PRIVATE: tuple[Network, ...] = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8", "fe80::/10"))
)
"""Where an engine takes its networks from, and link-local gateways (RFC 1918, RFC 4193).

The other half of RFC 4193's block, fc00::/8, is unassigned, but VPN providers use it."""

METRIC_END = 1_000_000_000
"""The metric of the `unreachable` route that a table ends in: worse than any other."""

IPV4, IPV6 = 4, 6

DEFAULTS: dict[int, Network] = {IPV4: ip_network("0.0.0.0/0"), IPV6: ip_network("::/0")}


LOCKED = Routing(
    routes=tuple(
        TableRoute(DEFAULTS[v], TABLE_TUNNEL, unreachable=True, metric=METRIC_END) for v in DEFAULTS
    ),
    rules=(
        *(
            PolicyRule(
                network.version,
                PRIORITY_ATTACHING,
                TABLE_MAIN,
                "the gateway of a network that is being attached",
                destination=network,
                but_default=True,
            )
            for network in PRIVATE
        ),
        *(
            PolicyRule(v, PRIORITY_TUNNEL, TABLE_TUNNEL, "all traffic via the tunnel or nowhere")
            for v in DEFAULTS
        ),
    ),
)
"""The routing before a tunnel exists; it needs no configuration."""


def reply_mark(uplink: Uplink) -> int:
    """Return the mark, which is also the table, of flows that came in through `uplink`."""
    return TABLE_UPLINKS + uplink.index


def routing_for(tunnel: Tunnel, config: Config, facts: Facts) -> Routing:
    """Return the routing for `tunnel` once its interface exists."""
    inward = [
        TableRoute(network, TABLE_TUNNEL, INTERFACE)
        for peer in tunnel.peers
        for network in peer.allowed_ips
        if tunnel.has_family(network.version)
    ]
    answers = _answers(config, facts)
    few, many = few_and_many(config.outbound_subnets)
    near = links_of(config.public_subnets, facts)
    return Routing(
        routes=(
            *LOCKED.routes,
            *dict.fromkeys(inward),
            *answers.routes,
            *_in_table(TABLE_LAN, routes_within(many, facts.routes)),
            *(TableRoute(it, TABLE_LAN, link, source=own) for it, (link, own) in near.items()),
            *(TableRoute(it, TABLE_LAN, unreachable=True, metric=METRIC_END) for it in near),
        ),
        rules=(
            *answers.rules,
            *_encrypted(tunnel),
            *_to_main(few, PRIORITY_LAN, "a listed LAN subnet"),
            *(
                replace(rule, table=TABLE_LAN)
                for rule in _to_main(near, PRIORITY_NEAR, "a listed public subnet, on its link")
            ),
            *_to_main(on_link(facts, IPV4), PRIORITY_ON_LINK, "the same link as an uplink"),
            *(
                PolicyRule(version, PRIORITY_MANY, TABLE_LAN, "the listed LAN subnets")
                for version in sorted({network.version for network in many})
            ),
            *_named(tunnel),
            *LOCKED.rules,
        ),
    )


def routing_for_question(resolver: Address, why: str = "the name of the endpoint") -> Routing:
    """Return the routing while `resolver`, or another host of the internet, is asked something.

    The rule has no mark, because every process can read it; the firewall matches the mark.
    """
    if resolver.is_loopback:
        return LOCKED
    asking = _to_main([ip_network(resolver)], PRIORITY_ENCRYPTED, why)
    return replace(LOCKED, rules=(*asking, *LOCKED.rules))


def with_answers(routing: Routing, config: Config, facts: Facts) -> Routing:
    """Return `routing` with the ways back to clients of the input ports of `config`."""
    answers = _answers(config, facts)
    return Routing((*routing.routes, *answers.routes), (*answers.rules, *routing.rules))


def without_interface(routing: Routing) -> Routing:
    """Return the part of `routing` that does not use the tunnel's interface.

    The way to the endpoint is in it: WireGuard sends its first handshake as the link goes up.
    """
    routes = tuple(route for route in routing.routes if route.interface != INTERFACE)
    return replace(routing, routes=routes)


def _answers(config: Config, facts: Facts) -> Routing:
    """Return the tables and rules by which answers from input ports leave where clients are."""
    replying = facts.uplinks if config.input_ports else ()
    routes: list[TableRoute] = []
    for uplink in replying:  # each has its part of the main table
        own = (route for route in facts.routes if route.interface == uplink.name)
        routes += _in_table(reply_mark(uplink), own)
    arrived = (rule for uplink in replying for rule in _arrived_rules(uplink))
    leaving = (rule for uplink in replying for rule in _answer_rules(uplink, config))
    return Routing(tuple(routes), (*arrived, *leaving))


def _in_table(table: int, routes: Iterable[Route]) -> tuple[TableRoute, ...]:
    return tuple(
        TableRoute(r.destination, table, r.interface, r.gateway, metric=r.metric) for r in routes
    )


def _arrived_rules(uplink: Uplink) -> tuple[PolicyRule, ...]:
    """Return the rules by which packets to an input port pass the reverse-path filter."""
    mark = reply_mark(uplink)
    return tuple(
        PolicyRule(version, PRIORITY_ARRIVED, mark, f"arrived on {uplink.name}", fwmark=mark)
        for version in sorted({address.version for address in uplink.addresses})
    )


def _answer_rules(uplink: Uplink, config: Config) -> tuple[PolicyRule, ...]:
    """Return the rules that send answers from input ports to the table of `uplink`.

    Rules with ports exist since Linux 4.17; an older kernel is detected when they are read back.
    """
    return tuple(
        PolicyRule(
            address.version,
            PRIORITY_ANSWERS,
            reply_mark(uplink),
            f"answers via {uplink.name}",
            source=ip_network(address.ip),
            source_ports=ports,
        )
        for address, ports in product(uplink.addresses, widened(config.input_ports))
    )


def _encrypted(tunnel: Tunnel) -> tuple[PolicyRule, ...]:
    """Return the rules by which WireGuard's own packets find their endpoints."""
    return tuple(
        PolicyRule(
            endpoint.address.version,
            PRIORITY_ENCRYPTED,
            TABLE_MAIN,
            "the encrypted flow",
            fwmark=marks.shown(tunnel.fwmark),
            fwmask=marks.mask(tunnel.fwmark),
            destination=ip_network(endpoint.address),
        )
        for endpoint in tunnel.endpoints
    )


def _to_main(networks: Iterable[Network], priority: int, why: str) -> tuple[PolicyRule, ...]:
    """Return rules that look `networks` up in the main table."""
    return tuple(
        PolicyRule(network.version, priority, TABLE_MAIN, why, destination=network)
        for network in dict.fromkeys(networks)
    )


def _named(tunnel: Tunnel) -> tuple[PolicyRule, ...]:
    """Return the rules that keep the IPv6 networks of the configuration in the tunnel."""
    return tuple(
        PolicyRule(
            IPV6, PRIORITY_NAMED, TABLE_TUNNEL, "the tunnel's own networks", destination=network
        )
        for network in dict.fromkeys(named_by(tunnel))
        if network.version == IPV6 and network.prefixlen and not network.is_loopback
    )
