"""One attempt to get something out: a socket with options, and in a word what became of it."""

import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from gateway.commands.verify.packets import frame, udp_packet
from gateway.model import Address
from gateway.system import xdp

ANSWERED = "answered"
SENT = "the kernel took it"
SILENT = "no answer"

DISCARD = 9
"""The port of RFC 863, where nobody is bothered."""
DNS_PORT = 53
WAIT = 1.0
"""Seconds that an answer may take; what is refused is refused at once."""

EXPERIMENT = 253
"""A protocol number for experiments (RFC 3692)."""

SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20

Attempt = Callable[[bytes], str]
"""Sends the marker that it is given, and returns what came of it: a word above, or an errno."""


@dataclass(frozen=True)
class Options:
    """What a socket asks for: a device, a source, a firewall mark. Empty and 0 ask for nothing."""

    device: str = ""
    source: str = ""
    source_port: int = 0
    mark: int = 0

    def set_on(self, channel: socket.socket) -> None:
        """Ask for all of it. Raises OSError."""
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

    def attempt(marker: bytes) -> str:
        with _open(target, socket.SOCK_DGRAM, options) as channel:
            channel.sendto(marker, (str(target), port))
            return SENT

    return _told(attempt)


def tcp(target: Address, options: Options = NONE) -> Attempt:
    """Return the attempt to connect."""

    def attempt(_marker: bytes) -> str:
        with _open(target, socket.SOCK_STREAM, options) as channel:
            channel.connect((str(target), DISCARD))
            return ANSWERED

    return _told(attempt)


def raw(target: Address, options: Options = NONE) -> Attempt:
    """Return the attempt to send a packet of a protocol that is neither TCP nor UDP."""

    def attempt(marker: bytes) -> str:
        with _open(target, socket.SOCK_RAW, options, EXPERIMENT) as channel:
            channel.sendto(marker, (str(target), 0))
            return SENT

    return _told(attempt)


@dataclass(frozen=True)
class Datagram:
    """The addresses and ports of a datagram that is made by hand."""

    source: Address
    target: Address
    source_port: int = DISCARD
    port: int = DISCARD

    def packet(self, payload: bytes) -> bytes:
        """Return it as a whole IP packet."""
        return udp_packet(self.source, self.target, (self.source_port, self.port), payload)


def forged(wanted: Datagram, options: Options = NONE) -> Attempt:
    """Return the attempt to send a packet whose source nobody checks, by a raw socket (raw(7))."""

    def attempt(marker: bytes) -> str:
        with _open(wanted.target, socket.SOCK_RAW, options, socket.IPPROTO_RAW) as channel:
            channel.sendto(wanted.packet(marker), (str(wanted.target), 0))
            return SENT

    return _told(attempt)


def framed(wanted: Datagram, device: str, *, bypass: bool = False, mark: int = 0) -> Attempt:
    """Return the attempt to put a whole frame on the link `device`, past every queue or not."""

    def attempt(marker: bytes) -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            Options(mark=mark).set_on(channel)
            if bypass:
                channel.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
            channel.bind((device, 0))
            channel.send(frame(wanted.packet(marker)))
            return SENT

    return _told(attempt)


def by_queue(device: str) -> Attempt:
    """Return the attempt to get a queue of the link `device`, by which any frame could be sent.

    Nothing is sent: who has the queue is not asked again (AF_XDP, see `gateway.system.xdp`).
    """

    def attempt(_marker: bytes) -> str:
        with mmap.mmap(-1, mmap.PAGESIZE) as memory:
            xdp.bound(socket.if_nametoindex(device), 0, memory).close()
        return SENT

    return _told(attempt)


def dns(resolver: Address, kind: int, options: Options = NONE) -> Attempt:
    """Return a question for a name that does not exist (RFC 6761, `invalid`), with the marker.

    `kind` is the socket's: SOCK_DGRAM or SOCK_STREAM.
    """

    def attempt(marker: bytes) -> str:
        name = bytes([len(marker)]) + marker + b"\x07invalid\0"
        question = os.urandom(2) + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + name
        question += struct.pack("!2H", 1, 1)
        if kind == socket.SOCK_STREAM:
            question = struct.pack("!H", len(question)) + question
        with _open(resolver, kind, options) as channel:
            channel.connect((str(resolver), DNS_PORT))
            channel.send(question)
            return ANSWERED if channel.recv(512) else SILENT

    return _told(attempt)


def _open(target: Address, kind: int, options: Options, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET6 if target.version == 6 else socket.AF_INET  # noqa: PLR2004
    channel = socket.socket(family, kind, protocol)
    try:
        channel.settimeout(WAIT)
        options.set_on(channel)
    except OSError:
        channel.close()
        raise
    return channel


def _told(attempt: Attempt) -> Attempt:
    """Return `attempt` with the kernel's refusal told by the name of its error."""

    def run(marker: bytes) -> str:
        try:
            return attempt(marker)
        except TimeoutError:
            return SILENT
        except OSError as err:
            return errno.errorcode.get(err.errno or 0, str(err))

    return run
