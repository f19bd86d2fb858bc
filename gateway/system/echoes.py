"""ICMP echoes into the tunnel: whether one is answered, and the largest that is."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Collection

from gateway.policy.probing import Probe
from gateway.policy.routing import IPV4
from gateway.system.inside import LARGEST_ANSWER, USUAL, Pace, tunnel_socket
from gateway.system.netns import OWN, Netns

ECHO_HEADER = 8
IP_HEADER = {4: 20, 6: 40}
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
TIME_EXCEEDED = {4: 11, 6: 3}
"""ICMP types by IP version (RFC 792, RFC 4443); such an error quotes what it is about."""

HOP_LIMIT = {
    4: (socket.IPPROTO_IP, socket.IP_TTL),
    6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
"""The options of ip(7) and ipv6(7)."""

DO_NOT_FRAGMENT = {
    4: [(socket.IPPROTO_IP, 10, 3)],
    6: [(socket.IPPROTO_IPV6, 23, 3), (socket.IPPROTO_IPV6, 62, 1)],
}
"""IP_MTU_DISCOVER, IPV6_MTU_DISCOVER and IPV6_DONTFRAG of linux/in.h and linux/in6.h.

The value *_PMTUDISC_PROBE ignores the path MTU that the kernel has been informed of: it is what is
measured here.
"""

EXTENDED_ERRORS = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
"""IP_RECVERR and IPV6_RECVERR of linux/in.h and linux/in6.h."""
MSG_ERRQUEUE = 0x2000
EXTENDED_ERROR = struct.Struct("=IBBBB")
ORIGINS = {4: 2, 6: 3}
"""struct sock_extended_err of linux/errqueue.h, and its origins ICMP and ICMPv6 by IP version."""

SMALL = 64
"""The size in bytes of an echo whose size does not matter."""


async def largest_answered(wanted: Probe, sizes: Collection[int], netns: Netns = OWN) -> int | None:
    """Return the largest of `sizes` that the host of `wanted` answers; None if it answers none.

    A size is that of the whole IP packet in bytes, which is never fragmented. Each is sent up
    to three times, and those below one that was answered are not sent again. An answer to an echo
    with a hop limit is that it was exceeded. None also means that something could not be sent.
    Never raises OSError. Nothing but the tunnel's interface of `netns` can carry it.
    """
    try:
        with _socket_for(wanted, netns) as channel:
            return await _Echoes(channel, wanted, sizes).largest()
    except OSError:
        return None


async def echoed(wanted: Probe, pace: Pace, netns: Netns = OWN) -> tuple[bool, int]:
    """Return whether an echo to the host of `wanted` is answered, and how many were sent.

    An answer to an echo with a hop limit is that it was exceeded. Raises OSError.
    """
    version = wanted.address.version
    with _socket_for(wanted, netns) as channel:
        if channel.type != socket.SOCK_RAW:
            channel.setsockopt(*EXTENDED_ERRORS[version], 1)
        echoes = _Echoes(channel, wanted, (SMALL,), pace)
        return await echoes.largest() is not None, echoes.rounds


def echo_socket(version: int, netns: Netns = OWN) -> socket.socket:
    """Return a raw socket, or a ping socket where a vault may not open that. Raises OSError.

    A ping socket may be closed to root (ping_group_range). It hears no errors (icmp(7)), unless
    EXTENDED_ERRORS is set, and then one of them instead of an answer.
    """
    protocol = socket.IPPROTO_ICMP if version == IPV4 else socket.IPPROTO_ICMPV6
    try:
        return tunnel_socket(version, socket.SOCK_RAW, protocol, netns)
    except PermissionError:
        return tunnel_socket(version, socket.SOCK_DGRAM, protocol, netns)


def _socket_for(wanted: Probe, netns: Netns) -> socket.socket:
    version = wanted.address.version
    channel = echo_socket(version, netns)
    try:
        for option in DO_NOT_FRAGMENT[version]:
            channel.setsockopt(*option)
        if wanted.hops is not None:
            channel.setsockopt(*HOP_LIMIT[version], wanted.hops)
    except OSError:
        channel.close()
        raise
    return channel


class _Echoes:
    """One run: the sequence number of an echo is the position of its size.

    A ping socket has an identity of its own, and gets no other answers. `rounds` counts how often
    the sizes were sent.
    """

    def __init__(
        self, channel: socket.socket, wanted: Probe, sizes: Collection[int], pace: Pace = USUAL
    ) -> None:
        self._channel = channel
        self._address = str(wanted.address), 0
        self._version = wanted.address.version
        self._sizes = sorted(sizes)
        self._pace = pace
        self._is_raw = channel.type == socket.SOCK_RAW
        self._identity = os.urandom(2)
        self._best = -1
        self.rounds = 0

    async def largest(self) -> int | None:
        """Return the largest size that was answered. Raises OSError."""
        loop = asyncio.get_running_loop()
        last = len(self._sizes) - 1
        for _ in range(self._pace.tries):
            self.rounds += 1
            # The largest first: a host that answers few of them answers the first to reach it.
            for position in range(last, self._best, -1):
                await loop.sock_sendto(self._channel, self._echo(position), self._address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.interval):
                    while self._best < last:
                        self._best = max(self._best, await self._next_answered())
                        # It returns at once while more is queued: a flood would outlast the time.
                        await asyncio.sleep(0)
            if self._best == last:
                break
        return self._sizes[self._best] if self._best >= 0 else None

    async def _next_answered(self) -> int:
        """Wait for what comes, and return the position that it is about. Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            return self._answered(await loop.sock_recv(self._channel, LARGEST_ANSWER))
        except OSError:
            if self._is_raw or not self._has_exceeded():
                raise
            return 0  # a ping socket with errors sends only one size

    def _has_exceeded(self) -> bool:
        """Return whether the last error is that the hop limit was exceeded. Raises OSError."""
        expected = ORIGINS[self._version], TIME_EXCEEDED[self._version]
        _, messages, _, _ = self._channel.recvmsg(LARGEST_ANSWER, 512, MSG_ERRQUEUE)
        return any(
            EXTENDED_ERROR.unpack_from(data)[1:3] == expected
            for level, kind, data in messages
            if (level, kind) == EXTENDED_ERRORS[self._version]
        )

    def _echo(self, position: int) -> bytes:
        kind = struct.pack("!BB", ECHO_REQUEST[self._version], 0)
        length = self._sizes[position] - IP_HEADER[self._version] - ECHO_HEADER
        body = self._identity + struct.pack("!H", position) + bytes(length)
        summed = kind + b"\0\0" + body + bytes(length % 2)
        return kind + struct.pack("!H", checksum(summed)) + body

    def _answered(self, answer: bytes) -> int:
        """Return the position of the size that `answer` is about, -1 if it is about none."""
        body = _behind_ip(answer) if self._version == IPV4 and self._is_raw else answer
        expected = ECHO_REPLY[self._version]
        if body[:1] == bytes([TIME_EXCEEDED[self._version]]):
            quoted = body[ECHO_HEADER:]
            body = _behind_ip(quoted) if self._version == IPV4 else quoted[IP_HEADER[6] :]
            expected = ECHO_REQUEST[self._version]
        if body[:1] != bytes([expected]) or len(body) < ECHO_HEADER:
            return -1
        if self._is_raw and body[4:6] != self._identity:
            return -1
        position: int = struct.unpack("!H", body[6:8])[0]
        return position if position < len(self._sizes) else -1


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _behind_ip(packet: bytes) -> bytes:
    """Return what follows the IPv4 header, whose first byte has its length (RFC 791)."""
    return packet[(packet[0] & 0xF) * 4 :] if packet else b""
