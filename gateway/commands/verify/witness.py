"""A witness of what leaves: packet sockets on the uplinks, after every hook that could refuse."""

import socket
import struct
import time
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Self

from gateway.errors import NetworkError
from gateway.model.frozen import frozen
from gateway.system import bpf

ETH_P_ALL = 3
ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
PACKET_OUTGOING = 4
ICMPV6 = 58
SOLICITATION = bytes([135])
"""The ICMPv6 type of a neighbour solicitation; its target follows after eight bytes (RFC 4861)."""

BUFFER = 4 << 20
LARGEST_FRAME = 1 << 16
LONGEST_READING = 1.0
"""Seconds: a workload can send faster than frames are read here."""

SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
STATISTICS = struct.Struct("=II")
"""asm-generic/socket.h, linux/if_packet.h; struct tpacket_stats: frames taken, and dropped."""

KIND_OF_PACKET = 0xFFFFF004
"""SKF_AD_OFF + SKF_AD_PKTTYPE (linux/filter.h)."""
UDP = 17
TRANSPORT_DATA = 0x04000000
"""The first word of a message that carries a packet (WireGuard paper, 5.4.6)."""
LEAVING = [
    (bpf.LOAD_BYTE, 0, 0, KIND_OF_PACKET),
    (bpf.EQUAL, 1, 0, PACKET_OUTGOING),
    (bpf.RETURN, 0, 0, 0),
]
EVERYTHING = [(bpf.RETURN, 0, 0, LARGEST_FRAME)]
UNENCRYPTED = [
    (bpf.LOAD_HALF, 0, 0, 12),
    (bpf.EQUAL, 0, 5, ETH_P_IP),
    (bpf.LOAD_BYTE, 0, 0, 23),
    (bpf.EQUAL, 0, 9, UDP),
    (bpf.LOAD_HEADER, 0, 0, 14),
    (bpf.LOAD_WORD_INDEXED, 0, 0, 14 + 8),
    (bpf.EQUAL, 5, 6, TRANSPORT_DATA),
    (bpf.EQUAL, 0, 5, ETH_P_IPV6),
    (bpf.LOAD_BYTE, 0, 0, 20),
    (bpf.EQUAL, 0, 3, UDP),
    (bpf.LOAD_WORD, 0, 0, 14 + 40 + 8),
    (bpf.EQUAL, 0, 1, TRANSPORT_DATA),
    (bpf.RETURN, 0, 0, 0),
    *EVERYTHING,
]
"""Programs for the sockets. A workload that uploads would fill their buffer with frames of the
tunnel, and a leak would find no room. What the trials send never begins like such a message."""

NOWHERE = (ip_network("203.0.113.0/24"), ip_network("2001:db8:ffff::/48"))
"""The destinations of the trials: networks for documentation (RFC 5737, RFC 3849)."""


@frozen
class Seen:
    """What a witness saw leave: all frames, and those that should not have left.

    `is_whole` is False if it cannot have seen all that left.
    """

    frames: int
    leaks: int
    is_whole: bool = True


class Witness:
    """Listens on `interfaces` for frames that leave; a context manager.

    The kernel gives a frame to listeners when it goes to the device, after netfilter and the egress
    hook (net/core/dev.c, xmit_one); only frames sent with PACKET_QDISC_BYPASS are not shown.
    """

    def __init__(self, interfaces: tuple[str, ...], marker: bytes) -> None:
        """Count frames with `marker`, or to a destination of the trials, as leaks."""
        self._interfaces = interfaces
        self._marker = marker
        self._sockets: list[socket.socket] = []
        self._was_deaf = False

    def __enter__(self) -> Self:
        """Begin to listen. Raises NetworkError without CAP_NET_RAW."""
        try:
            for name in self._interfaces:
                self._listen(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        while self._sockets:
            self._sockets.pop().close()

    def _listen(self, name: str) -> None:
        try:
            channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
            self._sockets.append(channel)
            _enlarge(channel)
            bpf.attach(channel, LEAVING + EVERYTHING)
            channel.bind((name, ETH_P_ALL))
        except OSError as err:
            raise NetworkError(f"listen on an uplink: {err.strerror}", name, err.errno) from err

    def leave_out_the_tunnel(self) -> None:
        """Take no frames of the tunnel from now on. Raises NetworkError."""
        try:
            for channel in self._sockets:
                bpf.attach(channel, LEAVING + UNENCRYPTED)
        except OSError as err:
            raise NetworkError(f"listen on the uplinks: {err.strerror}", "", err.errno) from err

    def seen(self, settle: float = 0.02) -> Seen:
        """Return what has left since the last call; `settle` seconds for packets under way."""
        time.sleep(settle)
        frames = leaks = 0
        is_whole = True
        for channel in self._sockets:
            deadline = time.monotonic() + LONGEST_READING
            while time.monotonic() < deadline:
                try:
                    frame, (_, _, kind, *_) = channel.recvfrom(LARGEST_FRAME)
                except BlockingIOError:
                    break
                except OSError:  # the link was down or has gone, perhaps for another of its name
                    self._was_deaf = True
                    continue
                if kind == PACKET_OUTGOING:
                    frames += 1
                    leaks += self._marker in frame or goes_nowhere(frame)
            else:
                is_whole = False
            is_whole = is_whole and not _lost(channel)
        return Seen(frames, leaks, is_whole and not self._was_deaf)


def _enlarge(channel: socket.socket) -> None:
    """Have a large buffer; a network of another user namespace gets what its host allows."""
    try:
        channel.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    except PermissionError:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def _lost(channel: socket.socket) -> int:
    """Return how many frames have found no room since the last call (packet(7)).

    One, if that cannot be read.
    """
    try:
        statistics = channel.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size)
    except OSError:
        return 1
    _, dropped = STATISTICS.unpack(statistics)
    return int(dropped)


def goes_nowhere(frame: bytes) -> bool:
    """Return whether a frame goes to a destination that only the trials have."""
    (kind,) = struct.unpack_from("!H", frame, 12) if len(frame) > 14 else (0,)  # noqa: PLR2004
    if kind == ETH_P_IP and len(frame) >= 34:  # noqa: PLR2004 - both headers
        return IPv4Address(frame[30:34]) in NOWHERE[0]
    if kind == ETH_P_ARP and len(frame) >= 42:  # noqa: PLR2004 - who has the target's address?
        return IPv4Address(frame[38:42]) in NOWHERE[0]
    if kind == ETH_P_IPV6 and len(frame) >= 54:  # noqa: PLR2004
        asked_for = frame[62:78] if frame[20] == ICMPV6 and frame[54:55] == SOLICITATION else b""
        wanted = [frame[38:54], *([asked_for] if len(asked_for) == 16 else [])]  # noqa: PLR2004
        return any(IPv6Address(address) in NOWHERE[1] for address in wanted)
    return False
