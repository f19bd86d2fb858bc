"""Sockets that only the tunnel's interface can carry, and how often something is asked there."""

import socket
from typing import NamedTuple

from gateway.model import INTERFACE
from gateway.system.netns import OWN, Netns


class Pace(NamedTuple):
    """How often something is sent, and the seconds from one time to the next.

    An answer to any of them counts until the last is over.
    """

    tries: int
    interval: float


USUAL = Pace(3, 1.0)

LARGEST_ANSWER = 4096
"""Bytes of an answer that are read."""


def tunnel_socket(version: int, kind: int, protocol: int = 0, netns: Netns = OWN) -> socket.socket:
    """Return a socket that never blocks, for the tunnel's interface alone. Raises OSError."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004
    channel = netns.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, INTERFACE.encode())
    except OSError:
        channel.close()
        raise
    return channel
