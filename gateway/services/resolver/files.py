"""The files of the gateway's own resolver: its configuration, its authorities, its directory.

The configuration and the authorities are in a directory of root's, where their reader cannot change
them. The resolver makes its socket in a directory of its own inside.
"""

import os
import stat
from pathlib import Path
from typing import Protocol

from gateway.errors import MissingError
from gateway.model.frozen import frozen
from gateway.model.name_server import RESOLVER_USER
from gateway.policy.limits import FEW_USERS, MORE_USERS
from gateway.policy.unbound import CERTIFICATES
from gateway.services.confined import command
from gateway.system.child import Program
from gateway.system.features import lacks_id, missing_capabilities
from gateway.system.process import find_program

PLACE = Path("/run/portcullis")
"""Nothing in it survives the container, and workloads have another one."""

LARGEST = 4 << 20
"""Bytes of a file with authorities that are read."""

ANOTHER_USER = ("CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID")
"""The capabilities that it takes to have it run as another user and to reach it then."""


class Home(Protocol):
    """Where the resolver runs: its files, and the program that is started."""

    @property
    def control(self) -> Path:
        """The socket that takes commands, as we reach it."""

    @property
    def socket(self) -> str:
        """The same path as the resolver makes it."""

    @property
    def zone(self) -> Path:
        """The rules for blocked names, as the resolver reads them."""

    @property
    def unconfined(self) -> tuple[str, str]:
        """Why it runs as root, and the remedy; both empty if it has a user of its own."""

    def prepare(self) -> None:
        """Make what it takes. Raises MissingError."""

    def readable_authorities(self) -> str:
        """Return where the resolver reads the authorities. Raises OSError."""

    def new_zone(self) -> int:
        """Return a descriptor to write the rules for blocked names to. Raises OSError."""

    def use_zone(self, written: int) -> None:
        """Have the resolver read what was `written` to that descriptor, whole. Raises OSError."""

    def program(self, text: str) -> Program:
        """Return the program with `text` as its configuration. Raises GatewayError, OSError."""


@frozen
class Files:
    """The files in `directory`; `authorities` is the file of the authorities that are trusted.

    The `Home` of a resolver that runs in the gateway's container.
    """

    directory: Path = PLACE
    authorities: str = CERTIFICATES

    @property
    def control(self) -> Path:
        """The socket that takes commands."""
        return self.directory / "names" / "control"

    @property
    def socket(self) -> str:
        """The same path: it has our file system."""
        return str(self.control)

    @property
    def unconfined(self) -> tuple[str, str]:
        """Why it runs as root, and the remedy; both empty if it has a user of its own."""
        if missing := ", ".join(missing_capabilities(*ANOTHER_USER)):
            return f"for want of {missing}", f"give the container `cap_add: [{missing}]`"
        return (f"because {FEW_USERS}", MORE_USERS) if lacks_id(RESOLVER_USER) else ("", "")

    @property
    def configuration(self) -> Path:
        """The file that unbound reads."""
        return self.directory / "unbound.conf"

    @property
    def zone(self) -> Path:
        """The rules for blocked names."""
        return self.directory / "blocked.rpz"

    @property
    def _new_zone(self) -> Path:
        """Those that are being written."""
        return self.zone.with_suffix(".new")

    def prepare(self) -> None:
        """Find unbound, and make the directories. Raises MissingError."""
        find_program("unbound")
        self.make_directories(0 if self.unconfined[0] else RESOLVER_USER)

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
        _write(copy, contents(Path(self.authorities)))
        return str(copy)

    def new_zone(self) -> int:
        """Return a descriptor to write the rules for blocked names to. Raises OSError."""
        return _new(self._new_zone)

    def use_zone(self, written: int) -> None:
        """Put the file of `new_zone` in place of the former one. Raises OSError."""
        del written
        self._new_zone.rename(self.zone)

    def configure(self, text: str) -> None:
        """Write the configuration. Raises OSError."""
        _write(self.configuration, text.encode())

    def program(self, text: str) -> Program:
        """Return the program with `text` as its configuration. Raises MissingError and OSError."""
        self.configure(text)
        user = 0 if self.unconfined[0] else RESOLVER_USER
        return Program(tuple(command(user, find_program("unbound"), "-c", str(self.configuration))))


def contents(path: Path) -> bytes:
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
