"""Commands to unbound through its control socket, as unbound-control(8) sends them.

The socket is in a directory of the resolver's own, so its answers are trusted no further than
the resolver: answers are limited in size and time.
"""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from gateway.errors import NetworkError

ANSWER_TIME = 2.0
LARGEST = 1 << 16

COUNTED = {
    "total.num.cachehits": "cached",
    "total.num.cachemiss": "asked",
    "total.num.expired": "expired",
}
"""The counters that are reported (unbound-control(8), stats), with the names that they get."""


class Control:
    """The control socket at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def send(self, command: str, time_limit: float | None = None) -> str:
        """Send `command` and return the answer, which has ANSWER_TIME or `time_limit` seconds.

        Raises NetworkError.
        """
        loop = asyncio.get_running_loop()
        answer = b""
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
            ) as channel:
                async with asyncio.timeout(time_limit or ANSWER_TIME):
                    await loop.sock_connect(channel, str(self.path))
                    await loop.sock_sendall(channel, f"UBCT1 {command}\n".encode())
                    while len(answer) < LARGEST:
                        part = await loop.sock_recv(channel, LARGEST)
                        if not part:
                            break
                        answer += part
        except TimeoutError as err:
            raise NetworkError("no answer of the resolver", command) from err
        except OSError as err:
            raise NetworkError(f"ask the resolver: {err.strerror}", command, err.errno) from err
        text = answer.decode(errors="replace")
        if text.startswith("error"):
            raise NetworkError(f"the resolver refuses: {text[:100].strip()}", command)
        return text

    async def send_known(self, commands: tuple[str, ...]) -> None:
        """Send the first of `commands` that it knows."""
        for command in commands:
            with suppress(NetworkError):
                await self.send(command)
                return

    async def is_served(self) -> bool:
        """Return whether the resolver runs, with all that it listens at."""
        try:
            return "is running" in await self.send("status")
        except NetworkError:
            return False

    async def counts(self) -> tuple[tuple[str, int], ...]:
        """Return how many questions were answered, by how. Raises NetworkError."""
        found: list[tuple[str, int]] = []
        for line in (await self.send("stats_noreset")).splitlines():
            name, _, number = line.partition("=")
            if name in COUNTED and number.isascii() and number.isdigit():
                found.append((COUNTED[name], int(number)))
        return tuple(found)
