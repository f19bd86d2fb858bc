"""The resolver's configuration file, written in place."""

from pathlib import Path

from gateway.errors import NetworkError

FILE = Path("/etc/resolv.conf")


def read(path: Path) -> str:
    """Return the text of `path`, empty where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def write(path: Path, text: str) -> None:
    """Make `path` hold `text` and read it back; raise NetworkError with errno and the path.

    In place and not by a rename: Docker mounts the file, and the containers that share the
    gateway's network share the mount. A file that already holds `text` is left alone, so that
    a read-only one with the right content is no error.
    """
    try:
        if path.exists() and path.read_text("utf-8") == text:
            return
        path.write_text(text, "utf-8")
        found = path.read_text("utf-8")
    except OSError as err:
        raise NetworkError(
            f"write the resolver file: {err.strerror}", str(path), err.errno
        ) from err
    if found != text:
        raise NetworkError("write the resolver file: it reads back differently", str(path))
