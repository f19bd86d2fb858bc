"""Reads secret files: small regular files. Reports those that every user can read."""

import os
from pathlib import Path, PurePosixPath
from stat import S_IROTH, S_ISDIR, S_ISREG, S_IXOTH
from typing import Final

from gateway.errors import is_shortage
from gateway.settings import wgquick
from gateway.settings.findings import Findings
from gateway.settings.values import safe_quote, safe_text

LARGEST: Final = 64 * 1024
"""The largest file with a text, in bytes."""


def inside(root: Path, path: PurePosixPath) -> Path:
    """Return where the container's absolute `path` is when its root is mounted at `root`."""
    return root / path.relative_to(path.anchor or "/")  # it may be two slashes


def exists(root: Path, path: PurePosixPath) -> bool:
    """Whether something is at `path`; True if that cannot be determined."""
    try:
        inside(root, path).stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def read(
    root: Path, path: PurePosixPath, where: str, findings: Findings, *, secret: bool
) -> str | None:
    """Return the text of the file at `path`, or None and a problem at `where`.

    With `secret`, a file that every user of the host can read is reported.
    """
    try:
        raw, open_to_all = contents(inside(root, path), LARGEST)
        text = wgquick.decode(raw)
    except OSError as err:
        if is_shortage(err):
            raise  # the file may be there: the gateway tries again
        reason = f"cannot be read ({err.strerror or 'no reason given'}); mount the file there"
    except ValueError as err:
        reason = str(err)
    else:
        if secret and open_to_all:
            report_open_to_all(path, where, findings)
        return text
    findings.problem(where, reason if where == str(path) else f"{safe_quote(str(path))} {reason}")
    return None


def report_open_to_all(path: PurePosixPath, where: str, findings: Findings) -> None:
    """Report that every user of the host can read the file at `path`."""
    shown = safe_text(str(path))
    findings.warn(where, f"{shown} is readable by every user of the host; run chmod 600 on it")


def contents(file: Path, largest: int) -> tuple[bytes, bool]:
    """Return the bytes of a file, and whether every user of the machine can read it.

    Raises OSError, and ValueError with what is wrong: it is not a file, or has more bytes. Does not
    wait: a lease of another process is BlockingIOError.
    """
    status = file.stat()
    if S_ISDIR(status.st_mode):
        raise ValueError(
            "is a directory; Docker creates one if the file to mount does not exist on the host: "
            "remove it, correct the path of the mount, and start again"
        )
    if not S_ISREG(status.st_mode):
        raise ValueError("is not a regular file; mount a file there")
    if status.st_size > largest:
        raise ValueError(f"is larger than {largest // 1024} KiB; mount another file")
    with open(file, "rb", opener=at_once) as stream:
        if not S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("is not a regular file any more; mount a file there")
        raw = stream.read(largest)
    folder = file.resolve().parent.stat().st_mode
    return raw, bool(status.st_mode & S_IROTH and folder & S_IXOTH)


def at_once(path: str, flags: int) -> int:
    """Open a file without waiting, whatever takes its place: a pipe would never open."""
    return os.open(path, flags | os.O_NONBLOCK)
