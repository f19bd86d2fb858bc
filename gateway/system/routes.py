"""The gateway's routing tables and policy rules in the kernel, compared with those wanted.

A table is made right by adding and only then deleting, `unreachable` ends and catch-all rules
first, so that at no moment a packet finds less in its way than before or after.
"""

import errno
import socket
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Network
from typing import Any

from gateway.errors import NetworkError
from gateway.model import Network, Protocol
from gateway.policy.routing import (
    DEFAULTS,
    PRIORITY_FIRST,
    PRIORITY_LAST,
    TABLE_MAIN,
    TABLE_UPLINKS,
)
from gateway.policy.tables import Routing
from gateway.system import applied, route_reading
from gateway.system.features import has_ipv6
from gateway.system.netlink import (
    HEADER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    Netlink,
    message,
    undisturbed,
)
from gateway.system.route_messages import (
    RTN_UNICAST,
    RTN_UNREACHABLE,
    KernelRoute,
    KernelRule,
    RuleMessage,
    route_message,
    rule_message,
    rules_in,
)
from gateway.system.route_reading import RTMSG, MainTable, routes_in, table_of

PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
IPV6_DEFAULT_METRIC = 1024
"""What the kernel makes of metric 0 for IPv6 (IP6_RT_PRIO_USER)."""
NO_SUCH_LINK = 0x7FFFFFFF
UPLINK_TABLES = 0xFFFF0000
"""The part of a table's number that says whether it is an uplink's."""
TABLE_LOCAL = 255
OTHER_TABLES = {253, TABLE_MAIN, TABLE_LOCAL}
"""The tables of the kernel: default, main and local (linux/rtnetlink.h)."""
ROUNDS = 3
"""How often adding and deleting is tried; see `apply`."""


def main_table(rtnl: Netlink, names: Mapping[int, str]) -> MainTable:
    """Return the unicast routes of the main table that leave by the links in `names`."""
    return undisturbed(lambda: route_reading.main_table(_listed(rtnl, TABLE_MAIN), names))


def apply(rtnl: Netlink, wanted: Routing) -> None:
    """Make the owned tables and the band of priorities hold exactly `wanted`, and read back.

    Deleting a rule of others may hit one of ours that says more, because the kernel takes what a
    request leaves out for "any" (net/core/fib_rules.c, rule_find); the next round adds it again,
    behind the other, which is then the one that is hit.
    """
    left: tuple[str, ...] = ()
    for _ in range(ROUNDS + 1):
        present = _owned_routes(rtnl, wanted)
        left = _differences(rtnl, present.keys(), _owned_rules(rtnl).keys(), wanted)
        if not left:
            return
        added = _add_missing(rtnl, wanted, present.keys())
        _delete_surplus(rtnl, wanted, {r: b for r, b in present.items() if r.key not in added})
    raise NetworkError("set routing: " + "; ".join(left))


def _add_missing(
    rtnl: Netlink, wanted: Routing, present: AbstractSet[KernelRoute]
) -> set[tuple[Network, int, int]]:
    """Add what is missing; return the keys of the routes that were added, or replaced."""
    routes, rules = _wanted(rtnl, wanted)
    ends = {route for route in routes if route.kind == RTN_UNREACHABLE}
    _add_routes(rtnl, ends - present, present)
    for rule in sorted(rules - set(_owned_rules(rtnl)), key=lambda r: (-r.priority, str(r))):
        # Without NLM_F_EXCL: the kernel would take a rule that says more for the same.
        rtnl.change("add rule", str(rule), rule_message(rule), RTM_NEWRULE, NLM_F_CREATE)
        applied.show(partial(rule.commands, "add"))
    _add_routes(rtnl, routes - ends - present, present)
    return {route.key for route in routes - present}


def _delete_surplus(rtnl: Netlink, wanted: Routing, present: Mapping[KernelRoute, bytes]) -> None:
    routes, rules = _wanted(rtnl, wanted)
    for rule, entry in _owned_rules(rtnl).items():
        if rule not in rules:
            rtnl.send("delete rule", str(rule), bytes(entry.data[HEADER.size :]), RTM_DELRULE)
            applied.show(partial(rule.commands, "delete"))
    surplus = {body: route for route, body in present.items() if route not in routes}
    named = dict(zip(surplus, _named(rtnl, surplus.values()), strict=True))
    for body, route in named.items():  # one for each message, though it may have several hops
        rtnl.send("delete route", str(route), body, RTM_DELROUTE)
        applied.show(partial(route.commands, "delete"))


def has_all(rtnl: Netlink, wanted: Routing) -> bool:
    """Return whether the kernel has all of `wanted`; it may have more."""
    routes, rules = _wanted(rtnl, wanted)
    return routes <= _owned_routes(rtnl, wanted).keys() and rules <= _owned_rules(rtnl).keys()


def drift(rtnl: Netlink, wanted: Routing) -> tuple[str, ...]:
    """Return what is missing and what is surplus, one line each."""
    return _differences(rtnl, _owned_routes(rtnl, wanted).keys(), _owned_rules(rtnl).keys(), wanted)


def all_routes(rtnl: Netlink) -> Iterator[KernelRoute]:
    """Yield the routes of all tables but the local one, for people: a list may change meanwhile.

    Raises NetworkError.
    """
    names = rtnl.netns.links()
    for body in _listed(rtnl):
        if body[4] != TABLE_LOCAL:
            for route in routes_in(body):
                yield replace(route, link=names.get(route.index or 0, ""))


