"""The resolver's configuration file, written in place."""

from pathlib import Path

from gateway.errors import NetworkError

FILE = Path("/etc/resolv.conf")


LARGEST = 1 << 16
"""Bytes that are read: workloads can write the file, and make it as large as they like."""


def read(path: Path) -> str:
    """Return the text of `path`, empty where it cannot be read."""
    try:
        return _bytes(path).decode("utf-8", "replace")
    except OSError:
        return ""


def write(path: Path, text: str) -> None:
    """Make `path` hold `text` and read it back; raise NetworkError with errno and the path.

    In place and not by a rename: Docker mounts the file, and the containers that share the
    gateway's network share the mount. A file that already holds `text` is left alone, so that
    a read-only one with the right content is no error.
    """
    wanted = text.encode()
    try:
        if path.exists() and _bytes(path) == wanted:
            return
        path.write_bytes(wanted)
        found = _bytes(path)
    except OSError as err:
        raise NetworkError(
            f"write the resolver file: {err.strerror}", str(path), err.errno
        ) from err
    if found != wanted:
        raise NetworkError("write the resolver file: it reads back differently", str(path))


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST)
