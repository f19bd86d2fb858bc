"""Which sockets of a namespace wait at a port: asked of the kernel over sock_diag(7).

The kernel picks them by their port, so the answer is short however many sockets there are, and
reading proc(5) would not be. `channel` belongs to a namespace (`netns.socket`), and the answer is
about that one. Standard library only: a process without rights imports it.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from gateway.model.frozen import frozen

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, DUMP = 20, 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
"""linux/netlink.h, linux/sock_diag.h."""

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
WAITING = {TCP: 10, UDP: 7}
"""The states of sockets without a peer: TCP_LISTEN, and TCP_CLOSE for UDP (net/tcp_states.h)."""

HEADER = struct.Struct("=IHHII")
ASKED = struct.Struct("=BBBxI2s46x")
"""struct inet_diag_req_v2 of linux/inet_diag.h: only the port of its socket is set."""
FOUND = struct.Struct("=BBxxHxx16s16xI8x12xII")
"""struct inet_diag_msg: family, state, port, address, device, user and inode."""
ATTRIBUTE = struct.Struct("=HH")
ONLY_IPV6, CGROUP = 11, 21
"""INET_DIAG_SKV6ONLY, INET_DIAG_CGROUP_ID."""
MOST = 64
"""Sockets of one answer that are looked at: more may share a port, with SO_REUSEPORT."""
LARGEST = 1 << 16
PATIENCE = 2.0
"""Seconds."""

Address = IPv4Address | IPv6Address


@frozen
class Listener:
    """A socket that waits: `owner` is its user and its control group, equal within a container.

    It takes packets for `address`, all of them if that is unspecified, that arrive at the device
    `device`, 0 for any. Without `only_ipv6`, one for all addresses of IPv6 takes IPv4 too.
    """

    address: Address
    device: int
    inode: int
    owner: tuple[int, int]
    only_ipv6: bool = False

    def takes(self, address: Address, device: int) -> bool:
        """Return whether packets for `address` that arrive at `device` reach it."""
        if self.device not in {0, device}:
            return False
        if self.address.is_unspecified:
            return self.address.version == address.version or (
                self.address.version > address.version and not self.only_ipv6
            )
        mapped = getattr(self.address, "ipv4_mapped", None)
        return address in {self.address, mapped}


def listeners(channel: socket.socket, port: int, protocol: int = TCP) -> tuple[Listener, ...]:
    """Return what waits at `port` in the namespace that `channel` was opened in.

    `channel` is a socket of NETLINK_SOCK_DIAG. Raises OSError: ENOENT where the kernel cannot say.
    """
    channel.settimeout(PATIENCE)
    found: list[Listener] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        states = 1 << WAITING[protocol]
        body = ASKED.pack(family, protocol, 0, states, port.to_bytes(2, "big"))
        size = HEADER.size + len(body)
        channel.send(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, DUMP, family, 0) + body)
        found += _answers(channel, family, port)
    return tuple(found[:MOST])


def _answers(channel: socket.socket, number: int, port: int) -> Iterator[Listener]:
    """Yield the sockets of the answer to request `number`. Raises OSError."""
    while True:
        data = memoryview(channel.recv(LARGEST))
        while len(data) >= HEADER.size:
            size, kind, _, sequence, _ = HEADER.unpack_from(data)
            body, data = data[HEADER.size : size], data[max(size + 3 & ~3, HEADER.size) :]
            if sequence != number:
                continue
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                raise OSError(code, os.strerror(code))
            if len(body) >= FOUND.size and (one := _listener(body, port)):
                yield one


def _listener(body: memoryview, port: int) -> Listener | None:
    """Return the socket of a message, None if it has another port."""
    family, _, its_port, raw, device, user, inode = FOUND.unpack_from(body)
    if socket.ntohs(its_port) != port:
        return None
    address = ip_address(bytes(raw[:4] if family == socket.AF_INET else raw))
    attributes = dict(_attributes(body[FOUND.size :]))
    group = attributes.get(CGROUP, b"")
    return Listener(
        address,
        device,
        inode,
        (user, struct.unpack("=Q", group)[0] if len(group) == 8 else 0),  # noqa: PLR2004
        only_ipv6=attributes.get(ONLY_IPV6, b"\0")[:1] != b"\0",
    )


def _attributes(data: memoryview) -> Iterator[tuple[int, bytes]]:
    while len(data) >= ATTRIBUTE.size:
        size, kind = ATTRIBUTE.unpack_from(data)
        yield kind, bytes(data[ATTRIBUTE.size : size])
        data = data[max(size + 3 & ~3, ATTRIBUTE.size) :]
