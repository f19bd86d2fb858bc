"""Links whose names no rule can carry are set down, by ioctl (netdevice(7)).

With the standard library only, like `unplug`, which sets down all links when no firewall can be
set: neither a missing library nor a missing kernel subsystem can prevent it.
"""

import errno
import fcntl
import os
import shlex
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

from gateway.errors import MissingError
from gateway.policy.rules import is_nameable
from gateway.system import applied
from gateway.system.netns import OWN, Netns

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
REQUEST = struct.Struct("16sH22x")
"""struct ifreq with ifr_flags."""


RENAME = "give the network's interface another name: letters, digits, and - . _ @"


def links_down(names: Collection[str], netns: Netns = OWN) -> tuple[str, ...]:
    """Set these links down, but not the loopback; return those that are still up."""
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for name in names:
            # What did not work is seen by what is up afterwards.
            with suppress(OSError):
                _set_down(channel, name)
    return links_up(names, netns)


def links_up(names: Collection[str], netns: Netns = OWN) -> tuple[str, ...]:
    """Return those of `names` that are up and not the loopback, or cannot be asked."""
    up = []
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for name in names:
            try:
                is_up = _flags(channel, name) & (IFF_UP | IFF_LOOPBACK) == IFF_UP
            except OSError as err:
                is_up = err.errno != errno.ENODEV  # a link that has gone meanwhile sends nothing
            if is_up:
                up.append(name)
    return tuple(up)


def unnameable_links(netns: Netns = OWN) -> tuple[str, ...]:
    """Return the links whose names no rule can carry, such as `eth+`, which would be a pattern."""
    return tuple(name for name in netns.links().values() if not is_nameable(name))


def refuse_unnameable(netns: Netns = OWN) -> None:
    """Set links whose names no rule can carry down, and raise MissingError if there is one."""
    names = unnameable_links(netns)
    if names:
        up = links_down(names, netns)
        state = f"still up: {', '.join(map(ascii, up))}" if up else "it is down"
        raise MissingError(
            f"no rule can carry the name of the link {', '.join(map(ascii, names))} ({state})",
            RENAME,
        )


def _flags(channel: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(channel, SIOCGIFFLAGS, REQUEST.pack(os.fsencode(name), 0))
    flags: int = REQUEST.unpack(answer)[1]
    return flags


def _set_down(channel: socket.socket, name: str) -> None:
    flags = _flags(channel, name)
    if flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP:
        fcntl.ioctl(channel, SIOCSIFFLAGS, REQUEST.pack(os.fsencode(name), flags & ~IFF_UP))
        applied.show(lambda: [f"ip link set {shlex.quote(name)} down"])
