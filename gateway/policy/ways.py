"""The path to an address in a namespace, and whether it has changed."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, ip_network
from itertools import product

from gateway.model import Address, Network, Tunnel
from gateway.policy.facts import Facts, Route, Uplink

WIDEST = 8
"""The shortest prefix of an uplink's network that counts as one: no engine gives a larger one."""

TWO_ADDRESSES = (
    "give the container's network another subnet, or take the address that your provider gave you"
)
"""What helps where an uplink has the tunnel's address: no rule could distinguish the two (P11)."""


def route_to(address: Address, facts: Facts) -> Route | None:
    """Return the route of the main table for `address`: longest prefix, then lowest metric."""
    names = {uplink.name for uplink in facts.uplinks}
    fitting = [r for r in facts.routes if address in r.destination and r.interface in names]
    return max(fitting, key=lambda r: (r.destination.prefixlen, -r.metric), default=None)


def uplink_to(address: Address, facts: Facts) -> Uplink | None:
    """Return the uplink through which the main table reaches `address`, if any."""
    route = route_to(address, facts)
    return next((u for u in facts.uplinks if route and u.name == route.interface), None)


def on_link(facts: Facts, version: int) -> tuple[Network, ...]:
    """Return the prefixes of IP `version` that an uplink reaches without a gateway."""
    return tuple(
        address.network
        for uplink in facts.uplinks
        for address in uplink.addresses
        if address.version == version
    )


def attached(networks: Iterable[IPv4Network], uplink: Uplink) -> dict[Network, Address]:
    """Return what of `networks`, which are disjoint, is in a network of `uplink` itself.

    Each part has the address of the uplink in that network.
    """
    found: dict[Network, Address] = {}
    for listed, address in product(networks, uplink.addresses):
        if isinstance(address, IPv4Interface) and address.network.prefixlen >= WIDEST:
            part = _common(listed, address.network)
            if part is not None:
                found.setdefault(part, address.ip)
    return found


def links_of(networks: tuple[IPv4Network, ...], facts: Facts) -> dict[Network, tuple[str, Address]]:
    """Return the uplink of each attached part of `networks`, and its address; the first counts."""
    found: dict[Network, tuple[str, Address]] = {}
    for uplink in facts.uplinks:
        for network, own in attached(networks, uplink).items():
            found.setdefault(network, (uplink.name, own))
    return found


def _common(one: IPv4Network, other: IPv4Network) -> IPv4Network | None:
    """Return what two networks have in common: one of them, or nothing."""
    if one.subnet_of(other):
        return one
    return other if other.subnet_of(one) else None


def named_by(tunnel: Tunnel) -> tuple[Network, ...]:
    """Return the networks of its addresses, its resolvers and the allowed IPs of its peers."""
    return (
        *(address.network for address in tunnel.addresses),
        *(ip_network(resolver) for resolver in tunnel.dns),
        *(network for peer in tunnel.peers for network in peer.allowed_ips),
    )


@lru_cache(maxsize=4)
def routes_within(networks: tuple[Network, ...], routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Return what `routes` say about `networks`, which are disjoint, and about nothing else.

    To look an address of the networks up in the result finds the same gateway as in `routes`: those
    to a part of a network are kept, and the closest around it is narrowed to the network.
    """
    known: dict[Network, dict[int, Route]] = {}
    for route in routes:
        known.setdefault(route.destination, {}).setdefault(route.metric, route)
    destinations, listed = _Nest(known), _Nest(networks)
    found: list[Route] = []
    for network in networks:
        around = destinations.around(network)
        closest = known[around].values() if around is not None else ()
        found += (replace(route, destination=network) for route in closest)
    for destination, inside in known.items():
        if listed.around(destination) not in {None, destination}:
            found += inside.values()
    return tuple(found)


class _Nest:
    """Networks of both families, in which the smallest around another one is found."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = frozenset(networks)
        self._lengths = sorted({network.prefixlen for network in self._networks}, reverse=True)

    def around(self, network: Network) -> Network | None:
        """Return the smallest that contains `network`, or is `network`."""
        lengths = (length for length in self._lengths if length <= network.prefixlen)
        wider = (network.supernet(new_prefix=length) for length in lengths)
        return next((it for it in wider if it in self._networks), None)


def ways(tunnel: Tunnel, facts: Facts) -> str:
    """Return the path to each endpoint of `tunnel`: gateway, uplink and source addresses."""
    return "; ".join(_way(endpoint.address, facts) for endpoint in tunnel.endpoints)


def steady(looks: Sequence[Facts]) -> Facts:
    """Return the last of `looks` at the namespace, without the uplinks that are not in all."""
    known = [frozenset((u.index, u.name) for u in facts.uplinks) for facts in looks]
    kept = frozenset.intersection(*known)
    uplinks = tuple(u for u in looks[-1].uplinks if (u.index, u.name) in kept)
    names = {uplink.name for uplink in uplinks}
    routes = tuple(route for route in looks[-1].routes if route.interface in names)
    return replace(looks[-1], uplinks=uplinks, routes=routes)


def has_moved(tunnel: Tunnel, former: Facts, facts: Facts) -> bool:
    """Return whether the path to an endpoint of `tunnel` differs from that in `former`.

    It differs if the uplink or the gateway is another one, if the uplink has lost an address, or if
    it had none. One more address changes nothing, because WireGuard continues with the address that
    it uses; a neighbour may have caused the change (RFC 4862, section 5.5.3).
    """
    return any(_differs(endpoint.address, former, facts) for endpoint in tunnel.endpoints)


def _differs(address: Address, former: Facts, facts: Facts) -> bool:
    if _by(address, former) != _by(address, facts):
        return True
    before, now = _own(address, former), _own(address, facts)
    return bool(before - now or (now and not before))


def _by(address: Address, facts: Facts) -> tuple[int | None, Address | None]:
    """Return the index of the uplink, and the gateway, of the path to `address`."""
    route, uplink = route_to(address, facts), uplink_to(address, facts)
    return uplink.index if uplink else None, route.gateway if route else None


def _own(address: Address, facts: Facts) -> set[Address]:
    """Return the addresses of the uplink to `address`, of the same family."""
    uplink = uplink_to(address, facts)
    return {a.ip for a in uplink.addresses if a.version == address.version} if uplink else set()


def _way(address: Address, facts: Facts) -> str:
    route, uplink = route_to(address, facts), uplink_to(address, facts)
    if route is None or uplink is None:
        return f"no route to {address}"
    own = ", ".join(str(a.ip) for a in uplink.addresses if a.version == address.version)
    gateway = f"via {route.gateway} " if route.gateway else ""
    return f"{address} {gateway}dev {uplink.name} src {own or 'none'}"


def shared_addresses(tunnel: Tunnel, facts: Facts) -> str:
    """Return the addresses that both the tunnel and an uplink have, with the uplink's name."""
    own = {address.ip for address in tunnel.addresses}
    return ", ".join(
        f"{address.ip} on {uplink.name}"
        for uplink in facts.uplinks
        for address in uplink.addresses
        if address.ip in own
    )


def obstacle(tunnel: Tunnel, facts: Facts) -> str:
    """Return why no interface for `tunnel` is built in a namespace like `facts`; empty if it is."""
    for endpoint in tunnel.endpoints:
        if uplink_to(endpoint.address, facts) is None:
            return f"no uplink has a route to the endpoint: {endpoint}"
    if shared := shared_addresses(tunnel, facts):
        return f"the tunnel's address is an uplink's too; {TWO_ADDRESSES}: {shared}"
    return ""
