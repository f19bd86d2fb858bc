"""Fetches the lists of servers that VPN providers publish, and keeps them in files.

This process only opens the connection and moves the result into its place, unread: a process
without rights does the rest (`list_process`).
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.errors import LoginError, MissingError, NetworkError
from gateway.model import Address, Errand, ServerList
from gateway.policy import marks
from gateway.policy.states import Transfer
from gateway.providers.kept import PLACES, file_name
from gateway.services.own_module import command_of
from gateway.system import process
from gateway.system.aside import Aside
from gateway.system.copied import keep_copy
from gateway.system.netns import OWN, Netns

CONNECT_TIME = 8.0
"""Seconds until a host has to have accepted the connection: three tries of TCP."""
STORE_TIME = 5.0
SOCKET, RESULT = 3, 4
"""The descriptors of the process that fetches: the connected socket, and a file for the result."""
FAILED = 2
"""Its exit code if it could not fetch the list: the result is the reason."""
REFUSED = 4
"""The same if a provider does not accept the user."""
NOTHING: Mapping[int, int] = {}
PASSED_ON = ("SSL_CERT_FILE", "SSL_CERT_DIR")
LONGEST_REASON = 300
_MODULE = "gateway.services.fetching.list_process"


class AnswerError(NetworkError):
    """What a host has answered is not to be used."""


class ListFetcher:
    """Fetches one list at a time out of `netns`; see `gateway.daemon.ports.ProviderHosts`.

    Its packets have a secret mark, for the hole that is made for them; with `device` they have no
    mark, and leave through that interface or not at all; with `is_plain` they have neither.
    `environ` may name other certificates than the system's. Lists are kept in the first of `places`
    that takes them.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        netns: Netns = OWN,
        *,
        device: str = "",
        is_plain: bool = False,
        places: Sequence[Path] = tuple(map(Path, PLACES)),
    ) -> None:
        self._env = {name: environ[name] for name in PASSED_ON if name in environ}
        self._netns = netns
        self._device = device
        self._has_mark = not device and not is_plain
        self._places = places
        self._aside = Aside("the list of servers")
        self._socket: socket.socket | None = None
        self._server: tuple[str, int] = ("", 0)

    def open(self, errand: Errand, server: Address) -> Transfer:
        """Make the socket for a connection to `server`; see `ProviderHosts.open`.

        Raises NetworkError.
        """
        self._close()
        mark = marks.secret(secrets.randbits(31)) if self._has_mark else 0
        family = socket.AF_INET6 if server.version == 6 else socket.AF_INET  # noqa: PLR2004
        try:
            self._socket = self._netns.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            if mark:
                wanted = mark.to_bytes(4, sys.byteorder)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, wanted)
            elif device := self._device.encode():
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            self._socket.bind(("", 0))
        except OSError as err:
            self._close()
            what = f"make a socket for a provider: {err.strerror}"
            raise NetworkError(what, str(server), err.errno) from err
        self._server = str(server), errand.port
        return Transfer(server, errand.port, self._socket.getsockname()[1], mark)

    async def fetch(self, listed: ServerList) -> Path:
        """Fetch the list and keep it; see `ProviderHosts.fetch`. Return in which file it is.

        Raises GatewayError and OSError.
        """
        files: list[Path] = []
        async with self._answer(command(listed), listed.host) as result:
            await self._aside.run_with(
                result, lambda own: files.append(self._keep(listed, own)), STORE_TIME
            )
        return files[0]

    @asynccontextmanager
    async def _answer(
        self, argv: Sequence[str], host: str, more: Mapping[int, int] = NOTHING
    ) -> AsyncIterator[int]:
        """Connect, and yield the file with what the child `argv` makes of the host's answer.

        `more` are descriptors of ours by the number that they have in the child. Raises
        GatewayError and OSError.
        """
        channel, self._socket = self._socket, None
        if channel is None:
            raise NetworkError("there is no socket", host)
        result = os.memfd_create("answer", os.MFD_CLOEXEC)
        try:
            await self._connect(channel)
            await self._run(argv, {SOCKET: channel.fileno(), RESULT: result, **more}, host)
            yield result
        finally:
            channel.close()
            os.close(result)

    async def _connect(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIME):
                await loop.sock_connect(channel, self._server)
        except TimeoutError as err:
            what = f"no connection after {CONNECT_TIME:g} s"
            raise NetworkError(what, self._server[0]) from err
        except OSError as err:
            reason = os.strerror(err.errno) if err.errno else str(err)
            raise NetworkError(f"connect: {reason}", self._server[0]) from err
        channel.setblocking(True)

    async def _run(self, argv: Sequence[str], numbers: Mapping[int, int], host: str) -> None:
        """Have the child `argv` read the answer, with these descriptors.

        Raises GatewayError; AnswerError or LoginError with the reason that the child gives.
        """
        child = process.start(
            argv, on_line=_ignored, env=self._env, descriptors=numbers, leaves_nothing=True
        )
        try:
            await asyncio.wait([child.exited])  # itself, it would be cancelled with us
        finally:
            await child.stop()
        code = child.exited.result()
        if code in {FAILED, REFUSED}:
            reason = os.pread(numbers[RESULT], LONGEST_REASON, 0).decode(errors="replace")
            error = LoginError if code == REFUSED else AnswerError
            raise error("".join(filter(str.isprintable, reason)), host)
        if code:
            raise child.end

    def _keep(self, listed: ServerList, result: int) -> Path:
        """Put the list into the first place that takes it; return where. Raises MissingError."""
        try:
            return keep_copy(self._places, file_name(listed.provider), result)
        except OSError as err:
            raise MissingError(
                f"the list of servers cannot be kept ({err.filename}: {err.strerror})",
                "mount a volume that the gateway can write to at /config",
            ) from err

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def command(listed: ServerList) -> tuple[str, ...]:
    """Return the command of the process that fetches."""
    place = (listed.provider, listed.host, listed.target, str(listed.port))
    return command_of(_MODULE, *place)


def _ignored(_line: str) -> None:
    """Drop a line of the child: it writes none, unless Python itself fails."""
