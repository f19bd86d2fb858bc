"""The resolver file that the gateway shares with its workloads, written in place.

Workloads can do with it what the owner of a file can: take a lease on it, lock it, make it large,
write to it for minutes in one call. So it is opened without waiting, and stays open for as long as
the process lives: the kernel gives no other process a lease on a file that is open for writing, and
does not let it be run as a program (fs/locks.c, check_conflicting_open; fcntl(2), "Leases";
execve(2), ETXTBSY).
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from gateway.errors import NetworkError

FILE = Path("/etc/resolv.conf")

LARGEST = 1 << 16
"""Bytes that are read: workloads can make the file as large as they like."""

AT_ONCE = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""Another process's lease then refuses (EWOULDBLOCK), and a FIFO does not wait for its writer."""


class ResolverFile:
    """The file at `path`; every failure is a NetworkError with errno and the path."""

    def __init__(self, path: Path = FILE) -> None:
        self._path = path
        self._held: int | None = None

    def read(self) -> str:
        """Return the text of the file."""
        try:
            return self._bytes().decode("utf-8", "replace")
        except OSError as err:
            raise self._error("read", err) from err

    def write(self, text: str) -> None:
        """Make the file hold `text`, and read it back.

        In place and not by a rename: Docker mounts the file, and the containers that share the
        gateway's network share the mount. A file that already holds `text` is left alone, so that a
        read-only one with the right content is not an error.
        """
        wanted = text.encode()
        try:
            with suppress(OSError):  # one that is not there yet, or can only be written
                if self._bytes() == wanted:
                    return
            _replace(self._writable(os.O_CREAT), wanted)
            found = self._bytes()
        except OSError as err:
            raise self._error("write", err) from err
        if found != wanted:
            raise NetworkError("write the resolver file: it reads back differently", self._subject)

    def close(self) -> None:
        """Let go of the file."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @property
    def _subject(self) -> str:
        return str(self._path)

    def _error(self, what: str, err: OSError) -> NetworkError:
        reason = err.strerror
        if isinstance(err, BlockingIOError):
            reason = "another process has a lease on it"
        return NetworkError(f"{what} the resolver file: {reason}", self._subject, err.errno)

    def _bytes(self) -> bytes:
        with suppress(OSError):  # one that can only be read
            return os.pread(self._writable(), LARGEST, 0)
        descriptor = _open(self._path, os.O_RDONLY)
        try:
            return os.pread(descriptor, LARGEST, 0)
        finally:
            os.close(descriptor)

    def _writable(self, flags: int = 0) -> int:
        """Return the held descriptor; open it where it is another file's, or none. OSError."""
        if self._held is not None and not self._is_there(self._held):
            self.close()
        if self._held is None:
            self._held = _open(self._path, os.O_RDWR | flags)
        return self._held

    def _is_there(self, descriptor: int) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        return False


def _open(path: Path, flags: int) -> int:
    """Open the regular file at `path` without waiting. Raises OSError."""
    descriptor = os.open(path, flags | AT_ONCE, 0o644)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(None, "it is not a regular file")


def _replace(descriptor: int, data: bytes) -> None:
    """Make the file hold `data`; a full disk leaves what it held before. Raises OSError.

    The space is taken first, and what is too long is cut off last.
    """
    os.posix_fallocate(descriptor, 0, len(data))
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)
    os.ftruncate(descriptor, len(data))
