"""Routes read from the bytes of rtnetlink(7), without pyroute2, because a neighbour can make many.

A router advertisement can add routes to the main table, one for each prefix (RFC 4861, section
6.3.4), and the kernel has no limit on their number (net.ipv6.route.max_size has none since Linux
6.3). Here a route that is not needed costs about a microsecond and no memory.
"""

import errno
import heapq
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from gateway.errors import NetworkError
from gateway.model import Address, Network
from gateway.model.frozen import frozen
from gateway.policy.facts import Route
from gateway.policy.routing import TABLE_MAIN
from gateway.system.netlink import attributes_in
from gateway.system.route_messages import (
    RT_TABLE_COMPAT,
    RTM_F_CLONED,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    KernelRoute,
)

RTMSG = struct.Struct("=8BI")
"""struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type,
flags (linux/rtnetlink.h)."""

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_PREF = 9, 12, 15, 18, 20
KNOWN = {
    *(RTA_TABLE, RTA_PRIORITY, RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_VIA),
    *(RTA_PREFSRC, RTA_CACHEINFO, RTA_PREF),
}
"""What the gateway sets or the kernel adds to every route; more makes it a different route."""

NAMES = {8: "with metrics", RTA_MULTIPATH: "nexthop", 22: "encap", 30: "nhid"}
"""How ip-route(8) calls what the gateway never sets."""

VERSIONS: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 6}

NEXT_HOP = struct.Struct("=HBBi")
"""struct rtnexthop (linux/rtnetlink.h)."""

EXPIRES = slice(8, 12)
"""Where struct rta_cacheinfo says for how long the route is valid; 0 for ever."""
RTPROT_RA = 9
"""The origin of routes that a router advertised (linux/rtnetlink.h)."""

MOST_ROUTES = 500
MOST_ROUTERS = 16
"""Routes of the main table, and routers of one link, that the gateway reads."""

Attributes = Mapping[int, bytes]
Hop = tuple[int, Address | None]


@frozen
class MainTable:
    """The `routes` of the main table, and the link-local `routers` of each link, by its name.

    `is_whole` is False when there are more routes than MOST_ROUTES. Those that were advertised,
    which expire, are then left out first, and after them those with the longest prefixes.
    """

    routes: tuple[Route, ...]
    routers: Mapping[str, tuple[IPv6Address, ...]]
    is_whole: bool


def routes_in(body: bytes) -> Iterator[KernelRoute]:
    """Yield the routes of one message: one for each next hop, none for a cached one.

    Raises NetworkError for a message that makes no sense.
    """
    try:
        yield from _routes_in(body)
    except (ValueError, IndexError, struct.error) as err:
        raise NetworkError(f"list routes: a message cannot be read ({err})", "") from err


def table_of(body: bytes) -> int:
    """Return the number of the table that the route is in. Raises NetworkError."""
    if len(body) < RTMSG.size:
        raise NetworkError("list routes: a message is too short", "", errno.EBADMSG)
    if body[4] != RT_TABLE_COMPAT:
        return body[4]
    return _number(attributes_in(body, RTMSG.size).get(RTA_TABLE)) or RT_TABLE_COMPAT


def main_table(bodies: Iterable[bytes], names: Mapping[int, str]) -> MainTable:
    """Return the unicast routes of the main table that leave by the links in `names`.

    Of several gateways on one link that share a route, only the first counts as a route, and all
    of them as routers. Raises NetworkError.
    """
    try:
        kept = heapq.nsmallest(MOST_ROUTES + 1, _by_importance(bodies, names), key=lambda it: it[0])
        is_whole = len(kept) <= MOST_ROUTES
        kept = sorted(kept[:MOST_ROUTES], key=lambda it: it[1])
        return _table(
            ((_route(*entry), hop) for _, _, entry, hop in kept), names, is_whole=is_whole
        )
    except (ValueError, IndexError, struct.error) as err:
        raise NetworkError(f"list routes: a message cannot be read ({err})", "") from err


_Entry = tuple[int, int, bytes, int]
"""Family, prefix length, address and metric of a route."""
_Rank = tuple[bool, int, bytes, int]


