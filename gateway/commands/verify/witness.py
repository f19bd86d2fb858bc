"""A witness of what leaves: packet sockets on the uplinks, after every hook that could refuse."""

import socket
import struct
import time
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Self

from gateway.errors import NetworkError
from gateway.model.frozen import frozen

ETH_P_ALL = 3
ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
PACKET_OUTGOING = 4
ICMPV6 = 58
SOLICITATION = bytes([135])
"""The ICMPv6 type of a neighbour solicitation; its target follows after eight bytes (RFC 4861)."""

BUFFER = 4 << 20
LARGEST_FRAME = 1 << 16

NOWHERE = (ip_network("203.0.113.0/24"), ip_network("2001:db8:ffff::/48"))
"""The destinations of the trials: networks for documentation (RFC 5737, RFC 3849)."""


@frozen
class Seen:
    """What a witness saw leave: all frames, and those that should not have left."""

    frames: int
    leaks: int


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
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            channel.bind((name, ETH_P_ALL))
        except OSError as err:
            raise NetworkError(f"listen on an uplink: {err.strerror}", name, err.errno) from err

    def seen(self, settle: float = 0.02) -> Seen:
        """Return what has left since the last call; `settle` seconds for packets under way."""
        time.sleep(settle)
        frames = leaks = 0
        for channel in self._sockets:
            while True:
                try:
                    frame, (_, _, kind, *_) = channel.recvfrom(LARGEST_FRAME)
                except OSError:  # nothing more, or the interface went away
                    break
                if kind == PACKET_OUTGOING:
                    frames += 1
                    leaks += self._marker in frame or goes_nowhere(frame)
        return Seen(frames, leaks)


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
