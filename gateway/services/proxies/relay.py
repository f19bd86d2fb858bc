"""Passing on between two connections what arrives at either."""

import asyncio
import socket

CHUNK = 1 << 16
"""Bytes that are taken at once."""


async def relay(one: socket.socket, other: socket.socket, idle: float) -> None:
    """Pass on what arrives at either, until both have ended or nothing moves for `idle` seconds."""
    loop = asyncio.get_running_loop()
    moved_at = loop.time()

    async def pump(source: socket.socket, sink: socket.socket) -> None:
        nonlocal moved_at
        while data := await loop.sock_recv(source, CHUNK):
            moved_at = loop.time()
            await loop.sock_sendall(sink, data)
            moved_at = loop.time()
        sink.shutdown(socket.SHUT_WR)

    pumps = {loop.create_task(pump(one, other)), loop.create_task(pump(other, one))}
    left = pumps
    try:
        while left and (wait := moved_at + idle - loop.time()) > 0:
            done, left = await asyncio.wait(left, timeout=wait, return_when=asyncio.FIRST_EXCEPTION)
            if any(it.exception() for it in done):
                return
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
