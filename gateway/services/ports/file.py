"""Small files that other containers read: of the forwarded ports, and of the public address.

They are written in place, in one call, and then closed: tools watch them for the close after
writing, and Docker may have mounted one. Workloads may share their directory, so no symbolic link
is followed below the root, and nothing but a regular file is written, which has no other name.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath

DIRECTORY_MODE, FILE_MODE = 0o755, 0o644
_IN = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_PATH
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LARGEST = 64
"""Bytes that are compared; a file with more does not hold what is wanted."""


def write_ports(path: str, ports: Sequence[int]) -> None:
    """Make the file at `path` hold `ports`, one in a line, and nothing without any.

    One that is not there is not made to hold nothing. As `write_small`. Raises OSError.
    """
    write_small(path, "\n".join(map(str, ports)).encode(), makes_empty=False)


def write_small(path: str, wanted: bytes, *, makes_empty: bool = True) -> None:
    """Make the file at `path` hold `wanted`, which is short.

    One that holds that already is left alone, and one that is not there is made to hold nothing
    only if it `makes_empty` ones. Makes missing directories. Raises OSError.
    """
    way = PurePosixPath(path)
    place = os.open("/", _IN)
    try:
        for name in way.parts[1:-1]:
            place = _entered(place, name)
        try:
            descriptor = os.open(way.name, _FILE, dir_fd=place)
        except FileNotFoundError:
            if not wanted and not makes_empty:
                return
            flags = _FILE | os.O_CREAT | os.O_EXCL
            descriptor = os.open(way.name, flags, FILE_MODE, dir_fd=place)
            os.fchmod(descriptor, FILE_MODE)  # whatever the umask
    finally:
        os.close(place)
    try:
        _replace(descriptor, wanted)
    finally:
        os.close(descriptor)


def _entered(place: int, name: str) -> int:
    """Return the directory `name` in `place`, which is closed; make it if it is not there."""
    try:
        with suppress(FileExistsError):
            try:
                return os.open(name, _IN, dir_fd=place)
            except FileNotFoundError:
                os.mkdir(name, DIRECTORY_MODE, dir_fd=place)
        return os.open(name, _IN, dir_fd=place)
    finally:
        os.close(place)


def _replace(descriptor: int, wanted: bytes) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(22, "not a regular file")
    if found.st_nlink > 1:
        raise OSError(22, "it has another name too, so it may be another file")
    if os.pread(descriptor, LARGEST, 0) == wanted:
        return
    os.ftruncate(descriptor, 0)
    if wanted:
        os.pwrite(descriptor, wanted, 0)