def all_rules(rtnl: Netlink) -> list[KernelRule]:
    """Return the policy rules of both families in the order of their priorities; NetworkError."""
    return sorted(_rules(rtnl), key=lambda rule: (rule.version, rule.priority))


def _named(rtnl: Netlink, routes: Collection[KernelRoute]) -> list[KernelRoute]:
    """Return `routes` with the names of their links, for messages."""
    names = rtnl.netns.links() if routes else {}
    return [replace(route, link=names.get(route.index or 0, "")) for route in routes]


def _differences(
    rtnl: Netlink,
    present: AbstractSet[KernelRoute],
    present_rules: AbstractSet[KernelRule],
    wanted: Routing,
) -> tuple[str, ...]:
    routes, rules = _wanted(rtnl, wanted)
    others = _named(rtnl, present - routes)
    missing = [f"missing: ip {thing}" for thing in (*(routes - present), *(rules - present_rules))]
    surplus = [f"surplus: ip {thing}" for thing in (*others, *(present_rules - rules))]
    return (*sorted(missing), *sorted(surplus))


def _add_routes(
    rtnl: Netlink, routes: AbstractSet[KernelRoute], present: AbstractSet[KernelRoute]
) -> None:
    keys = {route.key for route in present}
    for route in sorted(routes, key=str):
        if route.index == NO_SUCH_LINK:
            raise NetworkError("add route: its link is not there", str(route), errno.ENODEV)
        flags = NLM_F_CREATE | (NLM_F_REPLACE if route.key in keys else NLM_F_EXCL)
        rtnl.change("add route", str(route), route_message(route), RTM_NEWROUTE, flags)
        applied.show(partial(route.commands, "replace" if route.key in keys else "add"))


def _wanted(rtnl: Netlink, wanted: Routing) -> tuple[set[KernelRoute], set[KernelRule]]:
    """Translate `wanted` into what the kernel should list; IPv6 only where the kernel has it."""
    indexes = {name: index for index, name in rtnl.netns.links().items()}
    versions = {4, 6} if has_ipv6() else {4}
    routes = {
        KernelRoute(
            route.destination,
            route.table,
            route.metric
            or (IPV6_DEFAULT_METRIC if isinstance(route.destination, IPv6Network) else 0),
            RTN_UNREACHABLE if route.unreachable else RTN_UNICAST,
            indexes.get(route.interface, NO_SUCH_LINK) if route.interface else None,
            route.gateway,
            link=route.interface or "",
            source=route.source,
        )
        for route in wanted.routes
        if route.destination.version in versions
    }
    rules = {
        KernelRule(
            rule.family,
            rule.priority,
            rule.table,
            None if rule.fwmark is None else (rule.fwmark, rule.fwmask),
            rule.source or DEFAULTS[rule.family],
            rule.destination or DEFAULTS[rule.family],
            PROTOCOLS[rule.source_ports.protocol] if rule.source_ports else None,
            f"{rule.source_ports.first}:{rule.source_ports.last}" if rule.source_ports else None,
            rule.but_default,
        )
        for rule in wanted.rules
        if rule.family in versions
    }
    return routes, rules


def _owned_routes(rtnl: Netlink, wanted: Routing) -> dict[KernelRoute, bytes]:
    """Return the routes of the gateway's tables, with their messages.

    All tables are listed, because those of former uplinks are the gateway's too and the kernel
    takes one table for a filter. What is in the others is skipped by its table's number.
    """
    owned = frozenset(wanted.tables)

    def read() -> dict[KernelRoute, bytes]:
        return {
            route: body
            for body in _listed(rtnl)
            if body[4] not in OTHER_TABLES and _is_owned(table_of(body), owned)
            for route in routes_in(body)
        }

    return undisturbed(read)


def _is_owned(table: int, owned: frozenset[int]) -> bool:
    return table in owned or table & UPLINK_TABLES == TABLE_UPLINKS


def _listed(rtnl: Netlink, table: int = 0) -> Iterator[bytes]:
    """Yield the messages of all routes of both families, in `table` if it is not 0.

    Strictly, so that the kernel leaves out the routes that it cached for single destinations.
    """
    for family in [socket.AF_INET, *([socket.AF_INET6] if has_ipv6() else [])]:
        request = RTMSG.pack(family, 0, 0, 0, table, 0, 0, 0, 0)
        try:
            for body in rtnl.bodies("list routes", request, RTM_GETROUTE, strict=True):
                if len(body) >= RTMSG.size and body[0] == family:
                    yield body
        except NetworkError as err:
            if err.errno != errno.ENOENT:  # nothing has ever been put into the table
                raise


def _owned_rules(rtnl: Netlink) -> dict[KernelRule, Any]:
    """Return the policy rules of the gateway's band of priorities."""
    rules = _rules(rtnl).items()
    return {r: entry for r, entry in rules if PRIORITY_FIRST <= r.priority <= PRIORITY_LAST}


def _rules(rtnl: Netlink) -> dict[KernelRule, Any]:
    everything = message(RuleMessage, {"family": socket.AF_UNSPEC})
    entries = rtnl.dump("list rules", everything, RTM_GETRULE)
    return {rule: entry for entry in entries for rule in rules_in(entry)}
