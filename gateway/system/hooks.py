"""The user's commands for a tunnel that comes up or goes down."""

import asyncio

import structlog

from gateway.errors import GatewayError
from gateway.system import process

TIME_LIMIT = 30.0
"""Seconds after which a command is ended."""


class Hooks:
    """Runs one command at a time, in order, without a shell; a failure is logged, no more."""

    def __init__(self, up: tuple[str, ...], down: tuple[str, ...]) -> None:
        """`up` and `down` are argument lists, empty for none."""
        self._up = up
        self._down = down
        self._last: asyncio.Future[None] | None = None
        self._log = structlog.get_logger()

    def up(self) -> None:
        """Start the command for a tunnel that carries traffic; to be called on the loop."""
        self._enqueue("VPN_UP_COMMAND", self._up)

    def down(self) -> None:
        """Start the command for a tunnel that no longer does; to be called on the loop."""
        self._enqueue("VPN_DOWN_COMMAND", self._down)

    def _enqueue(self, variable: str, argv: tuple[str, ...]) -> None:
        if argv:
            self._last = asyncio.ensure_future(self._run(variable, argv, self._last))

    async def _run(
        self, variable: str, argv: tuple[str, ...], before: "asyncio.Future[None] | None"
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
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
