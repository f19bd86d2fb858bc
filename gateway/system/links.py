"""The last resort: every link but the loopback set down, by ioctl, with the standard library only.

For the moment when no firewall can be set: nothing but ioctls (netdevice(7)), so that neither a
missing library nor a missing kernel subsystem can stand in the way.
"""

import errno
import fcntl
import socket
import struct

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
REQUEST = struct.Struct("16sH22x")
"""struct ifreq with ifr_flags."""


def links_down() -> tuple[str, ...]:
    """Set every link but the loopback down; return the names of those that are still up."""
    still_up = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for _, name in socket.if_nameindex():
            try:
                _set_down(channel, name)
                up = _flags(channel, name) & (IFF_UP | IFF_LOOPBACK) == IFF_UP
            except OSError as err:
                up = err.errno != errno.ENODEV  # a link that has gone meanwhile sends nothing
            if up:
                still_up.append(name)
    return tuple(still_up)


def _flags(channel: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(channel, SIOCGIFFLAGS, REQUEST.pack(name.encode(), 0))
    flags: int = REQUEST.unpack(answer)[1]
    return flags


def _set_down(channel: socket.socket, name: str) -> None:
    flags = _flags(channel, name)
    if flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP:
        fcntl.ioctl(channel, SIOCSIFFLAGS, REQUEST.pack(name.encode(), flags & ~IFF_UP))
