"""Notices from the kernel that links, addresses, routes or policy rules have changed.

What has changed is not read from the messages. They can be lost, they come late and in pieces, and
many say nothing new. So `changed` looks at the namespace itself and finds what is true by then.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

from gateway.system.netns import OWN, Netns

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV4_RULE = 0x80
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_ROUTE = 0x400
RTMGRP_IPV6_RULE = 0x40000
RTMGRP_NEXTHOP = 0x80000000
"""Multicast groups of rtnetlink(7); the last two are those of RTNLGRP_IPV6_RULE and RTNLGRP_NEXTHOP
in linux/rtnetlink.h. IPv4 routes that go with their nexthop object have no notice of their own
(net/ipv4/nexthop.c, __remove_nexthop_fib)."""

OTHERS = (
    RTMGRP_IPV4_IFADDR
    | RTMGRP_IPV4_ROUTE
    | RTMGRP_IPV4_RULE
    | RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV6_ROUTE
    | RTMGRP_IPV6_RULE
    | RTMGRP_NEXTHOP
)
"""What a neighbour may be able to change, as often as it likes."""
LARGEST_DATAGRAM = 1 << 16
AT_ONCE = 1000
"""Messages that are taken together as one change; more of them wait for the next turn."""
AGAIN = 1.0
"""Seconds until the kernel is asked again for its word after it could not be listened to."""


BURST = 20
REGAIN = 1.0
"""Changes that are passed on at once, and seconds until one more of them may be.

A look at the namespace costs time on the loop. One router advertisement is enough for a change.
"""


async def watch(changed: Callable[[], None], netns: Netns = OWN) -> None:
    """Call `changed` whenever something in `netns` has, until cancelled.

    At least once in the beginning. When the kernel had more to say than its buffer holds (ENOBUFS),
    that counts as a change. While it cannot be listened to at all, `changed` is called once a
    second instead. Changes of links are passed on at once, because a new one has to be closed.
    Under a flood of others, `changed` is called once in REGAIN seconds, and once more after its
    end.
    """
    await asyncio.gather(
        _follow(netns, RTMGRP_LINK, changed), _follow(netns, OTHERS, changed, _Allowance())
    )


class _Allowance:
    """How many changes may be passed on at once."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at = asyncio.get_running_loop().time()

    async def take(self) -> None:
        """Wait until one more change may be passed on."""
        now = asyncio.get_running_loop().time()
        self._left = min(float(BURST), self._left + (now - self._at) / REGAIN)
        self._at = now
        self._left -= 1
        if self._left < 0:
            await asyncio.sleep(-self._left * REGAIN)


async def _follow(
    netns: Netns, groups: int, changed: Callable[[], None], allowance: _Allowance | None = None
) -> None:
    while True:
        try:
            with netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
                channel.setblocking(False)
                channel.bind((0, groups))
                while True:
                    changed()
                    await _next_change(channel, allowance)
        except OSError:
            await asyncio.sleep(AGAIN)


async def _next_change(channel: socket.socket, allowance: _Allowance | None) -> None:
    """Wait for a message, and take those that are there with it."""
    await _received(asyncio.get_running_loop().sock_recv(channel, LARGEST_DATAGRAM))
    if allowance:
        await allowance.take()
    try:
        for _ in range(AT_ONCE):
            channel.recv(LARGEST_DATAGRAM)
    except BlockingIOError:
        return
    except OSError as err:
        if err.errno != errno.ENOBUFS:
            raise


async def _received(message: Awaitable[bytes]) -> None:
    """Wait for `message`, or for the word that it was lost."""
    try:
        await message
    except OSError as err:
        if err.errno != errno.ENOBUFS:
            raise