def _by_importance(
    bodies: Iterable[bytes], names: Mapping[int, str]
) -> Iterator[tuple[_Rank, int, _Entry, Hop]]:
    """Yield what is needed of each route, its rank and its place in the list first."""
    place = 0
    for body in bodies:
        # Judged by two bytes first: of a flood in another table nothing else is read.
        if body[4] != TABLE_MAIN or body[7] != RTN_UNICAST:
            continue
        family, length, _, _, _, origin, _, _, flags = RTMSG.unpack_from(body)
        if family not in VERSIONS or flags & RTM_F_CLONED:
            continue
        found = attributes_in(body, RTMSG.size)
        address, metric = found.get(RTA_DST, b""), _number(found.get(RTA_PRIORITY))
        is_lent = origin == RTPROT_RA or bool(_number(found.get(RTA_CACHEINFO, b"")[EXPIRES]))
        for hop in _hops(found):
            if hop[0] in names:
                place += 1
                rank = (is_lent, length, address, metric)
                yield rank, place, (family, length, address, metric), hop


def _table(
    found: Iterable[tuple[tuple[Network, int], Hop]], names: Mapping[int, str], *, is_whole: bool
) -> MainTable:
    routes: dict[tuple[Network, str, int], Route] = {}
    routers: dict[str, dict[IPv6Address, None]] = {}
    for (destination, metric), (index, gateway) in found:
        route = Route(destination, names[index], gateway, metric)
        routes.setdefault((destination, route.interface, metric), route)
        if isinstance(gateway, IPv6Address) and gateway.is_link_local:
            routers.setdefault(route.interface, {})[gateway] = None
    few = {name: tuple(sorted(found)[:MOST_ROUTERS]) for name, found in routers.items()}
    return MainTable(tuple(routes.values()), few, is_whole)


def _route(family: int, length: int, address: bytes, metric: int) -> tuple[Network, int]:
    return _network(VERSIONS[family], length, address), metric


def _routes_in(body: bytes) -> Iterator[KernelRoute]:
    family, length, source, tos, table, _, _, kind, flags = RTMSG.unpack_from(body)
    if family not in VERSIONS or flags & RTM_F_CLONED:
        return
    found = attributes_in(body, RTMSG.size)
    extra = {NAMES.get(number, f"attribute {number}") for number in found.keys() - KNOWN}
    extra |= {f"{word} {value}" for word, value in (("tos", tos), ("from /", source)) if value}
    own = found.get(RTA_PREFSRC)
    for index, gateway in _hops(found):
        yield KernelRoute(
            _network(VERSIONS[family], length, found.get(RTA_DST, b"")),
            _number(found.get(RTA_TABLE)) or table,
            _number(found.get(RTA_PRIORITY)),
            kind,
            None if kind == RTN_UNREACHABLE else index or None,
            gateway,
            tuple(sorted(extra)),
            source=ip_address(own) if own else None,
        )


def _hops(found: Attributes) -> list[Hop]:
    """Return link and gateway of each next hop; most routes have one."""
    hops = found.get(RTA_MULTIPATH)
    if hops is None:
        return [(_number(found.get(RTA_OIF)), _gateway(found))]
    listed: list[Hop] = []
    start = 0
    while start + NEXT_HOP.size <= len(hops):
        length, _, _, index = NEXT_HOP.unpack_from(hops, start)
        if length < NEXT_HOP.size or start + length > len(hops):
            raise ValueError("a next hop is longer than its message")
        listed.append((index, _gateway(attributes_in(hops[start : start + length], NEXT_HOP.size))))
        start += length + -length % 4
    return listed


def _gateway(found: Attributes) -> Address | None:
    other_family = found.get(RTA_VIA)
    packed = other_family[2:] if other_family else found.get(RTA_GATEWAY)
    return ip_address(packed) if packed else None


def _network(version: int, length: int, address: bytes) -> Network:
    number = int.from_bytes(address, "big")
    return (IPv6Network if version == 6 else IPv4Network)((number, length))  # noqa: PLR2004


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "little" if _LITTLE else "big")


_LITTLE = struct.pack("=H", 1) == b"\1\0"
