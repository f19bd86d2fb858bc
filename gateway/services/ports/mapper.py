"""Obtains ports by NAT-PMP or PCP: opens the socket, and has a process without rights use it.

The socket is bound to the tunnel's interface and to its address, and connected to the server, so
nothing that is sent with it leaves in another way.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gateway.errors import MissingError, NetworkError
from gateway.model import INTERFACE
from gateway.policy.forwarding import plan_for
from gateway.policy.port_problems import Found, explained
from gateway.policy.portmap import PORT
from gateway.providers.asked import address_of, gateway_for
from gateway.services.own_module import command_of
from gateway.services.ports.forwarder import Surroundings
from gateway.services.ports.mapping_lines import HEARTBEAT, read, words_of
from gateway.system import process

SOCKET, HELD = 3, 4
"""Descriptors of the process; it ends when our end of the pipe HELD is closed."""
GRACE = 0.3
"""Seconds that the process has to give the ports back."""
SILENT_FOR = 3 * HEARTBEAT
"""Seconds after which a process that writes nothing is ended: it hangs, or is halted."""
MOST_LINES, LINES_PER_SECOND = 20.0, 5.0
"""So many lines at once, and on average: a sound process writes 4 a second at most, and each can
lead to other rules."""
LONGEST_SAID = 200
_MODULE = "gateway.services.ports.mapping_process"


class PortMapper:
    """A forwarder; see `gateway.services.ports.forwarder`."""

    def __init__(self, around: Surroundings, port: int = PORT, device: str = INTERFACE) -> None:
        self._around = around
        self._port = port
        self._device = device
        self.starts = 0

    async def run(self, take: Callable[[Found], None]) -> None:
        """Report ports until cancelled; see `Forwarder.run`."""
        around = self._around
        wanted = around.config.forwarding
        own = address_of(around.tunnel)
        server = gateway_for(wanted, around.tunnel) if wanted else None
        if wanted is None or own is None or server is None:
            raise MissingError(
                "it is not known which host in the tunnel forwards ports",
                "set VPN_PORT_FORWARDING_GATEWAY to its address in the tunnel",
            )
        plan = plan_for(wanted, around.former)
        spoken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        heard = asyncio.Event()

        rate = _Rate()

        def on_line(line: str) -> None:
            heard.set()
            said = read(line, plan, around.clock())
            if spoken.done():
                return
            if not rate.allows_one():
                spoken.set_exception(NetworkError("the process for ports", "it writes too much"))
            elif said is not None:
                take(explained(said.ports, said.problem, wanted, str(server)))
            else:
                instead = "".join(filter(str.isprintable, line))[:LONGEST_SAID]
                spoken.set_exception(NetworkError("the process for ports", instead))

        with self._connected(str(own.ip), str(server)) as channel, _pipe() as (held, hang_up):
            child = process.start(
                command_of(_MODULE, str(own.ip), *words_of(plan)),
                on_line=on_line,
                descriptors={SOCKET: channel.fileno(), HELD: held},
                leaves_nothing=True,
            )
            self.starts += 1
            watching = asyncio.ensure_future(_until_silent(heard))
            ends: list[asyncio.Future[Any]] = [child.exited, spoken, watching]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                hang_up()
                await asyncio.wait([child.exited], timeout=GRACE)
                await child.stop(0.0)
                if spoken.done() and not spoken.cancelled():
                    spoken.exception()
        if spoken.done():
            spoken.result()
        if watching.done() and not watching.cancelled():
            raise NetworkError("the process for ports", "it hangs")
        raise child.end

    def _connected(self, own: str, server: str) -> socket.socket:
        """Return the socket. Raises NetworkError."""
        channel: socket.socket | None = None
        try:
            channel = self._around.netns.socket(
                socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            )
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._device.encode())
            channel.bind((own, 0))
            channel.connect((server, self._port))
        except OSError as err:
            if channel is not None:
                channel.close()
            what = f"make a socket to ask for ports: {err.strerror}"
            raise NetworkError(what, server, err.errno) from err
        return channel


class _Rate:
    """Counts lines."""

    def __init__(self) -> None:
        self._left, self._at = MOST_LINES, time.monotonic()

    def allows_one(self) -> bool:
        """Return whether another line is not too many."""
        now = time.monotonic()
        more = (now - self._at) * LINES_PER_SECOND
        self._left, self._at = min(MOST_LINES, self._left + more) - 1, now
        return self._left >= 0


@contextmanager
def _pipe() -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield the end of a pipe for the process, and what closes ours. Raises NetworkError."""
    try:
        held, ours = os.pipe2(os.O_CLOEXEC)
    except OSError as err:
        raise NetworkError(f"make a pipe: {err.strerror}", "ports", err.errno) from err
    with os.fdopen(held, "rb", 0), os.fdopen(ours, "wb", 0) as end:
        yield held, end.close


async def _until_silent(heard: asyncio.Event) -> None:
    """Return when nothing has been heard for too long."""
    with suppress(TimeoutError):
        while True:
            heard.clear()
            async with asyncio.timeout(SILENT_FOR):
                await heard.wait()
