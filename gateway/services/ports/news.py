"""Passes the forwarded ports on: into the status file, then to the user's commands.

Only the last ports count: while a command runs, those that came and went are forgotten. For a port
whose lease has ended, the down command runs before the up command of another one.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from gateway.errors import GatewayError
from gateway.model.forwarding import Forwarding
from gateway.services.hooks import GRACE, run_command
from gateway.services.ports.file import write_ports
from gateway.system.aside import Aside
from gateway.system.process import KILL_TIME

TIME_LIMIT, LAST_TIME_LIMIT = 30.0, 2.0
"""Seconds for a command, and for everything when the gateway ends."""
LAST_MOMENT = 2 * GRACE + KILL_TIME
"""Seconds for what is ended then: a command, and the one that follows it."""
FILE_TIME = 2.0
FILE_AGAIN = 10.0
"""Seconds for a write of the file, and until the next attempt after one that failed."""

UP, DOWN = "VPN_PORT_FORWARDING_UP_COMMAND", "VPN_PORT_FORWARDING_DOWN_COMMAND"
ALL_PORTS, FIRST_PORT = "{{PORTS}}", "{{PORT}}"


class PortNews:
    """The file and the commands of `wanted`; to be used on the loop."""

    def __init__(self, wanted: Forwarding) -> None:
        self._wanted = wanted
        self._aside = Aside(wanted.status_file)
        self._ports: tuple[int, ...] = ()
        self._changed = asyncio.Event()
        self._changed.set()
        self._done = asyncio.Event()
        self._announced: tuple[int, ...] = ()
        self._enough = asyncio.Event()
        self.file_problem = ""

    def take(self, ports: tuple[int, ...]) -> None:
        """Have these ports passed on, in place of those before."""
        if ports != self._ports:
            self._ports = ports
            self._done.clear()
            self._changed.set()

    async def run(self) -> None:
        """Pass on what is taken, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FILE_AGAIN if self.file_problem else None):
                    await self._changed.wait()
            self._changed.clear()
            await self._write()
            await self._run_commands()
            if not self._changed.is_set():
                self._done.set()

    async def finish(self, running: asyncio.Task[None]) -> None:
        """Say that the last port is gone, and end `running`, what it has started included.

        That has LAST_TIME_LIMIT; a command that takes longer is ended.
        """
        self.take(())
        await self._until_done(running, LAST_TIME_LIMIT)
        self._enough.set()
        await self._until_done(running, LAST_MOMENT)
        running.cancel()
        await asyncio.wait([running])

    async def _until_done(self, running: asyncio.Task[None], seconds: float) -> None:
        done = asyncio.ensure_future(self._done.wait())
        await asyncio.wait([done, running], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        done.cancel()

    async def _write(self) -> None:
        path = self._wanted.status_file
        if not path:
            return
        ports, problem = self._ports, ""
        try:
            await self._aside.run(lambda: write_ports(path, ports), FILE_TIME)
        except (GatewayError, OSError) as err:
            problem = getattr(err, "strerror", "") or str(err)
        if problem != self.file_problem and problem:
            structlog.get_logger().warning(
                "could not write file of forwarded ports", path=path, problem=problem
            )
        self.file_problem = problem

    async def _run_commands(self) -> None:
        """Run the command for the end of the ports before, then that for those there are."""
        while self._announced != self._ports and not self._changed.is_set():  # the file is first
            if self._announced:
                gone, self._announced = self._announced, ()
                await self._run(DOWN, self._wanted.down_command, gone)
            else:
                self._announced = self._ports
                await self._run(UP, self._wanted.up_command, self._announced)

    async def _run(self, variable: str, command: tuple[str, ...], ports: Sequence[int]) -> None:
        if command:
            argv = filled_in(command, ports)
            await run_command(variable, argv, self._enough, TIME_LIMIT)


def filled_in(command: Sequence[str], ports: Sequence[int]) -> tuple[str, ...]:
    """Return `command` with `ports` in the place of its templates."""
    every, first = ",".join(map(str, ports)), str(ports[0])
    return tuple(it.replace(ALL_PORTS, every).replace(FIRST_PORT, first) for it in command)
