"""The kernel's connection tracking over netlink, in memory: counts, lists and forgets flows."""

import struct
from collections.abc import Callable, Iterator

from gateway.system.conntrack import (
    CTA_ID,
    CTA_STATS_GLOBAL_ENTRIES,
    CTA_TUPLE_ORIG,
    DELETE,
    EVERY_FLOW,
    GET_STATS,
)
from gateway.system.netlink import Netlink

Flow = tuple[int, bytes]
"""The kernel's number of a flow, and its addresses and ports."""


class Conntrack(Netlink):
    """Holds `flows`; `begun` says which ones begin right after all were forgotten."""

    def __init__(
        self, flows: set[Flow], begun: Callable[[set[Flow]], set[Flow]] = lambda _: set()
    ) -> None:
        self.flows = flows
        self.listed = 0
        self.flushes = 0
        self._begun = begun

    def send(self, what: str, subject: str, body: bytes, kind: int) -> tuple[bytes, ...]:
        """Count or forget all flows."""
        del what, subject
        assert body == EVERY_FLOW
        if kind == DELETE:
            self.flushes += 1
            self.flows = self._begun(self.flows)
            return ()
        assert kind == GET_STATS
        number = struct.pack("!I", len(self.flows))
        return (EVERY_FLOW + _attribute(CTA_STATS_GLOBAL_ENTRIES, number),)

    def bodies(self, what: str, body: bytes, kind: int, *, strict: bool = False) -> Iterator[bytes]:
        """List the flows."""
        del what, kind, strict
        assert body == EVERY_FLOW
        for number, ends in self.flows:
            self.listed += 1
            first = _attribute(CTA_TUPLE_ORIG, ends)
            yield body + first + _attribute(CTA_ID, struct.pack("!I", number))


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
