"""A file that is replaced by a copy of another one."""

import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

OLD = 3600.0
"""Seconds after which a copy that was not completed is removed: its gateway has ended."""


def keep_copy(places: Iterable[Path], name: str, content: int, *, is_secret: bool = False) -> Path:
    """Put a copy of the open file `content` into the first of `places` that takes it; return where.

    As `replace_with_copy` does. Raises OSError with the reason of the first place.
    """
    failure: OSError | None = None
    for place in places:
        try:
            replace_with_copy(place, name, content, is_secret=is_secret)
        except OSError as err:
            failure = failure or OSError(err.errno, err.strerror, str(place))
        else:
            return place / name
    raise failure or FileNotFoundError(2, "there is no place for it", name)


def replace_with_copy(place: Path, name: str, content: int, *, is_secret: bool = False) -> None:
    """Put a copy of the open file `content` in place of the one called `name`, whole or not at all.

    Makes the directory `place`, but not the one that it is in. Everybody may read the file,
    unless it `is_secret`. Another gateway may do the same in the same directory. Raises OSError.
    """
    if not place.parent.is_dir():
        raise FileNotFoundError(2, "there is no such directory", str(place.parent))
    place.mkdir(mode=0o755, exist_ok=True)
    _remove_old(place, name)
    new = place / f".{name}.{secrets.token_hex(4)}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = 0o600 if is_secret else 0o644
    try:
        with open(os.open(new, flags, mode), "wb") as file:  # noqa: PTH123 - a descriptor
            offset = 0
            while sent := os.sendfile(file.fileno(), content, offset, 1 << 20):
                offset += sent
            os.fsync(file.fileno())
        new.rename(place / name)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _remove_old(place: Path, name: str) -> None:
    """Remove what gateways have left of copies that they did not complete."""
    for left in place.glob(f".{name}*.new"):
        with suppress(OSError):  # another one has done so
            if time.time() - left.lstat().st_mtime > OLD:
                left.unlink()
