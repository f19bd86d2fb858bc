"""One packet into the tunnel, and whether it is answered."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable

from gateway.errors import is_shortage
from gateway.model import INTERFACE, Address
from gateway.policy.probing import Probe, ProbeProtocol
from gateway.policy.upstreams import OURS, OURS_BY_IPV6
from gateway.system.netns import OWN, Netns

TRIES = 3
INTERVAL = 1.0
"""Seconds from one try to the next; an answer to any of them counts until the last is over."""

DNS_PORT = 53
LARGEST_ANSWER = 4096

ROOT_QUESTION = struct.pack("!5H", 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!2H", 2, 1)
"""A DNS message behind its id: the name servers of the root, which every resolver knows.

RFC 1035, section 4.1: recursion desired, one question, the root's empty name, type NS, class IN.
"""

ANSWERED = {0, 3}
"""Response codes that say what there is: NOERROR and NXDOMAIN (RFC 1035, section 4.1.1)."""

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
"""ICMP types by IP version (RFC 792, RFC 4443)."""

HOP_LIMIT = {
    4: (socket.IPPROTO_IP, socket.IP_TTL),
    6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
"""The options of ip(7) and ipv6(7)."""


async def probe(wanted: Probe, netns: Netns = OWN) -> bool | None:
    """Send `wanted` into the tunnel of `netns` and return whether it was answered.

    Never raises OSError. None means that it could not be sent for now, which says nothing about
    who should answer. Nothing but the tunnel's interface can carry it, whatever the routes say,
    but for a question to the gateway's own resolver.
    """
    address, version = str(wanted.address), wanted.address.version
    try:
        if wanted.protocol is ProbeProtocol.NAME:
            return await _ask_for_a_name(netns, address)
        if wanted.protocol is ProbeProtocol.DNS:
            return await _ask_resolver(netns, address, version)
        return await _ping(netns, address, version, wanted.hops)
    except OSError as err:
        return None if is_shortage(err) else False


async def _ask_resolver(netns: Netns, address: str, version: int) -> bool:
    identity = os.urandom(2)
    with tunnel_socket(netns, version, socket.SOCK_DGRAM) as channel:
        return await _answered(
            channel,
            (address, DNS_PORT),
            identity + ROOT_QUESTION,
            lambda answer: answer[:2] == identity,
        )


def arrivals(netns: Netns) -> tuple[Address, ...]:
    """Return where questions arrive that are redirected in `netns`: IPv6 may be switched off."""
    try:
        with netns.socket(socket.AF_INET6, socket.SOCK_DGRAM) as channel:
            channel.bind((str(OURS_BY_IPV6), 0))
    except OSError:
        return (OURS,)
    return OURS, OURS_BY_IPV6


async def answers_here(netns: Netns, address: str = "127.0.0.1") -> bool:
    """Return whether a resolver at `address` of `netns` answers what it need not pass on.

    Raises OSError, also where nothing listens.
    """
    identity = os.urandom(2)
    question = _question(b"localhost")
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        return await _answered(
            channel,
            (address, DNS_PORT),
            identity + question,
            lambda answer: answer[:2] == identity,
            tries=1,
        )


async def _ask_for_a_name(netns: Netns, address: str) -> bool:
    """Ask for a name that was never asked for, which a resolver has to pass on.

    It may say that there is none (NXDOMAIN), but not that it could not find out.
    """
    identity = os.urandom(2)
    question = _question(os.urandom(6).hex().encode())
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        return await _answered(
            channel,
            (address, DNS_PORT),
            identity + question,
            lambda answer: answer[:2] == identity and answer[3] & 0xF in ANSWERED,
        )


def _question(label: bytes) -> bytes:
    """Return a DNS message behind its id: the address of a name of one label."""
    head = struct.pack("!5H", 0x0100, 1, 0, 0, 0)
    return head + bytes([len(label)]) + label + b"\0" + struct.pack("!2H", 1, 1)


async def _ping(netns: Netns, address: str, version: int, hops: int | None) -> bool:
    identity = os.urandom(4)
    head = struct.pack("!BBH", ECHO_REQUEST[version], 0, 0)
    message = struct.pack("!BBH", ECHO_REQUEST[version], 0, checksum(head + identity)) + identity

    with echo_socket(netns, version) as channel:
        is_raw = channel.type == socket.SOCK_RAW

        def is_reply(answer: bytes) -> bool:
            # A raw IPv4 socket gets the IP header too (raw(7)); its first byte has the length. A
            # ping socket has the first half of an identity of its own.
            body = answer[(answer[0] & 0xF) * 4 :] if is_raw and version == 4 else answer  # noqa: PLR2004
            own = body[4:8] == identity if is_raw else body[6:8] == identity[2:]
            return body[:1] == bytes([ECHO_REPLY[version]]) and own

        if hops is not None:
            channel.setsockopt(*HOP_LIMIT[version], hops)
        return await _answered(channel, (address, 0), message, is_reply)


async def _answered(
    channel: socket.socket,
    address: tuple[str, int],
    message: bytes,
    is_answer: Callable[[bytes], bool],
    tries: int = TRIES,
) -> bool:
    """Send `message` up to `tries` times and say whether an answer came. Raises OSError."""
    loop = asyncio.get_running_loop()
    channel.connect(address)  # at once, and asyncio's own way knows no raw sockets
    for _ in range(tries):
        await loop.sock_sendall(channel, message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL):
                while True:
                    answer = await loop.sock_recv(channel, LARGEST_ANSWER)
                    if is_answer(answer):
                        return True
                    # It returns at once while more is queued: a flood would outlast the time.
                    await asyncio.sleep(0)
    return False


def echo_socket(netns: Netns, version: int) -> socket.socket:
    """Return a raw socket, or a ping socket where a vault may not open that. Raises OSError.

    A ping socket may be closed to root (ping_group_range), and hears no errors (icmp(7)).
    """
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6  # noqa: PLR2004
    try:
        return tunnel_socket(netns, version, socket.SOCK_RAW, protocol)
    except PermissionError:
        return tunnel_socket(netns, version, socket.SOCK_DGRAM, protocol)


def tunnel_socket(netns: Netns, version: int, kind: int, protocol: int = 0) -> socket.socket:
    """Return a socket that never blocks, for the tunnel's interface alone. Raises OSError."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
    channel = netns.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, INTERFACE.encode())
    except OSError:
        channel.close()
        raise
    return channel


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
