"""Writes files that are not there yet, with permissions that keep keys from others."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.model import Secret

COMPOSE: Final = "compose.yml"
OTHERS: Final = ("compose.yaml", "docker-compose.yml", "docker-compose.yaml")
"""What Compose reads too: the first of all four in its order (compose.yaml before compose.yml)."""
SECRETS: Final = "secrets"
PRIVATE, PUBLIC = 0o600, 0o644
IGNORE: Final = "# Keys: not for a repository.\n*\n"


def in_the_way(directory: Path, names: Mapping[str, Secret], *, force: bool) -> list[str]:
    """Return the files that keep Compose from using ours, or that would be overwritten."""
    ours = [COMPOSE, *(f"{SECRETS}/{name}" for name in names)]
    found = [name for name in ours if not force and _is_there(directory / name)]
    return found + [name for name in OTHERS if _is_there(directory / name)]


def write(
    directory: Path, text: str, secrets: Mapping[str, Secret], *, force: bool = False
) -> None:
    """Write the compose file and the secrets to `directory`, the secrets first.

    With `force` files of these names are replaced. At no moment can other users read the secrets.
    As root, everything gets the owner of the directory, so that its user can edit it. Raises
    OSError: FileExistsError where there is one already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    folder = directory / SECRETS
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        _own(folder, directory)
    if not _is_there(folder / ".gitignore"):
        _write(folder / ".gitignore", IGNORE, PUBLIC, directory)
    for name, secret in secrets.items():
        _replace(folder / name, force=force)
        _write(folder / name, secret.reveal(), PRIVATE, directory)
    _replace(directory / COMPOSE, force=force)
    _write(directory / COMPOSE, text, PUBLIC, directory)


def _is_there(path: Path) -> bool:
    """Return whether there is a file, or a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def _replace(path: Path, *, force: bool) -> None:
    if force:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str, mode: int, directory: Path) -> None:
    """Make a new file: never one that is there, and never through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode & 0o700), "w", encoding="utf-8") as file:
        file.write(text)
    _own(path, directory)
    path.chmod(mode)


def _own(path: Path, directory: Path) -> None:
    """Give `path` the owner of `directory`, where we may: files of root cannot be edited."""
    wanted = directory.stat()
    if os.geteuid() == 0 and (path.stat().st_uid, path.stat().st_gid) != (
        wanted.st_uid,
        wanted.st_gid,
    ):
        os.chown(path, wanted.st_uid, wanted.st_gid, follow_symlinks=False)
