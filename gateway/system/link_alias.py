"""What the alias of a link remembers of it: addresses and routes as text, and back.

In the words of ip(8). No kernel, standard library only.
"""

import shlex
import socket
import struct
import sys
from collections.abc import Collection
from ipaddress import ip_address, ip_interface, ip_network

from gateway.system.netlink import ATTRIBUTE

MARK = "set down by portcullis"
"""How the alias of a link begins that the gateway has set down."""

LONGEST_ALIAS = 255
"""IFALIASZ of linux/if.h, less the final zero."""

IFA_LOCAL, IFA_FLAGS = 2, 8
IFA_F_NODAD = 0x2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_RA = 2, 3, 9
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTNH_F_ONLINK = 0x4

ADDRESS = struct.Struct("=BBBBi")
ROUTE = struct.Struct("=BBBBBBBBI")

FAMILIES = {4: socket.AF_INET.value, 6: socket.AF_INET6.value}

LEFT_OUT = "and more"
"""The last entry of an alias that had no room for all."""


def fitting(entries: Collection[str]) -> str:
    """Return the alias that holds as many of `entries` as fit, in their order."""
    alias = MARK
    for entry in entries:
        if len(f"{alias}; {entry}; {LEFT_OUT}") > LONGEST_ALIAS:
            return f"{alias}; {LEFT_OUT}"
        alias = f"{alias}; {entry}"
    return alias


def route_text(fields: tuple[int, ...], attributes: dict[int, bytes]) -> str:
    """Return a route in the words of ip(8); `route_message` reads them."""
    family, length, *_ = fields
    flags = fields[8]
    destination = attributes.get(RTA_DST, bytes(4 if family == FAMILIES[4] else 16))
    network = f"{ip_address(destination)}/{length}"
    words = [f"default-{4 if family == FAMILIES[4] else 6}" if length == 0 else network]
    if RTA_GATEWAY in attributes:
        words += ["via", str(ip_address(attributes[RTA_GATEWAY]))]
    if RTA_PREFSRC in attributes:
        words += ["src", str(ip_address(attributes[RTA_PREFSRC]))]
    if metric := number(attributes, RTA_PRIORITY):
        words += ["metric", str(metric)]
    return " ".join([*words, *(["onlink"] if flags & RTNH_F_ONLINK else [])])


def route_message(text: str, index: int) -> bytes:
    """Return the body of RTM_NEWROUTE for a route as `route_text` writes it, by link `index`.

    Raises ValueError for anything else.
    """
    destination, *words = text.split()
    onlink = words[-1:] == ["onlink"]
    options = dict(zip(*[iter(words[: -1 if onlink else None])] * 2, strict=True))
    default = {"default-4": "0.0.0.0/0", "default-6": "::/0"}.get(destination, destination)
    network = ip_network(default)
    body = ROUTE.pack(
        FAMILIES[network.version],
        network.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        RT_SCOPE_UNIVERSE if "via" in options else RT_SCOPE_LINK,
        RTN_UNICAST,
        RTNH_F_ONLINK if onlink else 0,
    )
    body += attribute(RTA_OIF, struct.pack("=i", index))
    if network.prefixlen:
        body += attribute(RTA_DST, network.network_address.packed)
    if "via" in options:
        body += attribute(RTA_GATEWAY, ip_address(options["via"]).packed)
    if "src" in options:
        body += attribute(RTA_PREFSRC, ip_address(options["src"]).packed)
    if "metric" in options:
        body += attribute(RTA_PRIORITY, struct.pack("=I", int(options["metric"])))
    return body


def address_message(text: str, index: int) -> bytes:
    """Return the body of RTM_NEWADDR for `address ADDRESS/LENGTH` on link `index`.

    Raises ValueError for anything else. Without duplicate address detection: it had the address.
    """
    interface = ip_interface(text.removeprefix("address "))
    body = ADDRESS.pack(FAMILIES[interface.version], interface.network.prefixlen, 0, 0, index)
    body += attribute(IFA_LOCAL, interface.ip.packed)
    return body + attribute(IFA_FLAGS, struct.pack("=I", IFA_F_NODAD))


def command_of(entry: str, link: str) -> str:
    """Return the command of ip(8) that puts back what an alias's `entry` has, on `link`."""
    link = shlex.quote(link)  # any name is possible here, also one that no rule can carry
    if entry.startswith("address "):
        return f"ip {entry.replace(' ', ' add ', 1)} dev {link} nodad"
    default = {"default-4": "-4 route add default", "default-6": "-6 route add default"}
    destination, *options = entry.split()
    version = ip_network(destination).version if destination not in default else 0
    words = default.get(destination, f"-{version} route add {destination}")
    return " ".join(["ip", words, "dev", link, *options])


def attribute(kind: int, value: bytes) -> bytes:
    """Return one netlink attribute, padded to four bytes (netlink(7))."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def is_kept(fields: tuple[int, ...], *, has_gateway: bool) -> bool:
    """Return whether a route has to be remembered: the kernel makes its own again by itself.

    One that a router has advertised is kept for its gateway: advertisements are accepted only from
    gateways in use.
    """
    table, protocol, kind = fields[4], fields[5], fields[7]
    return (
        table == RT_TABLE_MAIN
        and kind == RTN_UNICAST
        and (protocol != RTPROT_RA or has_gateway)
        and protocol != RTPROT_KERNEL
    )


def number(attributes: dict[int, bytes], kind: int) -> int:
    """Return the number in the attribute `kind`, 0 where there is none."""
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)
