"""The listed holes of a vault: how they pass between an uplink and the vault.

The vault has no uplink. A pair of links joins it to the gateway's namespace, only if a hole is
listed. In the vault one end of it is as good as an uplink, so the rules there are those of
`policy.holes`. In the gateway's namespace the same flows are forwarded and nothing else is: each
rule for them is one of `policy.holes` too, with the other link and the vault's address. So each
packet of a hole meets two rulesets that are made of one text.

Neither end resolves neighbours, since each has only the other one: what a workload sends there
would fill the table of neighbours, which the whole machine has in common.

Addresses are translated on the way: a client's packet to an input port goes to the vault with the
client's address, and a packet to a LAN subnet leaves with the uplink's.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface

from gateway.model import (
    PASSAGE,
    Config,
    Network,
    PortRange,
    Protocol,
    Tunnel,
)
from gateway.model.name_server import Upstream
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.flows import NEIGHBOUR_DISCOVERY, ROUTER_ADVERTISEMENT, plain_only
from gateway.policy.holes import holes
from gateway.policy.routing import (
    DEFAULTS,
    LOCKED,
    PRIORITY_ENCRYPTED,
    PRIORITY_LAN,
    TABLE_LAN,
    TABLE_MAIN,
    reply_mark,
    routing_for,
    with_answers,
)
from gateway.policy.rules import (
    Accept,
    Chain,
    ChainRule,
    Family,
    NetworkSet,
    Rule,
    SetMark,
)
from gateway.policy.sets import networks
from gateway.policy.tables import PolicyRule, Routing, TableRoute
from gateway.policy.ways import attached, routes_within

INSIDE, OUTSIDE = "hole0", "vault0"
"""The names of the two ends: in the vault, and in the gateway's namespace."""
INDEX = 0xFFFF
"""The index of each end in its namespace. It is how they are known: a user may have given another
link the name. A mark and a table have its number, which so is one of ours (`reply_mark`)."""
MAC = "02:70:63:00:00:01"
"""The address of both ends: the kernel sends to a link's own one where it resolves none
(net/ipv4/arp.c, arp_constructor)."""
MTU = 1500
LEAST_MTU = {4: 68, 6: 1280}
"""The smallest that a link with addresses of an IP version may have (RFC 791, RFC 8200)."""

INNER, OUTER = (
    {int(it.version): ip_interface(f"{it[host]}/{it.prefixlen}") for it in PASSAGE}
    for host in (2, 1)
)
"""The addresses of the two ends by IP version: link-local ones (RFC 3927), and unique local ones
(RFC 4193). None of them is seen outside."""

PRIORITY_PASSAGE = 90
"""Before what depends on marks: a client's packet has the mark by which its answer finds its way
back (`PRIORITY_ARRIVED`)."""

DISCOVERY = frozenset({*NEIGHBOUR_DISCOVERY, ROUTER_ADVERTISEMENT})


def inner_end(versions: tuple[int, ...]) -> Uplink:
    """Return the end in the vault, with an address of each of the IP `versions`."""
    return Uplink(INSIDE, INDEX, MTU, tuple(INNER[version] for version in versions))


def with_mtu(hole: Uplink, facts: Facts) -> Uplink:
    """Return the end `hole` with no larger packets than every uplink can carry.

    Else the gateway's kernel would have to answer some with an ICMP error of its own, which its
    rules refuse.
    """
    least = max(LEAST_MTU[address.version] for address in hole.addresses)
    return replace(hole, mtu=max(least, min([hole.mtu, *(it.mtu for it in facts.uplinks)])))


def collision(facts: Facts) -> str:
    """Return which uplink has addresses of the pair in its network; empty if none has."""
    found = (
        f"{uplink.name} has {address}, and the link to a vault has {network}"
        for uplink in facts.uplinks
        for address in uplink.addresses
        for network in PASSAGE
        if network.overlaps(address.network)
    )
    return next(found, "")


def inside(
    family: Family,
    hole: Uplink,
    config: Config,
    resolvers: tuple[Upstream, ...],
    *,
    ends: bool,
) -> Iterator[ChainRule]:
    """Yield the rules of a vault for its end, the link `hole`; `ends` as `holes` has it."""
    yield from plain_only((hole,))
    for chain, rule in holes(family, hole, config, resolvers, ends=ends):
        if rule.icmp_type not in DISCOVERY:
            yield chain, rule


def outside(
    family: Family, hole: Uplink, config: Config, resolvers: tuple[Upstream, ...], facts: Facts
) -> Iterator[ChainRule]:
    """Yield the rules of the gateway's namespace: what is forwarded from and to the vault."""
    if not any(family.has(address) for address in hole.addresses):
        return
    for uplink in facts.uplinks:
        if any(family.has(address) for address in uplink.addresses):
            yield from _between(family, uplink, hole, config, resolvers)


