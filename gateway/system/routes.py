"""The gateway's routing tables and policy rules in the kernel, compared with those wanted.

A table is made right by adding and only then deleting, `unreachable` ends and catch-all rules
first, so that at no moment a packet finds less in its way than before or after.
"""

import errno
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from gateway.errors import NetworkError
from gateway.model import Address, Network, Route
from gateway.policy.routing import (
    PRIORITY_FIRST,
    PRIORITY_LAST,
    TABLE_MAIN,
    TABLE_UPLINKS,
    Routing,
)
from gateway.system.kernel import has_ipv6
from gateway.system.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, message

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
RTN_UNICAST = 1
RTN_UNREACHABLE = 7
RTPROT_PORTCULLIS = 0x70
"""The origin that our routes and rules bear; nobody else uses it (iproute2, rt_protos)."""
ROUNDS = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTNH_F_ONLINK = 4
RT_TABLE_COMPAT = 252
"""What the one-byte table field says when the number is in the attribute (rtnetlink.h)."""
RTM_F_CLONED = 0x200
FR_ACT_TO_TBL = 1
WHOLE_MARK = 0xFFFFFFFF
IPV6_DEFAULT_METRIC = 1024
"""What the kernel makes of metric 0 for IPv6 (IP6_RT_PRIO_USER)."""

NO_SUPPRESSION = 0xFFFFFFFF
NO_SUCH_LINK = 0x7FFFFFFF
UPLINK_TABLES = 0xFFFF0000
"""The part of a table's number that says whether it is an uplink's."""

KNOWN_ROUTE_ATTRIBUTES = {
    *("RTA_TABLE", "RTA_PRIORITY", "RTA_DST", "RTA_OIF", "RTA_GATEWAY", "RTA_VIA"),
    *("RTA_CACHEINFO", "RTA_PREF"),
}
KNOWN_RULE_ATTRIBUTES = {
    *("FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_FWMARK", "FRA_FWMASK", "FRA_SRC"),
    *("FRA_DST", "FRA_SUPPRESS_PREFIXLEN"),
}
"""What the gateway sets or the kernel adds to everything; more makes it another route or rule."""

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
VERSIONS = {socket.AF_INET: 4, socket.AF_INET6: 6}
EVERYTHING: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True)
class KernelRoute:
    """A route as the kernel tells it; `extra` names whatever the gateway never sets."""

    destination: Network
    table: int
    metric: int
    kind: int
    index: int | None
    gateway: Address | None
    extra: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Network, int, int]:
        """What the kernel keeps apart: two routes that share it replace each other."""
        return (self.destination, self.table, self.metric)

    def __str__(self) -> str:
        words = ["unreachable" if self.kind == RTN_UNREACHABLE else "", str(self.destination)]
        words += [f"via {self.gateway}" if self.gateway else ""]
        words += [f"dev {_name(self.index)}" if self.index else ""]
        words += [f"table {self.table} metric {self.metric}", *self.extra]
        return f"-{self.destination.version} route " + " ".join(filter(None, words))


@dataclass(frozen=True)
class KernelRule:
    """A policy rule as the kernel tells it; `extra` names whatever the gateway never sets."""

    version: int
    priority: int
    table: int
    mark: tuple[int, int] | None
    source: Network
    destination: Network
    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"-{self.version} rule priority {self.priority} from {self.source}"]
        words += [f"to {self.destination}" if self.destination.prefixlen else ""]
        words += [f"fwmark {self.mark[0]:#x}/{self.mark[1]:#x}" if self.mark else ""]
        words += [f"table {self.table}", *self.extra]
        return " ".join(filter(None, words))


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
        rtnl.change("add rule", str(rule), _rule_message(rule), RTM_NEWRULE, NLM_F_CREATE)
    _add_routes(rtnl, routes - ends - present, present)


def _delete_surplus(rtnl: Netlink, wanted: Routing) -> None:
    routes, rules = _wanted(wanted)
    for rule, entry in _owned_rules(rtnl).items():
        if rule not in rules:
            rtnl.repeat("delete rule", str(rule), entry, RTM_DELRULE)
    for route, entry in _owned_routes(rtnl, wanted).items():
        if route not in routes:
            rtnl.repeat("delete route", str(route), entry, RTM_DELROUTE)


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
        rtnl.change("add route", str(route), _route_message(route), RTM_NEWROUTE, flags)


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
            None if rule.fwmark is None else (rule.fwmark, WHOLE_MARK),
            rule.source or EVERYTHING[rule.family],
            rule.destination or EVERYTHING[rule.family],
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


