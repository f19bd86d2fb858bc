"""Whether links, addresses, routes or policy rules may have changed since they were last read.

The kernel queues its notice of a change on every socket that listens before the call that made the
change returns (net/netlink/af_netlink.c, netlink_broadcast). So a socket without a notice means
that what was read before is still true, and asking costs one system call. Some notices come before
the change has all its effects, so nothing is remembered right after one.

Not every change has a notice: IPv4 routes that go with their link or address have none of their
own (net/ipv4/fib_frontend.c), but those of the link and the address come. For what is unknown here,
what was read counts as old after FRESH_FOR seconds.
"""

import socket
import time
from collections.abc import Callable
from typing import TypeVar, cast

from gateway.system.netns import OWN, Netns
from gateway.system.watch import LARGEST_DATAGRAM, OTHERS, RTMGRP_LINK

T = TypeVar("T")

UNSETTLED_FOR = 0.5
"""Seconds after a notice for which nothing is remembered: some notices come before their effect."""
FRESH_FOR = 120.0
"""Seconds after which what was read is read again in any case."""
AT_ONCE = 256
"""Notices that are taken together; where there are more, the next question finds the others."""


class Changes:
    """Remembers what was read from `netns` for as long as the kernel reports no change."""

    def __init__(
        self,
        netns: Netns = OWN,
        clock: Callable[[], float] = time.monotonic,
        groups: int = RTMGRP_LINK | OTHERS,
        fresh_for: float = FRESH_FOR,
    ) -> None:
        """Count the notices of `groups` only: RTMGRP_* of linux/rtnetlink.h.

        `fresh_for` is infinite where each change that matters has a notice: one that was lost
        counts as a change too, and without a socket everything does.
        """
        self._channel: socket.socket | None = None
        self._netns = netns
        self._groups = groups
        self._clock = clock
        self._fresh_for = fresh_for
        self._known: dict[object, tuple[object, object]] = {}
        self._read_at = 0.0
        self._noticed_at = float("-inf")

    def remembered(self, what: object, about: object, read: Callable[[], T]) -> T:
        """Return what `read` returned for `what` and `about`, unless something may have changed.

        One `about` is remembered for each `what`. Raises what `read` raises.
        """
        self.happened()
        known = self._known.get(what)
        if known is not None and known[0] == about:
            return cast("T", known[1])
        found = read()
        if self._channel is not None and self._clock() - self._noticed_at >= UNSETTLED_FOR:
            self._known[what] = about, found
        return found

    def happened(self) -> bool:
        """Return whether there was a notice since the last question, or it is not known."""
        now = self._clock()
        if self._channel is None:
            self._open()
        elif self._took_notices(self._channel):
            self._noticed_at = now
        elif now - self._read_at < self._fresh_for:
            return False
        self._known.clear()
        self._read_at = now
        return True

    def forget(self, what: object) -> None:
        """Let `what` be read again the next time."""
        self._known.pop(what, None)

    def __del__(self) -> None:
        """Close the socket, which lasts as long as who asks."""
        self.close()

    def close(self) -> None:
        """Close the socket; from here on everything is read again each time."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _open(self) -> None:
        """Begin to listen; where that fails, nothing is remembered until it works."""
        try:
            channel = self._netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError:
            return
        try:
            channel.setblocking(False)
            channel.bind((0, self._groups))
        except OSError:
            channel.close()
            return
        self._channel = channel

    def _took_notices(self, channel: socket.socket) -> bool:
        """Take the notices that are there; an error means that some were lost (ENOBUFS)."""
        taken = False
        try:
            for _ in range(AT_ONCE):
                channel.recv(LARGEST_DATAGRAM)
                taken = True
        except BlockingIOError:
            return taken
        except OSError:
            return True
        return True
