"""Has a process without rights look at the torrent client (`process`).

The gateway opens what the process works with, in the workloads' namespace, which may be that of a
vault: connections to the client and to nothing else, and a socket to ask the kernel with.
"""

import asyncio
import errno
import json
import socket
from contextlib import suppress
from typing import Any

from gateway.errors import GatewayError, ProcessError
from gateway.model import INTERFACE
from gateway.model.port_client import ClientUrl
from gateway.policy.port_client import Look, Outcome, Wanted
from gateway.services.own_module import command_of
from gateway.services.port_client.messages import (
    CHANNEL,
    CONNECT,
    LARGEST,
    LOOK_TIME,
    MOST_CONNECTIONS,
)
from gateway.system.child import NEVER, Child, Program
from gateway.system.listeners import NETLINK_SOCK_DIAG
from gateway.system.netns import Netns

NAME = "the process for the torrent client"
CONNECT_TIME = 3.0
"""Seconds until the client has to have accepted a connection."""
PATIENCE = 5.0
"""Seconds that the process may take longer than a look."""
LONGEST_DETAIL, MOST_SEEN = 100, 64
_MODULE = "gateway.services.port_client.process"


class Talk:
    """The process, and what it is asked; to be used on the loop."""

    def __init__(self, netns: Netns) -> None:
        """`netns` is the namespace of the workloads."""
        self._netns = netns
        self._child: Child | None = None
        self._channel: socket.socket | None = None
        self._starts = 0

    @property
    def starts(self) -> int:
        """How many processes there were."""
        return self._starts

    async def look(self, wanted: Wanted, unless: tuple[int, ...] | None) -> Look | None:
        """Have the client do what is `wanted`, and return what came of it.

        None if nothing was tried, because the sockets of its web interface are still `unless`.
        Raises GatewayError and OSError; the process is ended then, and started again next time.
        """
        try:
            channel = await self._running()
            said = await self._asked(channel, wanted.client.url, _request(wanted, unless))
            return _read(said, wanted.port)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the process, if there is one."""
        child, self._child = self._child, None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if child is not None:
            with suppress(GatewayError):
                await child.stop()

    async def _running(self) -> socket.socket:
        """Return the channel to the process, which is started if necessary."""
        if self._child is not None and self._channel is not None and self._child.running:
            return self._channel
        await self.stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        with theirs:
            program = Program(
                command_of(_MODULE), descriptors={CHANNEL: theirs.fileno()}, grace=0.0
            )
            self._child = Child(program, restart=NEVER)
            await self._child.start()
        self._starts += 1
        return ours

    async def _asked(
        self, channel: socket.socket, url: ClientUrl, request: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the answer of the process. Raises ProcessError and OSError."""
        request["device"] = self._device()
        with self._netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            socket.send_fds(channel, [json.dumps(request).encode()], [kernel.fileno()])
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOK_TIME + PATIENCE):
                for _ in range(MOST_CONNECTIONS + 1):
                    said = await loop.sock_recv(channel, LARGEST)
                    if said != CONNECT:
                        return await self._answer(said)
                    await self._connect(channel, url)
        except TimeoutError as err:
            raise ProcessError(NAME, "does not answer") from err
        raise ProcessError(NAME, "wants too many connections")

    def _device(self) -> int:
        """Return the index of the tunnel's link, 0 if it has just gone. Raises OSError."""
        try:
            return self._netns.index_of(INTERFACE)
        except OSError as err:
            if err.errno != errno.ENODEV:
                raise
            return 0

    async def _answer(self, said: bytes) -> dict[str, Any]:
        """Return an answer as it is. Raises ProcessError."""
        if not said and self._child is not None and self._child.process is not None:
            await asyncio.wait([self._child.process.exited], timeout=PATIENCE)
            if not self._child.running:
                raise self._child.process.end
        try:
            found = json.loads(said)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ProcessError(NAME, "answers wrongly")
        return found

    async def _connect(self, channel: socket.socket, url: ClientUrl) -> None:
        """Hand over a connection to the client, or the reason why not. Raises OSError."""
        family = socket.AF_INET6 if url.address.version == 6 else socket.AF_INET  # noqa: PLR2004
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        with self._netns.socket(family, kind) as made:
            try:
                async with asyncio.timeout(CONNECT_TIME):
                    place = (str(url.address), url.port)
                    await asyncio.get_running_loop().sock_connect(made, place)
            except TimeoutError:
                channel.send(str(errno.ETIMEDOUT).encode())
            except OSError as err:
                channel.send(str(err.errno or errno.EIO).encode())
            else:
                socket.send_fds(channel, [CONNECT], [made.fileno()])


def _request(wanted: Wanted, unless: tuple[int, ...] | None) -> dict[str, Any]:
    """Return what the process is asked for; the password goes only there."""
    client, url = wanted.client, wanted.client.url
    return {
        "client": {
            "kind": client.kind,
            "address": str(url.address),
            "port": url.port,
            "path": url.path,
            "tls": url.tls,
            "user": client.user,
            "password": client.password.reveal(),
        },
        "port": wanted.port,
        "addresses": [str(it) for it in wanted.addresses],
        "web": url.port if url.address.is_loopback else 0,
        "unless": None if unless is None else list(unless),
    }


def _read(said: dict[str, Any], port: int) -> Look | None:
    """Return an answer of the process, which may be wrong. Raises ProcessError."""
    if not said:
        return None
    outcome, detail, seen = said.get("outcome"), said.get("detail"), said.get("seen")
    if (
        not isinstance(outcome, str)
        or outcome not in {it.value for it in Outcome}
        or not isinstance(detail, str)
        or not isinstance(seen, list)
        or {type(it) for it in seen} - {int}
    ):
        raise ProcessError(NAME, "answers wrongly")
    shown = "".join(c if c.isprintable() and c.isascii() else "?" for c in detail[:LONGEST_DETAIL])
    changed = said.get("changed") is True
    return Look(Outcome(outcome), port, shown, changed=changed, seen=tuple(seen[:MOST_SEEN]))
