"""Questions to wireguard-go on its socket, and the answers (wireguard.com/xplatform).

The connection is kept, and made without asyncio's streams, because a question comes every few
seconds for months. It is closed where anything goes wrong, so that no answer is taken for a later
one.
"""

import asyncio
import socket
from pathlib import Path

from gateway.tunnel.uapi import END

LONGEST_ANSWER = 1 << 22
PART = 1 << 16
"""Bytes of the longest answer, and of what is read of it at once."""


class Conversation:
    """The connection to the process that listens on `path`; one question at a time."""

    def __init__(self, path: Path) -> None:
        self._channel: socket.socket | None = None
        self._path = path

    async def ask(self, request: str) -> str:
        """Send `request`, and return the answer, which ends with an empty line.

        Raises OSError, EOFError when the process hangs up, asyncio.LimitOverrunError for an answer
        that is longer than LONGEST_ANSWER, and UnicodeDecodeError. Has no time limit.
        """
        channel = self._channel or await self._connected()
        self._channel = None
        try:
            answer = await _answer(channel, request.encode("ascii"))
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        return answer.decode("ascii")

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __del__(self) -> None:
        """Close the connection, which lasts as long as who asks."""
        self.hang_up()

    async def _connected(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(channel, str(self._path))
        except BaseException:
            channel.close()
            raise
        return channel


async def _answer(channel: socket.socket, request: bytes) -> bytes:
    loop, end = asyncio.get_running_loop(), END.encode("ascii")
    answer = bytearray()
    await loop.sock_sendall(channel, request)
    while not answer.endswith(end):
        if len(answer) > LONGEST_ANSWER:
            raise asyncio.LimitOverrunError("no end", len(answer))
        part = await loop.sock_recv(channel, PART)
        if not part:
            raise EOFError
        answer += part
    return bytes(answer)
