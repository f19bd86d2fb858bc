"""The files of the gateway's own resolver: its configuration, its authorities, its directory.

The configuration and the authorities are in a directory of root's, where their reader cannot change
them. The resolver makes its socket in a directory of its own inside.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import MissingError
from gateway.policy.unbound import CERTIFICATES

PLACE = Path("/run/portcullis")
"""Nothing in it survives the container, and workloads have another one."""

LARGEST = 4 << 20
"""Bytes of a file with authorities that are read."""


@dataclass(frozen=True)
class Files:
    """The files in `directory`; `authorities` is the file of the authorities that are trusted."""

    directory: Path = PLACE
    authorities: str = CERTIFICATES

    @property
    def control(self) -> Path:
        """The socket that takes commands."""
        return self.directory / "names" / "control"

    @property
    def configuration(self) -> Path:
        """The file that unbound reads."""
        return self.directory / "unbound.conf"

    @property
    def zone(self) -> Path:
        """The rules for blocked names."""
        return self.directory / "blocked.rpz"

    def make_directories(self, user: int) -> None:
        """Make both directories, and remove the socket of a former process of `user`.

        Raises MissingError where nothing can be written.
        """
        own = self.control.parent
        try:
            self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.directory.chmod(0o711)
            own.mkdir(mode=0o700, exist_ok=True)
            os.chown(own, user, user, follow_symlinks=False)
            self.control.unlink(missing_ok=True)
        except OSError as err:
            raise MissingError(
                f"{self.directory} cannot be written ({err.strerror})",
                f"give the container `tmpfs: [{self.directory}]`",
            ) from err

    def readable_authorities(self) -> str:
        """Return the path of the authorities; a file of the user's is copied. Raises OSError.

        It may not be readable for the resolver's user.
        """
        if self.authorities == CERTIFICATES:
            return CERTIFICATES
        copy = self.directory / "authorities.pem"
        _write(copy, _read(Path(self.authorities)))
        return str(copy)

    def new_zone(self) -> int:
        """Return a descriptor to write the rules for blocked names to. Raises OSError."""
        return _new(self.zone)

    def configure(self, text: str) -> None:
        """Write the configuration. Raises OSError."""
        _write(self.configuration, text.encode())


def _read(path: Path) -> bytes:
    """Return the contents of a regular file, as far as LARGEST. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, f"{path} is not a regular file")
        return file.read(LARGEST)


def _write(path: Path, data: bytes) -> None:
    """Make a new file at `path`, readable for every user. Raises OSError."""
    with open(_new(path), "wb") as file:
        file.write(data)


def _new(path: Path) -> int:
    """Make a new file at `path`, readable for every user. Raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.fchmod(descriptor, 0o644)
    return descriptor
