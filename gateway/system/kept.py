"""A file in the container's own layer: it survives a restart, and no workload can reach it."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from gateway.errors import NetworkError

DIRECTORY = Path("/var/lib/portcullis")

LARGEST = 1 << 16
IN_MEMORY = {"tmpfs", "ramfs"}
"""File systems that are empty again when the container starts again."""

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class KeptFile:
    """The file `name` in `directory`; every failure is a NetworkError with errno and the path."""

    def __init__(
        self,
        directory: Path = DIRECTORY,
        name: str = "resolvers",
        mounts: Path = Path("/proc/self/mountinfo"),
    ) -> None:
        self._directory = directory
        self._path = directory / name
        self._mounts = mounts

    def read(self) -> str | None:
        """Return its text, None where there is none; one that others can write to is an error."""
        try:
            descriptor = os.open(
                self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except FileNotFoundError:
            return None
        except OSError as err:
            raise self._error("read", err) from err
        status = os.fstat(descriptor)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not is_ours or status.st_mode & OTHERS_WRITE:
            os.close(descriptor)
            raise NetworkError("it is not a file that only we can write", str(self._path))
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            try:
                return file.read(LARGEST).decode("ascii", "replace")
            except OSError as err:
                raise self._error("read", err) from err

    def write(self, text: str) -> None:
        """Put a file with `text` in place of the former one, and read it back."""
        new = self._path.with_suffix(".new")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._is_in_memory():
                raise NetworkError("it would not survive a restart (tmpfs)", str(self._directory))
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600), "wb") as file:  # noqa: PTH123 - see above
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            new.rename(self._path)
        except OSError as err:
            with suppress(OSError):
                new.unlink()
            raise self._error("write", err) from err
        if self.read() != text:
            raise NetworkError("it reads back differently", str(self._path))

    def _is_in_memory(self) -> bool:
        """Return whether the directory's file system is in memory (proc_pid_mountinfo(5))."""
        device = self._directory.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in self._mounts.read_text("utf-8", "replace").splitlines():
            place, _, kind = line.partition(" - ")
            if place.split()[2] == wanted:
                return kind.split()[0] in IN_MEMORY
        return False

    def _error(self, what: str, err: OSError) -> NetworkError:
        return NetworkError(f"{what}: {err.strerror}", str(self._path), err.errno)
