"""A SOCKS5 server for TCP connections (RFC 1928, RFC 1929), as `socks_process` runs it.

Standard library only. What it refuses by itself only saves the way to the kernel, which refuses all
that is not for the tunnel (P19).
"""

import asyncio
import errno
import hmac
import ipaddress
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from gateway.services.proxies.relay import relay

MOST_CONNECTIONS = 512
MOST_OF_ONE = 256
"""Clients at a time, and those from one address. Others are hung up on."""
GREETING_SECONDS = 10.0
"""How long a client may take to say what it wants."""
CONNECT_SECONDS = 20.0
IDLE_SECONDS = 600.0
"""How long nothing may move in either direction."""
WRONG_SECONDS = 2.0
"""How long a wrong password is answered late; one at a time of each address."""
MOST_ADDRESSES = 4
"""Addresses of a name that are tried."""
NAMES_AT_ONCE = 16

VERSION, ACCOUNT_VERSION = 5, 1
NO_ACCOUNT, BY_ACCOUNT, NO_METHOD = 0, 2, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4
SUCCEEDED, FAILED, NOT_ALLOWED, NO_NETWORK, NO_HOST, REFUSED, TOO_LATE, NO_COMMAND, NO_KIND = range(
    9
)
"""The replies of RFC 1928, section 6."""

REPLIES = {
    errno.ECONNREFUSED: REFUSED,
    errno.ENETUNREACH: NO_NETWORK,
    errno.EHOSTUNREACH: NO_HOST,
    errno.EACCES: NOT_ALLOWED,
    errno.EPERM: NOT_ALLOWED,
    errno.ETIMEDOUT: TOO_LATE,
}


class RefusedError(Exception):
    """What is asked for is not done; `reply` says why."""

    def __init__(self, reply: int) -> None:
        super().__init__(reply)
        self.reply = reply


class HungUpError(Exception):
    """The client does not speak as it should, or has gone."""


class Configuration(NamedTuple):
    """How to serve; see `socks_process`."""

    listen: list[str]
    port: int
    account: tuple[bytes, bytes] | None
    subnets: tuple[Any, ...] | None

    @classmethod
    def of(cls, text: bytes) -> "Configuration":
        """Return the configuration that a file has."""
        given = json.loads(text)
        account, subnets = given["account"], given["subnets"]
        return cls(
            given["listen"],
            given["port"],
            (account[0].encode(), account[1].encode()) if account else None,
            None if subnets is None else tuple(map(ipaddress.ip_network, subnets)),
        )

    def admits(self, address: str) -> bool:
        """Return whether a client may come from `address`."""
        host = ipaddress.ip_address(address.partition("%")[0])
        return self.subnets is None or any(host in subnet for subnet in self.subnets)

    def knows(self, user: bytes, password: bytes) -> bool:
        """Return whether that is the account, in a time that says nothing about it."""
        right = self.account or (b"", b"")
        both = hmac.compare_digest(user, right[0]) & hmac.compare_digest(password, right[1])
        return bool(both) and self.account is not None


