"""The gateway's routing tables and policy rules in the kernel, compared with those wanted.

A table is made right by adding and only then deleting, `unreachable` ends and catch-all rules
first, so that at no moment a packet finds less in its way than before or after.
"""

import errno
import socket
from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Any

from pyroute2.netlink.rtnl.rtmsg import rtmsg

from gateway.errors import NetworkError
from gateway.model import Network, Protocol, Route
from gateway.policy.routing import (
    DEFAULTS,
    PRIORITY_FIRST,
    PRIORITY_LAST,
    TABLE_MAIN,
    TABLE_UPLINKS,
    Routing,
)
from gateway.system.kernel import has_ipv6
from gateway.system.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, message
from gateway.system.route_messages import (
    RTN_UNICAST,
    RTN_UNREACHABLE,
    KernelRoute,
    KernelRule,
    RuleMessage,
    route_message,
    routes_in,
    rule_message,
    rules_in,
)

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}
IPV6_DEFAULT_METRIC = 1024
"""What the kernel makes of metric 0 for IPv6 (IP6_RT_PRIO_USER)."""
NO_SUCH_LINK = 0x7FFFFFFF
UPLINK_TABLES = 0xFFFF0000
"""The part of a table's number that says whether it is an uplink's."""
ROUNDS = 3
"""How often adding and deleting is tried; see `apply`."""


def main_table(rtnl: Netlink, names: Mapping[int, str]) -> tuple[Route, ...]:
    """Return the unicast routes of the main table that leave by the links in `names`.

    Of several gateways on one link that share a route, only the first is told.
    """
    found: dict[tuple[Network, str, int], Route] = {}
    for route, _ in _routes(rtnl):
        name = names.get(route.index or 0)
        if name and route.table == TABLE_MAIN and route.kind == RTN_UNICAST:
            told = Route(route.destination, name, route.gateway, route.metric)
            found.setdefault((told.destination, name, told.metric), told)
    return tuple(found.values())


def apply(rtnl: Netlink, wanted: Routing) -> None:
    """Make the owned tables and the band of priorities hold exactly `wanted`, and read back.

    Deleting a rule of others may hit one of ours that says more, because the kernel takes what a
    request leaves out for "any" (net/core/fib_rules.c, rule_find); the next round adds it again,
    behind the other, which is then the one that is hit.
    """
    left: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        _add_missing(rtnl, wanted)
        _delete_surplus(rtnl, wanted)
        left = drift(rtnl, wanted)
        if not left:
            return
    raise NetworkError("set routing: " + "; ".join(left))


def _add_missing(rtnl: Netlink, wanted: Routing) -> None:
    routes, rules = _wanted(wanted)
    ends = {route for route in routes if route.kind == RTN_UNREACHABLE}
    present = set(_owned_routes(rtnl, wanted))
    _add_routes(rtnl, ends - present, present)
    for rule in sorted(rules - set(_owned_rules(rtnl)), key=lambda r: (-r.priority, str(r))):
        # Without NLM_F_EXCL: the kernel would take a rule that says more for the same.
        rtnl.change("add rule", str(rule), rule_message(rule), RTM_NEWRULE, NLM_F_CREATE)
    _add_routes(rtnl, routes - ends - present, present)


def _delete_surplus(rtnl: Netlink, wanted: Routing) -> None:
    routes, rules = _wanted(wanted)
    for rule, entry in _owned_rules(rtnl).items():
        if rule not in rules:
            rtnl.repeat("delete rule", str(rule), entry, RTM_DELRULE)
    for route, entry in _owned_routes(rtnl, wanted).items():
        if route not in routes:
            rtnl.repeat("delete route", str(route), entry, RTM_DELROUTE)


def stands(rtnl: Netlink, wanted: Routing) -> bool:
    """Say whether the kernel holds all of `wanted`, whatever it holds beside it."""
    routes, rules = _wanted(wanted)
    return routes <= _owned_routes(rtnl, wanted).keys() and rules <= _owned_rules(rtnl).keys()


def drift(rtnl: Netlink, wanted: Routing) -> tuple[str, ...]:
    """Return what is missing and what is surplus, one line each."""
    routes, rules = _wanted(wanted)
    present, standing = set(_owned_routes(rtnl, wanted)), set(_owned_rules(rtnl))
    missing = [f"missing: ip {thing}" for thing in (*(routes - present), *(rules - standing))]
    surplus = [f"surplus: ip {thing}" for thing in (*(present - routes), *(standing - rules))]
    return (*sorted(missing), *sorted(surplus))


def _add_routes(rtnl: Netlink, routes: set[KernelRoute], present: set[KernelRoute]) -> None:
    keys = {route.key for route in present}
    for route in sorted(routes, key=str):
        if route.index == NO_SUCH_LINK:
            raise NetworkError("add route: its link is not there", str(route), errno.ENODEV)
        flags = NLM_F_CREATE | (NLM_F_REPLACE if route.key in keys else NLM_F_EXCL)
        rtnl.change("add route", str(route), route_message(route), RTM_NEWROUTE, flags)


def _wanted(wanted: Routing) -> tuple[set[KernelRoute], set[KernelRule]]:
    """Translate `wanted` into what the kernel should tell, less IPv6 where there is none."""
    indexes = {name: index for index, name in socket.if_nameindex()}
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


def _owned_routes(rtnl: Netlink, wanted: Routing) -> dict[KernelRoute, Any]:
    """Return the routes of the gateway's tables, those of former uplinks included."""
    return {
        route: entry
        for route, entry in _routes(rtnl)
        if route.table in wanted.tables or route.table & UPLINK_TABLES == TABLE_UPLINKS
    }


def _routes(rtnl: Netlink) -> list[tuple[KernelRoute, Any]]:
    everything = message(rtmsg, {"family": socket.AF_UNSPEC})
    entries = rtnl.dump("list routes", everything, RTM_GETROUTE)
    return [(route, entry) for entry in entries for route in routes_in(entry)]


def _owned_rules(rtnl: Netlink) -> dict[KernelRule, Any]:
    """Return the policy rules of the gateway's band of priorities."""
    everything = message(RuleMessage, {"family": socket.AF_UNSPEC})
    entries = rtnl.dump("list rules", everything, RTM_GETRULE)
    rules = [(rule, entry) for entry in entries for rule in rules_in(entry)]
    return {r: entry for r, entry in rules if PRIORITY_FIRST <= r.priority <= PRIORITY_LAST}
