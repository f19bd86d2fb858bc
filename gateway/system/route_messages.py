"""Routes and policy rules as messages of rtnetlink(7): read, and written."""

import socket
from collections.abc import Iterator
from dataclasses import field
from ipaddress import ip_network
from typing import Any

from gateway.model import Address, Network
from gateway.model.frozen import frozen
from gateway.policy.routing import DEFAULTS
from gateway.system.messages import fibmsg, nlmsg, rtmsg
from gateway.system.netlink import message

RTN_UNICAST = 1
RTN_UNREACHABLE = 7
RTPROT_PORTCULLIS = 0x70
"""The origin of our routes and rules; no other program uses it (iproute2, rt_protos)."""
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTNH_F_ONLINK = 4
RTM_F_CLONED = 0x200
RT_TABLE_COMPAT = 252
"""What the one-byte table field says when the number is in the attribute (rtnetlink.h)."""
FR_ACT_TO_TBL = 1
NO_SUPPRESSION = 0xFFFFFFFF

KNOWN_RULE_ATTRIBUTES = {
    *("FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_FWMARK", "FRA_FWMASK", "FRA_SRC"),
    *("FRA_DST", "FRA_SUPPRESS_PREFIXLEN", "FRA_IP_PROTO", "FRA_SPORT_RANGE", "FRA_SPORT_MASK"),
}
"""What the gateway sets or the kernel adds to everything; more makes it another route or rule."""

WHOLE_PORT = 0xFFFF
"""The mask that the kernel reports for a range of one port (since Linux 6.15)."""

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
VERSIONS = {socket.AF_INET: 4, socket.AF_INET6: 6}


class RuleMessage(nlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A policy rule with the attribute of linux/fib_rules.h that pyroute2 does not know.

    No subclass of `fibmsg`: once that has read a message, its subclasses take its table of
    attributes for their own.
    """

    prefix = fibmsg.prefix
    fields = fibmsg.fields
    port_range = fibmsg.port_range
    uid_range = fibmsg.uid_range
    nla_map = (*fibmsg.nla_map, (28, "FRA_SPORT_MASK", "uint16"))


@frozen
class KernelRoute:
    """A route as the kernel lists it; `extra` names whatever the gateway never sets.

    `link` is the name of the link with the `index`, for messages; only its namespace knows it.
    """

    destination: Network
    table: int
    metric: int
    kind: int
    index: int | None
    gateway: Address | None
    extra: tuple[str, ...] = ()
    link: str = field(default="", compare=False)
    source: Address | None = None

    @property
    def key(self) -> tuple[Network, int, int]:
        """What the kernel keeps apart: two routes that share it replace each other."""
        return (self.destination, self.table, self.metric)

    def __str__(self) -> str:
        words = ["unreachable" if self.kind == RTN_UNREACHABLE else "", str(self.destination)]
        words += [f"via {self.gateway}" if self.gateway else ""]
        words += [f"dev {self.link or '(no such link)'}" if self.index else ""]
        words += [f"src {self.source}" if self.source else ""]
        words += [f"table {self.table} metric {self.metric}", *self.extra]
        return f"-{self.destination.version} route " + " ".join(filter(None, words))

    def commands(self, verb: str) -> tuple[str]:
        """Return the command of ip(8) that does `verb` (add, replace, delete) with this route."""
        own = "" if verb == "delete" else f" proto {RTPROT_PORTCULLIS}"
        return (f"ip {self}{own}".replace(" route ", f" route {verb} ", 1),)


@frozen
class KernelRule:
    """A policy rule as the kernel lists it; `extra` names whatever the gateway never sets.

    `source_ports` is FIRST:LAST, as pyroute2 writes a range.
    """

    version: int
    priority: int
    table: int
    mark: tuple[int, int] | None
    source: Network
    destination: Network
    protocol: int | None = None
    source_ports: str | None = None
    but_default: bool = False
    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"-{self.version} rule priority {self.priority} from {self.source}"]
        words += [f"to {self.destination}" if self.destination.prefixlen else ""]
        words += [f"fwmark {self.mark[0]:#x}/{self.mark[1]:#x}" if self.mark else ""]
        words += [f"ipproto {self.protocol}" if self.protocol else ""]
        words += [f"sport {self.source_ports.replace(':', '-')}" if self.source_ports else ""]
        words += [f"table {self.table}", "suppress_prefixlength 0" if self.but_default else ""]
        return " ".join(filter(None, [*words, *self.extra]))

    def commands(self, verb: str) -> tuple[str]:
        """Return the command of ip(8) that does `verb` (add, delete) with this rule."""
        own = "" if verb == "delete" else f" protocol {RTPROT_PORTCULLIS}"
        return (f"ip {self}{own}".replace(" rule ", f" rule {verb} ", 1),)


def rules_in(entry: Any) -> Iterator[KernelRule]:
    """Yield the policy rule in a message, or none if it is of another family."""
    if entry["family"] not in VERSIONS:
        return
    rest = {slot[0] for slot in entry["attrs"]} - KNOWN_RULE_ATTRIBUTES
    rest |= {f"{field} {entry[field]}" for field in ("tos", "flags") if entry[field]}
    if entry["action"] != FR_ACT_TO_TBL:
        rest.add(f"action {entry['action']}")
    if entry.get_attr("FRA_SUPPRESS_PREFIXLEN") not in {None, 0, NO_SUPPRESSION}:
        rest.add("suppress_prefixlength")
    if entry.get_attr("FRA_SPORT_MASK") not in {None, WHOLE_PORT}:
        rest.add("a part of the source port")
    mark = entry.get_attr("FRA_FWMARK")
    yield KernelRule(
        VERSIONS[entry["family"]],
        entry.get_attr("FRA_PRIORITY") or 0,
        entry.get_attr("FRA_TABLE") or entry["table"],
        None if mark is None else (mark, entry.get_attr("FRA_FWMASK")),
        _network(entry, "FRA_SRC", "src_len"),
        _network(entry, "FRA_DST", "dst_len"),
        entry.get_attr("FRA_IP_PROTO"),
        entry.get_attr("FRA_SPORT_RANGE"),
        entry.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0,
        tuple(sorted(rest)),
    )


def route_message(route: KernelRoute) -> Any:
    """Return the message that adds `route`."""
    attributes: list[tuple[str, Any]] = [("RTA_TABLE", route.table), ("RTA_PRIORITY", route.metric)]
    if route.destination.prefixlen:
        attributes.append(("RTA_DST", str(route.destination.network_address)))
    if route.index is not None:
        attributes.append(("RTA_OIF", route.index))
    if route.source:
        attributes.append(("RTA_PREFSRC", str(route.source)))
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


def rule_message(rule: KernelRule) -> Any:
    """Return the message that adds `rule`."""
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
    if rule.protocol:
        attributes.append(("FRA_IP_PROTO", rule.protocol))
    if rule.source_ports:
        attributes.append(("FRA_SPORT_RANGE", rule.source_ports))
    if rule.but_default:
        attributes.append(("FRA_SUPPRESS_PREFIXLEN", 0))
    fields = {
        "family": FAMILIES[rule.version],
        "src_len": rule.source.prefixlen,
        "dst_len": rule.destination.prefixlen,
        "table": RT_TABLE_COMPAT,
        "action": FR_ACT_TO_TBL,
    }
    return message(RuleMessage, fields, attributes)


def _network(entry: Any, attribute: str, length: str) -> Network:
    address = entry.get_attr(attribute)
    if not address:
        return DEFAULTS[VERSIONS[entry["family"]]]
    return ip_network(f"{address}/{entry[length]}")
