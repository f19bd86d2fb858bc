"""Writes files that are not there yet, with permissions that keep keys from others."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
    OSError: FileExistsError where there is one already, NotADirectoryError where `secrets` is a
    link: that user could otherwise have root write, or give away, a file somewhere else.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _opened(directory, os.O_DIRECTORY) as place:
        with _secrets(directory, place) as folder:
            with suppress(FileExistsError):
                _write(folder, ".gitignore", IGNORE, PUBLIC)
            for name, secret in secrets.items():
                _replace(folder, name, force=force)
                _write(folder, name, secret.reveal(), PRIVATE)
        _replace(place, COMPOSE, force=force)
        _write(place, COMPOSE, text, PUBLIC)


@contextmanager
def _secrets(directory: Path, place: int) -> Iterator[int]:
    """Yield the folder of the secrets in `directory`, which is open as `place`; make it if needed.

    Raises OSError.
    """
    made = True
    try:
        os.mkdir(SECRETS, 0o700, dir_fd=place)
    except FileExistsError:
        made = False
    try:
        descriptor = os.open(SECRETS, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except NotADirectoryError as err:
        what = "is a link or a file; remove it, or use another --directory"
        raise NotADirectoryError(err.errno, what, str(directory / SECRETS)) from err
    try:
        if made:
            _own(descriptor, place)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_there(path: Path) -> bool:
    """Return whether there is a file, or a link that leads nowhere."""
    return path.is_symlink() or path.exists()


@contextmanager
def _opened(path: Path | str, flags: int, place: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, PRIVATE, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(place: int, name: str, *, force: bool) -> None:
    if force:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=place)


def _write(place: int, name: str, text: str, mode: int) -> None:
    """Make a new file: never one that is there, and never through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with _opened(name, flags, place) as descriptor:
        with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        _own(descriptor, place)
        os.fchmod(descriptor, mode)


def _own(descriptor: int, directory: int) -> None:
    """Give a file the owner of `directory`, where we may: files of root cannot be edited."""
    wanted, found = os.fstat(directory), os.fstat(descriptor)
    owner = wanted.st_uid, wanted.st_gid
    if os.geteuid() == 0 and (found.st_uid, found.st_gid) != owner:
        os.fchown(descriptor, *owner)
