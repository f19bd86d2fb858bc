"""Reading secret files: small regular files, with a word about who else can read them."""

from pathlib import Path, PurePosixPath
from stat import S_IMODE, S_IROTH, S_ISREG, S_IXOTH
from typing import Final

from gateway.settings import wgquick
from gateway.settings.findings import Findings
from gateway.settings.values import shown

_LARGEST: Final = 64 * 1024


def inside(root: Path, path: PurePosixPath) -> Path:
    """Return where the container's absolute `path` is when its root is mounted at `root`."""
    return root / path.relative_to("/")


def exists(root: Path, path: PurePosixPath) -> bool:
    """Say whether something stands at `path`; what cannot be looked at counts as there."""
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

    With `secret`, a file that every user of the machine can read is told.
    """
    file = inside(root, path)
    try:
        status = file.stat()
        if not S_ISREG(status.st_mode):
            findings.wrong(
                where, f"{shown(str(path))} is no file; mount one there, not a directory"
            )
            return None
        if status.st_size > _LARGEST:
            findings.wrong(where, f"{shown(str(path))} is far too large for what belongs there")
            return None
        with file.open("rb") as stream:
            text = wgquick.decode(stream.read(_LARGEST))
        readable = status.st_mode & S_IROTH and file.parent.stat().st_mode & S_IXOTH
    except OSError as err:
        reason = err.strerror or "cannot be read"
        findings.wrong(
            where, f"{shown(str(path))}: {reason}; mount the file there, or correct this"
        )
        return None
    except ValueError as err:
        findings.wrong(where, f"{shown(str(path))} {err}")
        return None
    if secret and readable:
        mode = S_IMODE(status.st_mode)
        findings.warn(where, f"{path} can be read by everybody (mode {mode:o}); chmod 600 it")
    return text
