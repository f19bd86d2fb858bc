"""Descriptors that a child gets under numbers of its own."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

STANDARD = {0, 1, 2}


@contextmanager
def handed_over(descriptors: Mapping[int, int]) -> Iterator[list[tuple[int, int, int]]]:
    """Yield actions for `os.posix_spawn` that give a child `descriptors`: ours by its numbers.

    The kernel follows them one after the other. One of ours whose number is also one of the child's
    could be replaced before its turn, so a copy with another number is handed over. Raises OSError.
    """
    targets, copies = {*STANDARD, *descriptors}, dict[int, int]()
    try:
        for ours in targets.intersection(descriptors.values()):
            copies[ours] = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, max(targets) + 1)
        pairs = ((copies.get(ours, ours), number) for number, ours in descriptors.items())
        yield [(os.POSIX_SPAWN_DUP2, ours, number) for ours, number in pairs]
    finally:
        for copy in copies.values():
            os.close(copy)