def _routes(rtnl: Netlink) -> Iterator[tuple[KernelRoute, Any]]:
    for entry in rtnl.dump(
        "list routes", message(rtmsg, {"family": socket.AF_UNSPEC}), RTM_GETROUTE
    ):
        if entry["family"] not in VERSIONS or entry["flags"] & RTM_F_CLONED:
            continue
        version = VERSIONS[entry["family"]]
        destination = entry.get_attr("RTA_DST")
        network = (
            ip_network(f"{destination}/{entry['dst_len']}") if destination else EVERYTHING[version]
        )
        rest = {slot[0] for slot in entry["attrs"]} - KNOWN_ROUTE_ATTRIBUTES
        rest |= {f"{field} {entry[field]}" for field in ("tos", "src_len") if entry[field]}
        unreachable = entry["type"] == RTN_UNREACHABLE
        for index, gateway in _hops(entry):
            yield (
                KernelRoute(
                    network,
                    entry.get_attr("RTA_TABLE") or entry["table"],
                    entry.get_attr("RTA_PRIORITY") or 0,
                    entry["type"],
                    None if unreachable else index,
                    gateway,
                    tuple(sorted(rest)),
                ),
                entry,
            )


def _hops(entry: Any) -> list[tuple[int | None, Address | None]]:
    """Return link and gateway of each next hop; most routes have one."""
    hops = entry.get_attr("RTA_MULTIPATH")
    if hops:
        return [(hop["oif"], _gateway(hop)) for hop in hops]
    return [(entry.get_attr("RTA_OIF"), _gateway(entry))]


def _gateway(hop: Any) -> Address | None:
    other_family = hop.get_attr("RTA_VIA")
    text = other_family["addr"] if other_family else hop.get_attr("RTA_GATEWAY")
    return ip_address(text) if text else None


def _owned_rules(rtnl: Netlink) -> dict[KernelRule, Any]:
    """Return the policy rules of the gateway's band of priorities."""
    entries = rtnl.dump("list rules", message(fibmsg, {"family": socket.AF_UNSPEC}), RTM_GETRULE)
    rules = ((_rule(entry), entry) for entry in entries if entry["family"] in VERSIONS)
    return {r: entry for r, entry in rules if PRIORITY_FIRST <= r.priority <= PRIORITY_LAST}


def _rule(entry: Any) -> KernelRule:
    version = VERSIONS[entry["family"]]
    rest = {slot[0] for slot in entry["attrs"]} - KNOWN_RULE_ATTRIBUTES
    rest |= {f"{field} {entry[field]}" for field in ("tos", "flags") if entry[field]}
    if entry["action"] != FR_ACT_TO_TBL:
        rest.add(f"action {entry['action']}")
    if entry.get_attr("FRA_SUPPRESS_PREFIXLEN") not in {None, NO_SUPPRESSION}:
        rest.add("suppress_prefixlength")
    mark = entry.get_attr("FRA_FWMARK")
    source, destination = entry.get_attr("FRA_SRC"), entry.get_attr("FRA_DST")
    return KernelRule(
        version,
        entry.get_attr("FRA_PRIORITY") or 0,
        entry.get_attr("FRA_TABLE") or entry["table"],
        None if mark is None else (mark, entry.get_attr("FRA_FWMASK")),
        ip_network(f"{source}/{entry['src_len']}") if source else EVERYTHING[version],
        ip_network(f"{destination}/{entry['dst_len']}") if destination else EVERYTHING[version],
        tuple(sorted(rest)),
    )


def _route_message(route: KernelRoute) -> Any:
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", route.table), ("RTA_PRIORITY", route.metric)]
    if route.destination.prefixlen:
        attributes.append(("RTA_DST", str(route.destination.network_address)))
    if route.index is not None:
        attributes.append(("RTA_OIF", route.index))
    family = FAMILIES[route.destination.version]
    if route.gateway and FAMILIES[route.gateway.version] == family:
        attributes.append(("RTA_GATEWAY", str(route.gateway)))
    elif route.gateway:
        via = {"family": FAMILIES[route.gateway.version], "addr": str(route.gateway)}
        attributes.append(("RTA_VIA", via))
    on_link = family == socket.AF_INET and route.kind == RTN_UNICAST and not route.gateway
    fields = {
        "family": family,
        "dst_len": route.destination.prefixlen,
        "table": RT_TABLE_COMPAT,
        "proto": RTPROT_PORTCULLIS,
        "scope": RT_SCOPE_LINK if on_link else RT_SCOPE_UNIVERSE,
        "type": route.kind,
        # Otherwise the kernel looks the gateway up by the policy rules, which lead into the tunnel.
        "flags": RTNH_F_ONLINK if route.gateway else 0,
    }
    return message(rtmsg, fields, attributes)


def _rule_message(rule: KernelRule) -> Any:
    attributes: list[tuple[str, Any]] = [
        ("FRA_TABLE", rule.table),
        ("FRA_PRIORITY", rule.priority),
        ("FRA_PROTOCOL", RTPROT_PORTCULLIS),
    ]
    if rule.mark:
        attributes += [("FRA_FWMARK", rule.mark[0]), ("FRA_FWMASK", rule.mark[1])]
    if rule.source.prefixlen:
        attributes.append(("FRA_SRC", str(rule.source.network_address)))
    if rule.destination.prefixlen:
        attributes.append(("FRA_DST", str(rule.destination.network_address)))
    fields = {
        "family": FAMILIES[rule.version],
        "src_len": rule.source.prefixlen,
        "dst_len": rule.destination.prefixlen,
        "table": RT_TABLE_COMPAT,
        "action": FR_ACT_TO_TBL,
    }
    return message(fibmsg, fields, attributes)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "(no such link)"
