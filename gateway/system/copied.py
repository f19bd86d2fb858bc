"""A file that is replaced by a copy of another one."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


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
    unless it `is_secret`. Raises OSError.
    """
    if not place.parent.is_dir():
        raise FileNotFoundError(2, "there is no such directory", str(place.parent))
    place.mkdir(mode=0o755, exist_ok=True)
    new = place / f".{name}.new"
    with suppress(FileNotFoundError):
        new.unlink()
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
