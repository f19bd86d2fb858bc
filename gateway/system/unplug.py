"""Links set down because they could not be closed, and set up again once they are.

Standard library only, and no new descriptor once it is made: neither a missing library nor an
exhausted table of descriptors may keep a link up.

A link that goes down loses its routes and, of its addresses, those of IPv6 (net/ipv6/addrconf.c,
addrconf_ifdown). So what it had is written into the link's own alias first (IFLA_IFALIAS, shown by
`ip link`). The alias lives as long as the link, so a gateway that starts later in the same
namespace finds it too. It holds 255 bytes; what does not fit is left out, the default routes first
in, and what is left out is reported. Routes with several next hops are not kept, nor are metrics
such as a route's mtu.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from gateway.errors import is_shortage
from gateway.system import applied
from gateway.system.link_down import IFF_LOOPBACK, IFF_UP, REQUEST, SIOCGIFFLAGS, SIOCSIFFLAGS
from gateway.system.netlink import (
    ATTRIBUTE,
    HEADER,
    LARGEST_DATAGRAM,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attributes_in,
)

MARK = "set down by portcullis"
"""How the alias of a link begins that the gateway has set down."""

LONGEST_ALIAS = 255
"""IFALIASZ of linux/if.h, less the final zero."""

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
"""Message types of linux/rtnetlink.h."""


IFLA_IFNAME, IFLA_IFALIAS = 3, 20
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD, IFA_F_PERMANENT = 0x2, 0x80
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_RA = 2, 3, 9
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTNH_F_ONLINK = 0x4

LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBi")
ROUTE = struct.Struct("=BBBBBBBBI")
MOST_MESSAGES = 10_000
"""Messages of one dump that are read; a neighbour can make more routes than fit an alias."""
ANSWER_TIME = struct.pack("@ll", 1, 0)
"""One second (struct timeval) for an answer of the kernel, which is queued with the request."""

FAMILIES = {4: socket.AF_INET.value, 6: socket.AF_INET6.value}


@dataclass(frozen=True)
class Link:
    """A link as the kernel lists it."""

    index: int
    name: str
    flags: int
    alias: str

    @property
    def is_up(self) -> bool:
        """Whether it is up and not the loopback."""
        return self.flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP


class Unplug:
    """The switch for every link of the namespace; holds the sockets that it takes."""

    def __init__(self) -> None:
        """Open the sockets. Raises OSError."""
        self._ioctl = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtnl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        # Not settimeout(), with which Python waits for MSG_DONTWAIT too.
        self._rtnl.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, ANSWER_TIME)
        self._rtnl.bind((0, 0))
        self._pulled: set[int] = set()

    def close(self) -> None:
        """Close the sockets."""
        self._ioctl.close()
        self._rtnl.close()

    def pull(self, only: Collection[int] | None = None) -> tuple[str, ...]:
        """Set every link but the loopback down, or `only` those with these indexes.

        Return those of them that are still up. Raises OSError when the links could not be listed.
        """
        for link in self._links(only):
            if link.is_up:
                self._remember(link)
                self._pulled.add(link.index)
                with suppress(OSError):  # what did not work is seen by what is up afterwards
                    self._set_flags(link, link.flags & ~IFF_UP)
        return tuple(link.name for link in self._links(only) if link.is_up)

    def plug(self, but: Collection[int] = ()) -> tuple[str, ...]:
        """Set those links up again that a gateway has set down, `but` those with these indexes.

        To be called when the closed rules are in force. Return what could not be restored. Raises
        OSError when the links could not be listed.
        """
        problems: list[str] = []
        for link in self._links():
            if self._is_pulled(link) and link.index not in but:
                problems += self._restore(link)
                self._pulled.discard(link.index)
        return tuple(problems)

    def pulled(self) -> dict[int, str]:
        """Return the names of the links that a gateway has set down, by index. Raises OSError."""
        return {link.index: link.name for link in self._links() if self._is_pulled(link)}

    def _is_pulled(self, link: Link) -> bool:
        """Return whether a gateway has set `link` down: by its alias, or by our own memory."""
        return link.alias.startswith(MARK) or link.index in self._pulled

    def _remember(self, link: Link) -> None:
        """Write into the alias what `link` will lose; the last resort does not wait for it.

        An alias that is there already knows more: a gateway was killed while it restored the link.
        """
        if link.alias.startswith(MARK):
            return
        with suppress(Exception):  # whatever it is, the link has to go down
            entries = (*self._routes(link.index), *self._addresses(link.index))
            self._set_alias(link, fitting(entries))

    def _restore(self, link: Link) -> Iterator[str]:
        try:
            self._set_flags(link, link.flags | IFF_UP)
        except OSError as err:
            yield f"{link.name} stays down: {err.strerror}"
            return
        _, *entries = link.alias.split("; ")
        is_short = False
        # Addresses first: a gateway has to be on the link before a route can name it.
        for entry in sorted(entries, key=lambda entry: not entry.startswith("address")):
            try:
                self._put_back(link, entry)
            except (OSError, ValueError, struct.error) as err:
                is_short = is_short or is_shortage(err)
                yield f"{link.name}: {entry}: {err}"
        if not is_short:
            with suppress(OSError):
                self._set_alias(link, "")

    def _put_back(self, link: Link, entry: str) -> None:
        if entry == LEFT_OUT:
            raise ValueError("the alias had no room for it")
        flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
        kind, body = (
            (RTM_NEWADDR, address_message)
            if entry.startswith("address")
            else (
                RTM_NEWROUTE,
                route_message,
            )
        )
        try:
            self._ask(kind, flags, body(entry, link.index))
        except OSError as err:
            if err.errno != errno.EEXIST:
                raise
        else:
            applied.show(lambda: [command_of(entry, link.name)])

    def _links(self, only: Collection[int] | None = None) -> list[Link]:
        return [
            Link(
                index,
                os.fsdecode(attributes.get(IFLA_IFNAME, b"").rstrip(b"\0")),
                flags,
                attributes.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode("utf-8", "replace"),
            )
            for (_, _, index, flags, _), attributes in self._dump(RTM_GETLINK, LINK)
            if only is None or index in only
        ]

    def _routes(self, index: int) -> Iterator[str]:
        """Yield the routes that the kernel does not make by itself, default ones first."""
        found = [
            route_text(fields, attributes)
            for fields, attributes in self._dump(RTM_GETROUTE, ROUTE)
            if _number(attributes, RTA_OIF) == index
            and _is_kept(fields, has_gateway=RTA_GATEWAY in attributes)
        ]
        yield from sorted(found, key=lambda text: not text.startswith("default"))

    def _addresses(self, index: int) -> Iterator[str]:
        """Yield the addresses that the kernel forgets: those of IPv6 that are not its own."""
        for fields, attributes in self._dump(RTM_GETADDR, ADDRESS):
            family, length, short_flags, scope, owner = fields
            flags = _number(attributes, IFA_FLAGS) or short_flags
            if (family, scope, owner) == (FAMILIES[6], 0, index) and flags & IFA_F_PERMANENT:
                yield f"address {ip_address(attributes[IFA_ADDRESS])}/{length}"

    def _set_flags(self, link: Link, flags: int) -> None:
        request = REQUEST.pack(os.fsencode(link.name), flags & 0xFFFF)
        fcntl.ioctl(self._ioctl, SIOCSIFFLAGS, request)
        held = REQUEST.unpack(fcntl.ioctl(self._ioctl, SIOCGIFFLAGS, request))[1]
        if (held ^ flags) & IFF_UP:
            raise OSError(errno.EBUSY, "the link does not change")
        applied.show(lambda: [f"ip link set {link.name} {'up' if flags & IFF_UP else 'down'}"])

    def _set_alias(self, link: Link, alias: str) -> None:
        body = LINK.pack(0, 0, link.index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode())
        self._ask(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, body)
        applied.show(lambda: [f"ip link set {link.name} alias '{alias}'"])

    def _dump(
        self, kind: int, layout: struct.Struct
    ) -> Iterator[tuple[tuple[int, ...], dict[int, bytes]]]:
        """Yield the fixed part and the attributes of each message that answers a dump."""
        for body in self._ask(kind, NLM_F_REQUEST | NLM_F_DUMP, bytes(LINK.size)):
            yield layout.unpack_from(body), attributes_in(body, layout.size)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send a request and return the bodies of its answers. Raises OSError."""
        with suppress(BlockingIOError):
            while True:  # what an earlier request left unread
                self._rtnl.recv(LARGEST_DATAGRAM, socket.MSG_DONTWAIT)
        self._rtnl.send(HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body)
        answers: list[bytes] = []
        while len(answers) < MOST_MESSAGES:
            data = self._rtnl.recv(LARGEST_DATAGRAM)
            while len(data) >= HEADER.size:
                length, answer, *_ = HEADER.unpack_from(data)
                if answer in {NLMSG_ERROR, NLMSG_DONE}:
                    (number,) = struct.unpack_from("=i", data, HEADER.size)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return answers
                answers.append(data[HEADER.size : length])
                data = data[length + -length % 4 :]
        return answers


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
    if metric := _number(attributes, RTA_PRIORITY):
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


def _is_kept(fields: tuple[int, ...], *, has_gateway: bool) -> bool:
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


def _number(attributes: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)
