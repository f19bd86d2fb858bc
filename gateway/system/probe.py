"""One packet into the tunnel, and whether somebody answers it."""

import asyncio
import os
import socket
import struct

from gateway.model import INTERFACE
from gateway.policy.probing import Probe, Question

PATIENCE = 3.0
"""Seconds that an answer may take."""

TRIES = 2
DNS_PORT = 53

ROOT_QUESTION = struct.pack("!5H", 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!2H", 2, 1)
"""A DNS message behind its id: the name servers of the root, which every resolver knows.

RFC 1035, section 4.1: recursion desired, one question, the root's empty name, type NS, class IN.
"""

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
"""ICMP types by IP version (RFC 792, RFC 4443)."""


async def probe(wanted: Probe) -> bool:
    """Send `wanted` into the tunnel and say whether it was answered; never raises for the network.

    Nothing but the tunnel's interface can carry it, whatever the routes say.
    """
    ask = _ask_resolver if wanted.question is Question.DNS else _ping
    for _ in range(TRIES):
        try:
            async with asyncio.timeout(PATIENCE / TRIES):
                return await ask(str(wanted.address), wanted.address.version)
        except OSError:  # a time-out too
            continue
    return False


async def _ask_resolver(address: str, version: int) -> bool:
    loop = asyncio.get_running_loop()
    identity = os.urandom(2)
    with _socket(version, socket.SOCK_DGRAM) as channel:
        await loop.sock_connect(channel, (address, DNS_PORT))
        await loop.sock_sendall(channel, identity + ROOT_QUESTION)
        while (await loop.sock_recv(channel, 4096))[:2] != identity:
            continue
    return True


async def _ping(address: str, version: int) -> bool:
    """Echo by a raw socket, since a ping socket may be closed to root (ping_group_range)."""
    loop = asyncio.get_running_loop()
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6  # noqa: PLR2004
    identity = os.urandom(4)
    head = struct.pack("!BBH", ECHO_REQUEST[version], 0, 0)
    message = struct.pack("!BBH", ECHO_REQUEST[version], 0, _checksum(head + identity)) + identity
    with _socket(version, socket.SOCK_RAW, protocol) as channel:
        await loop.sock_connect(channel, (address, 0))
        await loop.sock_sendall(channel, message)
        while True:
            answer = await loop.sock_recv(channel, 4096)
            # A raw IPv4 socket gets the IP header too (raw(7)); its first byte tells the length.
            body = answer[(answer[0] & 0xF) * 4 :] if version == 4 else answer  # noqa: PLR2004
            if body[:1] == bytes([ECHO_REPLY[version]]) and body[4:8] == identity:
                return True


def _socket(version: int, kind: int, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
    channel = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, INTERFACE.encode())
    except OSError:
        channel.close()
        raise
    return channel


def _checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
