"""Reads the WireGuard files in a zip file, as providers hand them out, without unpacking it.

A zip file is made by others: its size, the number of its members and what each one expands to are
limited, and the names of its members are never used as paths.
"""

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import PurePosixPath
from typing import Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from gateway.model.frozen import frozen

LARGEST_ARCHIVE: Final = 4 << 20
"""The largest zip file, in bytes: ten times that of a provider with 700 servers."""

MOST_MEMBERS: Final = 4096

_ENCRYPTED: Final = 1
"""The flag of a member that needs a password (APPNOTE.TXT 4.4.4)."""

_FOREIGN: Final = "__MACOSX"
"""Where macOS puts what it adds; its files have the names of the real ones."""

_BROKEN: Final = (BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, zlib.error)
"""What the library raises for a damaged file, apart from ValueError."""


@frozen
class Member:
    """A file in a zip file: its path in it, and how to read its first bytes."""

    name: str
    read: Callable[[int], bytes]

    def whole(self, largest: int) -> bytes:
        """Return what is in the file. Raises ValueError if it cannot be read, or is larger."""
        raw = self.read(largest + 1)
        if len(raw) > largest:
            raise ValueError(f"is larger than {largest // 1024} KiB; leave it out")
        return raw


def members(data: bytes) -> tuple[Member, ...]:
    """Return the files called `*.conf` in a zip file, by name.

    Raises ValueError with what is wrong with it; so does the reader of a member.
    """
    try:
        archive = ZipFile(BytesIO(data))
        found = [one for one in archive.infolist() if _is_wanted(one)]
    except (ValueError, *_BROKEN):
        raise ValueError("is not a zip file that can be read; download it again") from None
    if len(found) > MOST_MEMBERS:
        raise ValueError(
            f"has {len(found)} WireGuard files, and at most {MOST_MEMBERS} are read; leave those "
            "that you use"
        )
    named = sorted(((one.filename, one) for one in found), key=lambda pair: pair[0])
    return tuple(Member(name, _reader(archive, one)) for name, one in named)


def _is_wanted(info: ZipInfo) -> bool:
    path = PurePosixPath(info.filename)
    return (
        not info.is_dir()
        and path.suffix.lower() == ".conf"
        and not path.name.startswith(".")
        and _FOREIGN not in path.parts
    )


def _reader(archive: ZipFile, info: ZipInfo) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        if info.flag_bits & _ENCRYPTED:
            raise ValueError("is encrypted; make a zip file without a password")
        if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
            raise ValueError("is compressed in an unusual way; make the zip file again")
        try:
            with archive.open(info) as stream:
                return stream.read(most)
        except (ValueError, *_BROKEN):
            raise ValueError("cannot be unpacked; download the zip file again") from None

    return read
