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
import shlex
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import ip_address

from gateway.errors import is_shortage
from gateway.model.frozen import frozen
from gateway.system import applied
from gateway.system.link_alias import (
    ADDRESS,
    FAMILIES,
    IFA_FLAGS,
    LEFT_OUT,
    MARK,
    ROUTE,
    RTA_GATEWAY,
    RTA_OIF,
    address_message,
    attribute,
    command_of,
    fitting,
    is_kept,
    number,
    route_message,
    route_text,
)
from gateway.system.link_down import IFF_LOOPBACK, IFF_UP, REQUEST, SIOCGIFFLAGS, SIOCSIFFLAGS
from gateway.system.netlink import (
    HEADER,
    LARGEST_DATAGRAM,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    attributes_in,
)
from gateway.system.netns import OWN, Netns

IFLA_IFNAME, IFLA_IFALIAS = 3, 20
IFA_ADDRESS = 1
IFA_F_PERMANENT = 0x80

LINK = struct.Struct("=BxHiII")
MOST_MESSAGES = 10_000
"""Messages of one dump that are read; a neighbour can make more routes than fit an alias."""
ANSWER_TIME = struct.pack("@ll", 1, 0)
"""One second (struct timeval) for an answer of the kernel, which is queued with the request."""


@frozen
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
    """The switch for every link of `netns`; holds the sockets that it takes."""

    def __init__(self, netns: Netns = OWN) -> None:
        """Open the sockets. Raises OSError."""
        self._ioctl = netns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtnl = netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
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
        with suppress(Exception):  # after any error the link still has to go down
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
            if number(attributes, RTA_OIF) == index
            and is_kept(fields, has_gateway=RTA_GATEWAY in attributes)
        ]
        yield from sorted(found, key=lambda text: not text.startswith("default"))

    def _addresses(self, index: int) -> Iterator[str]:
        """Yield the addresses that the kernel forgets: those of IPv6 that are not its own."""
        for fields, attributes in self._dump(RTM_GETADDR, ADDRESS):
            family, length, short_flags, scope, owner = fields
            flags = number(attributes, IFA_FLAGS) or short_flags
            if (family, scope, owner) == (FAMILIES[6], 0, index) and flags & IFA_F_PERMANENT:
                yield f"address {ip_address(attributes[IFA_ADDRESS])}/{length}"

    def _set_flags(self, link: Link, flags: int) -> None:
        request = REQUEST.pack(os.fsencode(link.name), flags & 0xFFFF)
        fcntl.ioctl(self._ioctl, SIOCSIFFLAGS, request)
        held = REQUEST.unpack(fcntl.ioctl(self._ioctl, SIOCGIFFLAGS, request))[1]
        if (held ^ flags) & IFF_UP:
            raise OSError(errno.EBUSY, "the link does not change")
        state = "up" if flags & IFF_UP else "down"
        applied.show(lambda: [f"ip link set {shlex.quote(link.name)} {state}"])

    def _set_alias(self, link: Link, alias: str) -> None:
        body = LINK.pack(0, 0, link.index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode())
        self._ask(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, body)
        applied.show(lambda: [shlex.join(["ip", "link", "set", link.name, "alias", alias])])

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