class Server:
    """The clients of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._loop = asyncio.get_running_loop()
        self._resolving = ThreadPoolExecutor(NAMES_AT_ONCE)
        self._clients: Counter[str] = Counter()
        self._wrong: dict[str, tuple[asyncio.Lock, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket) -> None:
        """Take clients, for ever."""
        while True:
            try:
                client, peer = await self._loop.sock_accept(listener)
            except OSError:  # descriptors have run out, or the client has gone
                await asyncio.sleep(0.1)
                continue
            host = str(peer[0])
            if not self._configuration.admits(host):
                say(f"refused {host}")
                await self._hang_up(client)
            elif self._clients.total() >= MOST_CONNECTIONS or self._clients[host] >= MOST_OF_ONE:
                await self._hang_up(client)
            else:
                self._clients[host] += 1
                task = self._loop.create_task(self._serve(client, host))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _hang_up(self, client: socket.socket) -> None:
        """Refuse a client, and let others go on: accepting never waits while more are there."""
        client.close()
        await asyncio.sleep(0)

    async def _serve(self, client: socket.socket, host: str) -> None:
        client.setblocking(False)
        remote: socket.socket | None = None
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await self._greet(client, host)
                wanted = await self._request(client)
            try:
                remote = await self._connected(*wanted)
            except RefusedError as err:
                await self._reply(client, err.reply)
                return
            await self._reply(client, SUCCEEDED)
            await relay(client, remote, IDLE_SECONDS)
        except (OSError, HungUpError, TimeoutError):
            pass
        except RefusedError as err:
            with suppress(OSError):
                await self._reply(client, err.reply)
        finally:
            client.close()
            if remote is not None:
                remote.close()
            self._clients[host] -= 1
            if not self._clients[host]:
                del self._clients[host]

    async def _greet(self, client: socket.socket, host: str) -> None:
        """Agree on a method, and let the client give its account. Raises HungUpError."""
        version, count = await self._read(client, 2)
        if version != VERSION:
            raise HungUpError
        wanted = BY_ACCOUNT if self._configuration.account else NO_ACCOUNT
        if wanted not in await self._read(client, count):
            await self._send(client, bytes((VERSION, NO_METHOD)))
            raise HungUpError
        await self._send(client, bytes((VERSION, wanted)))
        if wanted == NO_ACCOUNT:
            return
        version, length = await self._read(client, 2)
        user = await self._read(client, length)
        password = await self._read(client, (await self._read(client, 1))[0])
        if version != ACCOUNT_VERSION or not self._configuration.knows(user, password):
            say(f"wrong password {host}")
            async with self._slowly(host):
                await asyncio.sleep(WRONG_SECONDS)
            await self._send(client, bytes((ACCOUNT_VERSION, 1)))
            raise HungUpError
        await self._send(client, bytes((ACCOUNT_VERSION, 0)))

    @asynccontextmanager
    async def _slowly(self, host: str) -> AsyncIterator[None]:
        """Let one attempt of `host` after the other pass."""
        lock, waiting = self._wrong.get(host, (asyncio.Lock(), 0))
        self._wrong[host] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._wrong.pop(host)
            if waiting > 1:
                self._wrong[host] = lock, waiting - 1

    async def _request(self, client: socket.socket) -> tuple[str, int]:
        """Return the host and the port that the client wants. Raises both errors."""
        version, command, _, kind = await self._read(client, 4)
        if version != VERSION:
            raise HungUpError
        if kind == NAME:
            host = (await self._read(client, (await self._read(client, 1))[0])).decode("latin-1")
        elif kind in {IPV4, IPV6}:
            host = str(ipaddress.ip_address(await self._read(client, 4 if kind == IPV4 else 16)))
        else:
            raise RefusedError(NO_KIND)
        port = int.from_bytes(await self._read(client, 2), "big")
        if command != CONNECT:
            raise RefusedError(NO_COMMAND)
        if not host or not host.isascii() or not host.isprintable():
            raise RefusedError(NO_HOST)
        return host, port

    async def _connected(self, host: str, port: int) -> socket.socket:
        """Return a connection to `host`. Raises RefusedError."""
        reply = NO_HOST
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                for family, place in await self._addresses(host, port):
                    if is_here(place[0]):
                        reply = NOT_ALLOWED
                        continue
                    remote = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                    try:
                        await self._loop.sock_connect(remote, place)
                    except OSError as err:
                        remote.close()
                        reply = REPLIES.get(err.errno or 0, FAILED)
                    except BaseException:
                        remote.close()
                        raise
                    else:
                        return remote
        except TimeoutError:
            reply = TOO_LATE
        except OSError:
            reply = NO_HOST if reply == NO_HOST else reply
        raise RefusedError(reply)

    async def _addresses(self, host: str, port: int) -> list[tuple[int, Any]]:
        """Return the addresses of `host`, as getaddrinfo(3) finds them. Raises OSError."""
        name = host.encode("ascii")  # a text would be encoded by a module that is loaded then
        found = await self._loop.run_in_executor(
            self._resolving, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        )
        return [(int(family), place) for family, _, _, _, place in found][:MOST_ADDRESSES]

    async def _read(self, client: socket.socket, count: int) -> bytes:
        """Return exactly `count` bytes. Raises HungUpError."""
        data = b""
        while len(data) < count:
            more = await self._loop.sock_recv(client, count - len(data))
            if not more:
                raise HungUpError
            data += more
        return data

    async def _reply(self, client: socket.socket, reply: int) -> None:
        """Send what came of a request, without the address that the connection has here."""
        await self._send(client, bytes((VERSION, reply, 0, IPV4)) + bytes(6))

    async def _send(self, client: socket.socket, data: bytes) -> None:
        async with asyncio.timeout(GREETING_SECONDS):
            await self._loop.sock_sendall(client, data)


def is_here(text: str) -> bool:
    """Return whether an address is one of this machine, or of no single host."""
    host = ipaddress.ip_address(text.partition("%")[0])
    inner = getattr(host, "ipv4_mapped", None) or host
    return bool(
        inner.is_loopback or inner.is_unspecified or inner.is_multicast or inner.is_link_local
    )


def say(line: str) -> None:
    """Write a line."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())
