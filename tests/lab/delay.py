"""Makes the way to a UDP server longer, since this kernel has no netem. A program of its own.

    python delay.py ADDRESS PORT SERVER_PORT SECONDS

Passes datagrams from clients of ADDRESS:PORT to 127.0.0.1:SERVER_PORT SECONDS later, and the
answers back at once.
"""

import asyncio
import sys
from typing import Any


class Client(asyncio.DatagramProtocol):
    """The way back to one client."""

    def __init__(self, front: asyncio.DatagramTransport, client: Any) -> None:
        """Take the socket that the client knows."""
        self._front = front
        self._client = client

    def datagram_received(self, data: bytes, _addr: Any) -> None:
        """Pass an answer on."""
        self._front.sendto(data, self._client)


class Front(asyncio.DatagramProtocol):
    """What the clients see."""

    def __init__(self, server_port: int, seconds: float) -> None:
        """Describe the way."""
        self._server = ("127.0.0.1", server_port)
        self._seconds = seconds
        self._front: asyncio.DatagramTransport
        self._ways: dict[Any, asyncio.DatagramTransport] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        """Keep the socket."""
        self._front = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Pass a datagram on, later."""
        task = asyncio.get_running_loop().create_task(self._pass_on(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, data: bytes, client: Any) -> None:
        await asyncio.sleep(self._seconds)
        if client not in self._ways:
            self._ways[client], _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Client(self._front, client), remote_addr=self._server
            )
        self._ways[client].sendto(data)


async def main() -> None:
    """Pass on until standard input ends."""
    address, port, server_port, seconds = sys.argv[1:]
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(
        lambda: Front(int(server_port), float(seconds)), local_addr=(address, int(port))
    )
    print("ready", flush=True)  # noqa: T201 - it is what the lab reads
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
