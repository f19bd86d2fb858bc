"""A file that is replaced by a copy of another one."""

import os
from contextlib import suppress
from pathlib import Path


def replace_with_copy(place: Path, name: str, content: int) -> None:
    """Put a copy of the open file `content` in place of the one called `name`, whole or not at all.

    Makes the directory `place`, but not the one that it is in. Everybody may read the file. Raises
    OSError.
    """
    if not place.parent.is_dir():
        raise FileNotFoundError(2, "there is no such directory", str(place.parent))
    place.mkdir(mode=0o755, exist_ok=True)
    new = place / f".{name}.new"
    with suppress(FileNotFoundError):
        new.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(new, flags, 0o644), "wb") as file:  # noqa: PTH123 - a descriptor
            offset = 0
            while sent := os.sendfile(file.fileno(), content, offset, 1 << 20):
                offset += sent
            os.fsync(file.fileno())
        new.rename(place / name)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
