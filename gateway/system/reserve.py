"""Descriptors kept for the moment in which the process has none left and has to close.

Putting rules into force takes some: pipes to nft, the sockets of libiptc, a netlink socket. Others
can use up what the process may have, or what the machine has.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DESCRIPTORS = 32
"""More than the rules of one state take at a time; counted in tests/promises/test_shortage.py."""


class Reserve:
    """Descriptors that are not used until they are lent."""

    def __init__(self, size: int = DESCRIPTORS) -> None:
        """Take `size` descriptors, or as many as there are."""
        self._size = size
        self._held: list[int] = []
        self._fill()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give the descriptors away for the time of the block, and take them again afterwards."""
        while self._held:
            os.close(self._held.pop())
        try:
            yield
        finally:
            self._fill()

    def _fill(self) -> None:
        with suppress(OSError):  # fewer, until there are some again
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
