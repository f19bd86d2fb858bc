"""The control API of a gateway that is not there, served by the real process, and its clients."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model import HostPort, Secret
from gateway.model.control import Auth, Role
from gateway.services.control.service import ControlServer
from tests.fakes.controlled import KEY, Controlled

PATIENCE = 20.0
PORT = Role("sync", Auth.BASIC, frozenset({"GET /v1/portforward"}), Secret("me:a password"))
FREE = Role("everybody", Auth.NONE, frozenset({"GET /v1/version"}))


@dataclass
class Reply:
    """What a client got."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The JSON in the body."""
        return json.loads(self.body)


@dataclass
class Served:
    """A gateway, its service, and where that listens."""

    gateway: Controlled
    server: ControlServer
    port: int

    async def ask(self, route: str, *headers: str, body: bytes = b"", key: str = KEY) -> Reply:
        """Send a request, with `key` unless it is empty."""
        method, path = route.split(" ", 1)
        own = [] if any(it.startswith("Host:") for it in headers) else ["Host: gateway:8000"]
        own += [f"X-API-Key: {key}"] if key else []
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *own, *headers, *length, "", ""])
        return read(await self.raw(head.encode() + body))

    async def raw(self, sent: bytes, source: str = "127.0.0.1") -> bytes:
        """Send bytes from the address `source`, and return all that comes back."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0)
        )
        try:
            writer.write(sent)
            with suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE):
                    return await reader.read()
            return b""
        finally:
            writer.close()

    @property
    def process(self) -> Path:
        """What /proc has of the process that serves."""
        found = [it for it in Path("/proc").iterdir() if it.name.isdigit() and is_ours(it)]
        assert len(found) == 1
        return found[0]


def is_ours(process: Path) -> bool:
    """Return whether a process is our child and serves the control API."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == os.getpid() and b"control.process" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def read(answer: bytes) -> Reply:
    """Return the parts of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Reply(int(first.split()[1]), headers, body)


@asynccontextmanager
async def serving(*roles: Role, gateway: Controlled | None = None) -> AsyncIterator[Served]:
    """Serve the API of a gateway, for these roles or the one for everything."""
    gateway = gateway or Controlled()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = gateway.server(HostPort("127.0.0.1", port), *roles)
    run = asyncio.create_task(server.run())
    served = Served(gateway, server, port)
    try:
        await until(lambda: server.report().is_running)
        yield served
    finally:
        run.cancel()
        await asyncio.wait([run])


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - processes do not set events
            await asyncio.sleep(0.02)


@asynccontextmanager
async def events(it: Served, source: str = "127.0.0.1") -> AsyncIterator[asyncio.StreamReader]:
    """Yield a stream of events, once it has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port, local_addr=(source, 0))
    try:
        head = f"GET /api/v1/events HTTP/1.1\r\nHost: g\r\nX-API-Key: {KEY}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"event: state\n")
        yield reader
    finally:
        writer.close()


async def next_event(reader: asyncio.StreamReader) -> tuple[str, Any]:
    """Return the next event of a stream: its name, and what it says."""
    async with asyncio.timeout(PATIENCE):
        name = (await reader.readuntil(b"event: ")) and (await reader.readline())
        data = (await reader.readuntil(b"data: ")) and (await reader.readline())
    return name.decode().strip(), json.loads(data)
