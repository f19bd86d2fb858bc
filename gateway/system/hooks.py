"""The user's commands for a tunnel that comes up or goes down."""

import asyncio

import structlog

from gateway.errors import GatewayError
from gateway.system import process

TIME_LIMIT = 30.0
"""Seconds after which a command is ended."""

LAST_TIME_LIMIT = 2.0
"""Seconds that commands get when the gateway ends: who stops a container does not wait long."""


class Hooks:
    """Runs one command at a time, in order, without a shell; a failure is logged, no more.

    While one runs, only the last word is remembered: a tunnel that comes and goes faster than its
    commands end does not make a queue of them.
    """

    def __init__(self, up: tuple[str, ...], down: tuple[str, ...]) -> None:
        """`up` and `down` are argument lists, empty for none."""
        self._commands = {"VPN_UP_COMMAND": up, "VPN_DOWN_COMMAND": down}
        self._wanted: str | None = None
        self._running: str | None = None
        self._work: asyncio.Future[None] | None = None
        self._log = structlog.get_logger()

    def up(self) -> None:
        """Start the command for a tunnel that carries traffic; to be called on the loop."""
        self._want("VPN_UP_COMMAND")

    def down(self) -> None:
        """Start the command for a tunnel that no longer does; to be called on the loop."""
        self._want("VPN_DOWN_COMMAND")

    async def finish(self) -> None:
        """Wait until all is done, but not for long; what still runs then ends with the process."""
        if self._work is not None:
            await asyncio.wait([self._work], timeout=LAST_TIME_LIMIT)

    def _want(self, variable: str) -> None:
        if self._work is not None and not self._work.done():
            self._wanted = None if variable == self._running else variable
            return
        self._running = variable
        self._work = asyncio.ensure_future(self._run_all())

    async def _run_all(self) -> None:
        """Run what is to run, then what was wanted last meanwhile."""
        while self._running is not None:
            argv = self._commands[self._running]
            if argv:
                await self._run(self._running, argv)
            self._running, self._wanted = self._wanted, None

    async def _run(self, variable: str, argv: tuple[str, ...]) -> None:
        log = self._log.bind(variable=variable)
        try:
            child = process.start(argv, on_line=lambda line: log.info("command says", line=line))
            await asyncio.wait([child.exited], timeout=TIME_LIMIT)
            if child.running:
                log.warning("command ended after its time", seconds=TIME_LIMIT)
                await child.stop()
            elif child.exited.result() != 0:
                log.warning("command failed", ending=process.ending(child.exited.result()))
        except GatewayError as err:
            log.warning("command failed", problem=str(err))
