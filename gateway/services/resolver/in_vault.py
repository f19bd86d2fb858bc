"""Where the gateway's own resolver runs with a vault: in there, started by the vault.

It shares no file with the gateway. What it reads comes as descriptors of files in memory, which
no other process has. Its socket is in a directory of the vault.
"""

import os
from contextlib import suppress
from pathlib import Path

from gateway.model.name_server import RESOLVER_USER
from gateway.policy.unbound import CERTIFICATES
from gateway.services.resolver.files import contents
from gateway.system.child import Program
from gateway.system.in_memory import sealed
from gateway.system.vault import NAMES, VaultNetns
from gateway.system.vault_child import start_as, user_for

CONTROL = "control"
NEEDS = ("CHOWN", "KILL", "NET_ADMIN", "SETGID", "SETUID")
CONFIGURATION, AUTHORITIES, ZONE = 41, 42, 43
"""Its descriptors (see `vault_process.CHANNEL`)."""
CONFIGURED = f"/dev/fd/{CONFIGURATION}"
"""Where it finds its configuration, which it reads again at a reload."""


class FilesInVault:
    """The `Home` of a resolver in the vault `netns`; it is to trust the file `authorities`."""

    def __init__(self, netns: VaultNetns, authorities: str = CERTIFICATES) -> None:
        self._netns = netns
        self._authorities = authorities
        self._user = RESOLVER_USER
        self._descriptors: dict[int, int] = {}
        self._zone = -1

    @property
    def control(self) -> Path:
        """The socket that takes commands, as we reach it."""
        return self._netns.directory / NAMES.name / CONTROL

    @property
    def socket(self) -> str:
        """The same path as the resolver makes it."""
        return str(NAMES / CONTROL)

    @property
    def zone(self) -> Path:
        """The rules for blocked names, as the resolver reads them."""
        return Path(f"/dev/fd/{ZONE}")

    @property
    def unconfined(self) -> tuple[str, str]:
        """Why it runs as root, and the remedy; both empty if it has a user of its own."""
        if self._user:
            return "", ""
        return (
            "because the vault lacks capabilities, or gets no new privileges",
            f"give the vault `cap_add: [{', '.join(NEEDS)}]`, and not no-new-privileges",
        )

    def prepare(self) -> None:
        """Find out as which user it can run, and remove the socket of a former process.

        Raises MissingError and OSError.
        """
        self._user = user_for(self._netns, RESOLVER_USER)
        with suppress(OSError):
            self.control.unlink(missing_ok=True)

    def readable_authorities(self) -> str:
        """Return where the resolver reads the authorities. Raises OSError."""
        if self._authorities == CERTIFICATES:
            return CERTIFICATES
        self._write(AUTHORITIES, contents(Path(self._authorities)))
        return f"/dev/fd/{AUTHORITIES}"

    def new_zone(self) -> int:
        """Return a descriptor to write the rules for blocked names to. Raises OSError."""
        return os.memfd_create("zone", os.MFD_CLOEXEC)

    def use_zone(self, written: int) -> None:
        """Give the resolver what was `written`. Raises OSError.

        While it runs, that goes into the file that it has, and reads again. It has a descriptor to
        read only, and may not open it to write.
        """
        if self._zone < 0:
            self._zone = made = os.dup(written)
            os.fchmod(made, 0o444)
            self._descriptors[ZONE] = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
            return
        os.ftruncate(self._zone, 0)
        os.lseek(self._zone, 0, os.SEEK_SET)
        offset = 0
        while sent := os.sendfile(self._zone, written, offset, 1 << 24):
            offset += sent

    def program(self, text: str) -> Program:
        """Return the program with `text` as its configuration. Raises OSError."""
        self._write(CONFIGURATION, text.encode())
        if str(self.zone) not in text and self._zone >= 0:
            os.close(self._descriptors.pop(ZONE))
            os.close(self._zone)
            self._zone = -1
        return Program(
            ("unbound", "-c", CONFIGURED),
            descriptors=dict(self._descriptors),
            start=start_as(self._user),
        )

    def _write(self, number: int, data: bytes) -> None:
        """Make the file that will be the resolver's descriptor `number`. Raises OSError."""
        made = sealed("resolver", data)
        if former := self._descriptors.pop(number, 0):
            os.close(former)
        self._descriptors[number] = made
