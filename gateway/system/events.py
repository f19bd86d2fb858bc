"""Word from the kernel that links, addresses, routes or policy rules have changed.

What has changed is not read from the messages. They can be lost, they come late and in pieces, and
many say nothing new; whoever is told looks at the namespace itself and finds what is true by then.
"""

import asyncio
import errno
import socket
from collections.abc import Callable

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV4_RULE = 0x80
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_ROUTE = 0x400
RTMGRP_IPV6_RULE = 0x40000
"""Multicast groups of rtnetlink(7); the last one is RTNLGRP_IPV6_RULE of linux/rtnetlink.h."""

GROUPS = (
    RTMGRP_LINK
    | RTMGRP_IPV4_IFADDR
    | RTMGRP_IPV4_ROUTE
    | RTMGRP_IPV4_RULE
    | RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV6_ROUTE
    | RTMGRP_IPV6_RULE
)
LARGEST_DATAGRAM = 1 << 16
AT_ONCE = 1000
"""Messages that are taken together as one change; more of them wait for the next turn."""
AGAIN = 1.0
"""Seconds until the kernel is asked again for its word after it could not be listened to."""


async def watch(changed: Callable[[], None]) -> None:
    """Call `changed` whenever something has, until cancelled; at least once in the beginning.

    When the kernel had more to say than its buffer holds (ENOBUFS), that counts as a change. While
    it cannot be listened to at all, `changed` is called once a second instead.
    """
    while True:
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
                channel.setblocking(False)
                channel.bind((0, GROUPS))
                while True:
                    changed()
                    await _next_change(channel)
        except OSError:
            await asyncio.sleep(AGAIN)


async def _next_change(channel: socket.socket) -> None:
    """Wait for a message, and take those that are there with it."""
    try:
        await asyncio.get_running_loop().sock_recv(channel, LARGEST_DATAGRAM)
        for _ in range(AT_ONCE):
            channel.recv(LARGEST_DATAGRAM)
    except BlockingIOError:
        return
    except OSError as err:
        if err.errno != errno.ENOBUFS:
            raise
