"""Links whose queues are all the gateway's own; a link where one is not is kept down.

Another program that has a queue of a link can send by it, below every rule (see `xdp`). Only a link
that is down sends nothing (net/core/dev.c, __dev_direct_xmit). So it is set down until the queue is
free, and then set up again with the addresses and routes that it lost.
"""

import time
from collections.abc import Callable, Collection
from contextlib import suppress

from gateway.errors import NetworkError, is_shortage
from gateway.system.changes import Changes
from gateway.system.unplug import Unplug
from gateway.system.xdp import LOOPBACK, Queues

RELEASE_TIME = 0.3
PAUSE = 0.01
"""Seconds that a queue may take to become free, and between two tries.

The kernel releases the queues of a process some 20 ms after it has ended: those of a gateway that
was killed, for one.
"""


class ExclusiveLinks:
    """All links but the loopback and those that `is_tunnel` accepts; holds their queues.

    They are those of the namespace that `queues` are in.
    """

    def __init__(self, queues: Queues, is_tunnel: Callable[[str], bool], unplug: Unplug) -> None:
        """`unplug` is the switch for the links, of the same namespace."""
        self._queues = queues
        self._is_tunnel = is_tunnel
        self._unplug = unplug
        self._down: dict[int, str] = {}
        self._to_restore: set[int] = set()
        self._changes = Changes(queues.netns)

    @property
    def down(self) -> Collection[int]:
        """The indexes of the links that are kept down."""
        return self._down.keys()

    @property
    def kept_down(self) -> tuple[str, ...]:
        """The links that are kept down, each with the reason."""
        return tuple(self._down.values())

    def claim(self) -> dict[int, str]:
        """Hold what can be held; return why not, by the index of the link. Changes no link.

        Raises OSError or NetworkError when the links cannot be listed.
        """
        links = self._links()
        self._queues.forget_all_but(links)
        problems = {}
        for index, name in links.items():
            try:
                self._queues.claim(index)
            except NetworkError as err:
                problems[index] = f"{name} is kept down: {err}"
        return problems

    def claim_patiently(self) -> None:
        """Hold what can be held, and wait for queues whose former owner has just ended."""
        deadline = time.monotonic() + RELEASE_TIME
        with suppress(OSError):  # `enforce` reports it
            while self.claim() and time.monotonic() < deadline:
                time.sleep(PAUSE)

    def close(self) -> None:
        """Give every queue back."""
        self._queues.close()

    def enforce(self) -> None:
        """Hold every queue; set links down where one is not ours, and up again when all are.

        Only a link that a gateway has set down is set up again. Raises NetworkError.
        """
        try:
            self._down = self.claim()
            self._to_restore |= self._down.keys()
            still_up = self._unplug.pull(self._down) if self._down else ()
            if freed := self._to_restore - self._down.keys():
                self._unplug.plug(self._down)
                self._to_restore -= freed  # not before it has worked
        except OSError as err:
            raise NetworkError(f"hold queues: {err.strerror}", "every link", err.errno) from err
        if still_up:
            raise NetworkError("set down: it is still up", ", ".join(map(ascii, still_up)))

    def _links(self) -> dict[int, str]:
        """Return the links that have to be ours, by index."""
        return self._changes.remembered("links", None, self._listed)

    def _listed(self) -> dict[int, str]:
        found = self._queues.netns.links()
        return {i: name for i, name in found.items() if name != LOOPBACK and not self._tunnel(name)}

    def _tunnel(self, name: str) -> bool:
        try:
            return self._is_tunnel(name)
        except NetworkError as err:
            if is_shortage(err):
                raise
            return False  # it has gone meanwhile
