"""Makes one zone of blocked names from lists, in a process of its own that can do nothing else.

A list comes from anywhere. So the files are opened first, and what reads them has no right any
more, and limits on memory and time. The zone goes to the descriptor RESULT, and a summary to the
descriptor SUMMARY, in words: the number of names, that of each list, and what was left out.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO

from gateway.errors import NetworkError
from gateway.policy.blocked import LONGEST_LINE, MOST_NAMES, MOST_WORDS, Blocked
from gateway.providers.lists import LARGEST_KEPT as MOST_RESULT
from gateway.services.fetching.lists import FAILED
from gateway.services.fetching.process_frame import give_up_rights
from gateway.services.resolver.blocking import RESULT, SUMMARY

LARGEST = 32 << 20
"""Bytes of a list that are read."""
READING_TIME = 15.0
"""Seconds of processor time after which no other list is begun: this process has 30, and one list
takes five at most."""


def main() -> None:
    """Be the process, and end it; the arguments are names to let pass, with commas, and paths."""
    code = FAILED
    try:
        said = made(sys.argv[1].split(","), sys.argv[2:])
        code = 0
    except MemoryError:
        said = "there is not enough memory for them"
    except (NetworkError, OSError) as err:
        said = str(err)
    try:
        os.write(SUMMARY, said.encode("utf-8", "replace"))
    finally:
        os._exit(code)


def made(passed: list[str], paths: list[str]) -> str:
    """Write the zone and return the summary. Raises NetworkError if a right cannot be given up.

    A list that cannot be read is left out: the others are of use without it.
    """
    left_out: list[str] = []
    opened = [(path, _opened(path, left_out)) for path in paths]
    give_up_rights()
    blocked = Blocked(frozenset(it.encode("ascii", "replace") for it in passed if it))
    numbers: list[int] = []
    for path, file in opened:
        before = blocked.taken
        if time.process_time() > READING_TIME:
            left_out.append(f"{path}: the lists before it took {READING_TIME:g} s")
        elif file is not None:
            _read(blocked, path, file, left_out)
        if file is not None:
            file.close()
        numbers.append(blocked.taken - before)
    if blocked.is_full:
        left_out.append(f"all after {MOST_NAMES} names")
    if blocked.ignored:
        left_out.append(f"{blocked.ignored} lines that block no name")
    names = _write(blocked)
    if names < len(blocked.rules):
        left_out.append(f"all after {MOST_RESULT >> 20} MiB")
    return f"{names}\n{' '.join(map(str, numbers))}\n{', '.join(left_out)}"


def _read(blocked: Blocked, path: str, file: BinaryIO, left_out: list[str]) -> None:
    """Take the rules of a file, or say in `left_out` why not all of them."""
    try:
        if not blocked.read(lines_of(file)):
            left_out.append(f"{path} after {MOST_WORDS} words and lines")
    except OSError as err:
        left_out.append(f"{path}: {err.strerror}")
    if os.fstat(file.fileno()).st_size > LARGEST:
        left_out.append(f"{path} after {LARGEST >> 20} MiB")


def _opened(path: str, left_out: list[str]) -> BinaryIO | None:
    """Open a regular file, or say in `left_out` why not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as err:
        left_out.append(f"{path}: {err.strerror}")
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")  # noqa: PTH123 - a descriptor
    os.close(descriptor)
    left_out.append(f"{path}: is not a regular file")
    return None


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of the first LARGEST bytes; of a long one only what shows that it is."""
    begins, left = True, LARGEST
    while left > 0 and (line := file.readline(LONGEST_LINE + 1)):
        if begins:
            yield line
        begins = line.endswith(b"\n")
        left -= len(line)


def _write(blocked: Blocked) -> int:
    """Write the zone as far as MOST_RESULT, and return the number of rules of lists in it."""
    size, number = 0, -2 - 2 * len(blocked.passed)  # what comes before them
    with open(RESULT, "wb", closefd=False) as file:
        for line in map(str.encode, blocked.zone()):
            size += len(line)
            if size > MOST_RESULT:
                break
            file.write(line)
            number += 1
    return max(0, number)
