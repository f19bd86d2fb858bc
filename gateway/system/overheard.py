"""What arrives about the encrypted flow, apart from WireGuard: for a text that says what is wrong.

A packet socket hears what arrives before any rule. It is open only while handshakes fail, takes
only messages from the endpoints and ICMP errors, and decides nothing: a neighbour could forge both.
"""

import errno
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import gateway
from gateway.model import Address, Endpoint
from gateway.policy.diagnosis import Heard
from gateway.system.bpf import (
    EQUAL,
    LOAD_BYTE,
    LOAD_BYTE_INDEXED,
    LOAD_HEADER,
    RETURN,
    Instruction,
    attach,
)
from gateway.system.netns import OWN, Netns

ETHERTYPES = {4: 0x0800, 6: 0x86DD}
ICMP, ICMPV6, UDP = 1, 58, 17
ERRORS = {4: 3, 6: 1}
"""The ICMP type "destination unreachable" by IP version (RFC 792, RFC 4443)."""
HEADER = {4: 20, 6: 40}
RESPONSE, COOKIE = 2, 3
"""The first byte of the messages (WireGuard paper, 5.4.3 and 5.4.7)."""

MOST_PACKETS = 64
"""How many are read at a time; the rest wait in a buffer of BUFFER bytes, and are then dropped."""
BUFFER = 1 << 16
SNAP = 128

CODES = {
    4: {0: "network unreachable", 1: "host unreachable", 3: "port unreachable",
        9: "network prohibited", 10: "host prohibited", 13: "prohibited by a firewall"},
    6: {0: "no route", 1: "prohibited by a firewall", 3: "address unreachable",
        4: "port unreachable"},
}  # fmt: skip
"""Codes of that type (RFC 1812, section 5.2.7.1; RFC 4443, section 3.1)."""

BUILT_AT = Path(gateway.__file__).stat().st_mtime
DAY = 86400.0


class Overheard:
    """Listens in `netns` while it is asked again and again; `end` ends that."""

    def __init__(self, netns: Netns = OWN) -> None:
        self._netns = netns
        self._endpoints: tuple[Endpoint, ...] = ()
        self._sockets: list[socket.socket] = []

    def heard(self, endpoints: tuple[Endpoint, ...]) -> Heard:
        """Return what arrived about the flow to `endpoints` since the last call; nothing at first.

        Never raises: without CAP_NET_RAW it only knows the clock.
        """
        if endpoints != self._endpoints:
            self.end()
            self._endpoints = endpoints
            with suppress(OSError):
                self._listen({endpoint.address.version for endpoint in endpoints})
        found = Heard()
        for channel in self._sockets:
            for packet in _read(channel):
                found = found.with_more(noticed(packet, endpoints))
        return replace(found, early_clock=time.time() < BUILT_AT - DAY)

    def end(self) -> None:
        """Close the sockets."""
        self._endpoints = ()
        while self._sockets:
            self._sockets.pop().close()

    def _listen(self, versions: Iterable[int]) -> None:
        for version in sorted(versions):
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            protocol = socket.htons(ETHERTYPES[version])
            channel = self._netns.socket(socket.AF_PACKET, kind, protocol)
            self._sockets.append(channel)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            attach(channel, _program(version))


def _read(channel: socket.socket) -> Iterable[bytes]:
    for _ in range(MOST_PACKETS):
        try:
            data, where = channel.recvfrom(SNAP)
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno == errno.ENETDOWN:  # it says so once for each link that goes down
                continue
            return
        if where[0] != "lo":
            yield data


def noticed(packet: bytes, endpoints: tuple[Endpoint, ...]) -> Heard:
    """Return what an IP packet says about the flow to `endpoints`; nothing for any other."""
    version = packet[0] >> 4 if packet else 0
    if version not in HEADER or len(packet) < HEADER[version]:
        return Heard()
    head = (packet[0] & 0xF) * 4 if version == 4 else HEADER[6]  # noqa: PLR2004
    protocol = packet[9] if version == 4 else packet[6]  # noqa: PLR2004
    body = packet[head:]
    if protocol == UDP and len(body) > 8:  # noqa: PLR2004 - the UDP header
        source = Endpoint(_address(packet, version, 12), struct.unpack_from("!H", body)[0])
        kind = body[8] if source in endpoints else 0
        return Heard(responses=int(kind == RESPONSE), cookies=int(kind == COOKIE))
    if protocol in {ICMP, ICMPV6} and len(body) > 8 and body[0] == ERRORS[version]:  # noqa: PLR2004
        return _error(packet, body[1], body[8:], endpoints)
    return Heard()


def _error(packet: bytes, code: int, quoted: bytes, endpoints: tuple[Endpoint, ...]) -> Heard:
    """Return what an ICMP error says, if the packet that it quotes went to one of `endpoints`."""
    version = packet[0] >> 4
    head = (quoted[0] & 0xF) * 4 if version == 4 else HEADER[6]  # noqa: PLR2004
    if len(quoted) < max(head, HEADER[version]) + 4:
        return Heard()
    port = struct.unpack_from("!H", quoted, head + 2)[0]
    if Endpoint(_address(quoted, version, 16), port) not in endpoints:
        return Heard()
    sender = _address(packet, version, 12)
    return Heard(unreachable=f"{sender} answers {CODES[version].get(code, f'ICMP code {code}')}")


def _address(packet: bytes, version: int, at: int) -> Address:
    """Return the source (`at` 12 of IPv4) or destination (16) of a packet."""
    if version == 4:  # noqa: PLR2004
        return IPv4Address(packet[at : at + 4])
    first = 8 if at == 12 else 24  # noqa: PLR2004 - where IPv6 has the same two
    return IPv6Address(packet[first : first + 16])


# -- the filter -----------------------------------------------------------------------------------


def _program(version: int) -> tuple[Instruction, ...]:
    """Return a filter for ICMP errors, and for UDP with a message type of WireGuard's answers."""
    at, icmp = (9, ICMP) if version == 4 else (6, ICMPV6)  # noqa: PLR2004
    if version == 4:  # noqa: PLR2004
        to_body = (LOAD_HEADER, 0, 0, 0)
        load, first = LOAD_BYTE_INDEXED, 0
    else:
        to_body = (LOAD_BYTE, 0, 0, 0)  # only fills the line
        load, first = LOAD_BYTE, HEADER[6]
    return (
        (LOAD_BYTE, 0, 0, at),
        (EQUAL, 0, 3, icmp),
        to_body,
        (load, 0, 0, first),
        (EQUAL, 5, 6, ERRORS[version]),
        (EQUAL, 0, 5, UDP),
        to_body,
        (load, 0, 0, first + 8),
        (EQUAL, 1, 0, RESPONSE),
        (EQUAL, 0, 1, COOKIE),
        (RETURN, 0, 0, SNAP),
        (RETURN, 0, 0, 0),
    )