def _between(
    family: Family, uplink: Uplink, hole: Uplink, config: Config, resolvers: tuple[Upstream, ...]
) -> Iterator[ChainRule]:
    """Yield the rules for what passes between `uplink` and the vault."""
    for chain, rule in plain_only((uplink,)):
        yield Chain.FORWARD, _forwarded(chain, rule)
    for chain, rule in holes(family, uplink, config, resolvers):
        if chain is Chain.PREROUTING or rule.icmp_type in DISCOVERY:
            yield chain, rule  # before an address is translated, or about this link alone
    translated = replace(uplink, addresses=hole.addresses)
    near = tuple(attached(config.public_subnets, uplink))
    for chain, rule in holes(family, translated, config, resolvers, near):
        if rule.user is not None:  # the vault knows it; what is forwarded has no socket here
            if not isinstance(rule.verdict, Accept):
                continue
            rule = replace(rule, user=None)  # noqa: PLW2901 - the same rule
        if chain is not Chain.PREROUTING and rule.icmp_type not in DISCOVERY:
            yield Chain.FORWARD, _forwarded(chain, rule)
    if config.input_ports:
        mark = reply_mark(uplink)
        yield (
            Chain.PREROUTING,
            Rule(
                why="P8 back to this uplink",
                verdict=SetMark(mark),
                in_interface=OUTSIDE,
                connmark=mark,
            ),
        )


def _forwarded(chain: Chain, rule: Rule) -> Rule:
    """Return `rule` of INPUT or OUTPUT for packets that are forwarded to or from the vault."""
    if chain is Chain.INPUT:
        return replace(rule, out_interface=OUTSIDE)
    return replace(rule, in_interface=OUTSIDE)


def routing_while_down(config: Config, hole: Uplink | None) -> Routing:
    """Return the routing of a vault without a tunnel, where `config` has what is open."""
    return with_answers(LOCKED, config, _seen_inside(hole)) if hole else LOCKED


def routing_inside(tunnel: Tunnel, config: Config, hole: Uplink | None) -> Routing:
    """Return the routing of a vault once the tunnel's interface is there.

    The listed subnets are in a table of their own. No route of the main table leads out.
    """
    if hole is None:
        config = replace(config, input_ports=(), outbound_subnets=(), public_subnets=())
    facts = _seen_inside(hole)
    whole = routing_for(tunnel, config, facts)
    listed = routes_within(_listed(config, hole), facts.routes)
    return Routing(
        routes=tuple(
            dict.fromkeys(
                (
                    *whole.routes,
                    *(TableRoute(r.destination, TABLE_LAN, INSIDE, r.gateway) for r in listed),
                )
            )
        ),
        rules=tuple(
            replace(rule, table=TABLE_LAN) if rule.priority == PRIORITY_LAN else rule
            for rule in whole.rules
            if rule.priority != PRIORITY_ENCRYPTED
        ),
    )


def _seen_inside(hole: Uplink | None) -> Facts:
    """Return what a vault looks like: the way out leads through `hole`, if anywhere."""
    ends = () if hole is None else (hole,)
    routes = tuple(
        Route(DEFAULTS[address.version], INSIDE, OUTER[address.version].ip)
        for end in ends
        for address in end.addresses
    )
    return Facts(ends, routes)


def _listed(config: Config, hole: Uplink | None) -> tuple[Network, ...]:
    """Return the listed subnets that `hole` can reach: they have to be disjoint."""
    found: list[Network] = []
    for address in hole.addresses if hole else ():
        family = Family(address.version)
        subnets = networks("outbound_subnets", "", family, config.outbound_subnets)
        if isinstance(subnets, NetworkSet):
            found += subnets.members
        elif subnets is not None:
            found.append(subnets)
    return tuple(found)


def divided(config: Config) -> tuple[Config, Config]:
    """Return `config` with the holes that lead to a vault, and with those that end before it.

    Those are listed ports of the health server and of the control API, if others may reach them:
    the servers are the gateway's, and a workload must not answer in their place.
    """
    others, own = config.input_ports, list[PortRange]()
    for server in (config.health_server, config.control_server):
        if server is None or server.host == "::1" or server.host.startswith("127."):
            continue
        port = PortRange(Protocol.TCP, server.port, server.port)
        left = _without(port, others)
        if left != others:
            others = left
            own.append(port)
    here = replace(config, input_ports=tuple(own), outbound_subnets=(), public_subnets=())
    return replace(config, input_ports=others), here


def _without(port: PortRange, ports: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """Return `ports` without the one that `port` is."""
    left: list[PortRange] = []
    for it in ports:
        if it.protocol is not port.protocol or not it.first <= port.first <= it.last:
            left.append(it)
            continue
        below, above = replace(it, last=port.first - 1), replace(it, first=port.last + 1)
        left += [part for part in (below, above) if part.first <= part.last]
    return tuple(left)


def within_reach(config: Config, facts: Facts) -> Config:
    """Return `config` as it is for a vault, where a listed public subnet is as any other."""
    near = (it for uplink in facts.uplinks for it in attached(config.public_subnets, uplink))
    listed = (*config.outbound_subnets, *dict.fromkeys(near))
    return replace(config, outbound_subnets=listed, public_subnets=())


def to_vault(hole: Uplink) -> tuple[PolicyRule, ...]:
    """Return the policy rules by which the gateway's namespace finds the vault."""
    return tuple(
        PolicyRule(
            address.version, PRIORITY_PASSAGE, TABLE_MAIN, "the vault", destination=address.network
        )
        for address in hole.addresses
    )
