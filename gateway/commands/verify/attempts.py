"""One attempt to send something: a socket with options, and the result in one word."""

import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable

from gateway.commands.verify.packets import frame, udp_packet
from gateway.model import Address
from gateway.model.frozen import frozen
from gateway.system import xdp
from gateway.system.netns import Netns

ANSWERED = "answered"
SENT = "the kernel took it"
SILENT = "no answer"

DISCARD = 9
"""The discard port (RFC 863): a packet that gets there does no harm."""
DNS_PORT = 53
WAIT = 1.0
"""Seconds that an answer may take; a refusal comes at once."""

EXPERIMENT = 253
"""A protocol number for experiments (RFC 3692)."""

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20

Attempt = Callable[[Netns, bytes], str]
"""Sends the given marker from a namespace and returns the result: a word above, or the name of an
errno."""


@frozen
class Options:
    """The options of a socket: device, source, firewall mark. Empty and 0 set nothing."""

    device: str = ""
    source: str = ""
    source_port: int = 0
    mark: int = 0

    def set_on(self, channel: socket.socket) -> None:
        """Set all of them. Raises OSError."""
        if self.device:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.device.encode())
        if self.mark:
            # As bytes: half of the marks do not fit into the signed number that Python would take.
            mark = self.mark.to_bytes(4, sys.byteorder)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if self.source or self.source_port:
            channel.bind((self.source, self.source_port))


NONE = Options()


def udp(target: Address, options: Options = NONE, port: int = DISCARD) -> Attempt:
    """Return the attempt to send one datagram."""

    def attempt(netns: Netns, marker: bytes) -> str:
        with _open(netns, target, socket.SOCK_DGRAM, options) as channel:
            channel.sendto(marker, (str(target), port))
            return SENT

    return _reporting(attempt)


def tcp(target: Address, options: Options = NONE) -> Attempt:
    """Return the attempt to connect."""

    def attempt(netns: Netns, _marker: bytes) -> str:
        with _open(netns, target, socket.SOCK_STREAM, options) as channel:
            channel.connect((str(target), DISCARD))
            return ANSWERED

    return _reporting(attempt)


def raw(target: Address, options: Options = NONE) -> Attempt:
    """Return the attempt to send a packet of a protocol that is neither TCP nor UDP."""

    def attempt(netns: Netns, marker: bytes) -> str:
        with _open(netns, target, socket.SOCK_RAW, options, EXPERIMENT) as channel:
            channel.sendto(marker, (str(target), 0))
            return SENT

    return _reporting(attempt)


@frozen
class Datagram:
    """The addresses and ports of a datagram that is built byte by byte."""

    source: Address
    target: Address
    source_port: int = DISCARD
    port: int = DISCARD

    def packet(self, payload: bytes) -> bytes:
        """Return the whole IP packet."""
        return udp_packet(self.source, self.target, (self.source_port, self.port), payload)


def forged(wanted: Datagram, options: Options = NONE) -> Attempt:
    """Return the attempt to send a packet with any source, through a raw socket (raw(7))."""

    def attempt(netns: Netns, marker: bytes) -> str:
        with _open(netns, wanted.target, socket.SOCK_RAW, options, socket.IPPROTO_RAW) as channel:
            channel.sendto(wanted.packet(marker), (str(wanted.target), 0))
            return SENT

    return _reporting(attempt)


def framed(wanted: Datagram, device: str, *, bypass: bool = False, mark: int = 0) -> Attempt:
    """Return the attempt to put a whole frame on the link `device`, with or without its queue."""

    def attempt(netns: Netns, marker: bytes) -> str:
        with netns.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            Options(mark=mark).set_on(channel)
            if bypass:
                channel.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
            channel.bind((device, 0))
            channel.send(frame(wanted.packet(marker)))
            return SENT

    return _reporting(attempt)


def by_queue(device: str) -> Attempt:
    """Return the attempt to get a queue of the link `device`, which could send any frame.

    Nothing is sent: the owner of a queue needs no further permission (AF_XDP, see
    `gateway.system.xdp`).
    """

    def attempt(netns: Netns, _marker: bytes) -> str:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            xdp.bound(netns.index_of(device), 0, memory, netns).close()
        return SENT

    return _reporting(attempt)


def dns(resolver: Address, kind: int, options: Options = NONE) -> Attempt:
    """Return a question for a name that does not exist (RFC 6761, `invalid`), with the marker.

    `kind` is the socket's: SOCK_DGRAM or SOCK_STREAM.
    """

    def attempt(netns: Netns, marker: bytes) -> str:
        name = bytes([len(marker)]) + marker + b"\x07invalid\0"
        question = os.urandom(2) + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + name
        question += struct.pack("!2H", 1, 1)
        if kind == socket.SOCK_STREAM:
            question = struct.pack("!H", len(question)) + question
        with _open(netns, resolver, kind, options) as channel:
            channel.connect((str(resolver), DNS_PORT))
            channel.send(question)
            return ANSWERED if channel.recv(512) else SILENT

    return _reporting(attempt)


def _open(
    netns: Netns, target: Address, kind: int, options: Options, protocol: int = 0
) -> socket.socket:
    family = socket.AF_INET6 if target.version == 6 else socket.AF_INET  # noqa: PLR2004
    channel = netns.socket(family, kind, protocol)
    try:
        channel.settimeout(WAIT)
        options.set_on(channel)
    except OSError:
        channel.close()
        raise
    return channel


def _reporting(attempt: Attempt) -> Attempt:
    """Return `attempt` with errors turned into results: a refusal is the name of its errno."""

    def run(netns: Netns, marker: bytes) -> str:
        try:
            return attempt(netns, marker)
        except TimeoutError:
            return SILENT
        except OSError as err:
            return errno.errorcode.get(err.errno or 0, str(err))

    return run
