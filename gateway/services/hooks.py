"""The user's commands for a tunnel that comes up or goes down."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.errors import GatewayError, MissingError, ProcessEnded
from gateway.system import process

TIME_LIMIT = 30.0
"""Seconds after which a command is ended, with everything that it has started."""

LAST_TIME_LIMIT = 2.0
"""Seconds for the commands when the gateway stops: `docker stop` waits ten seconds in all."""

NOT_FOUND = 127
"""The exit code of setpriv(1) and of shells for a program that is not there, or for a script whose
first line names one that is not."""

REMEDY = (
    "a program that it names is not there; in a container, take the debug image, which has the "
    "tools of busybox (docs/image.md), or mount the program into the container"
)
NOT_EXECUTABLE = "is a file that cannot be executed; run `chmod +x` on it"

GRACE = 0.3
"""Seconds between SIGTERM and SIGKILL for a command that has to end."""


class Hooks:
    """Runs one command at a time, in order, without a shell; a failure is only logged.

    While one runs, only the last request is kept: a tunnel that comes and goes faster than its
    commands end does not build up a queue.
    """

    def __init__(
        self,
        up: tuple[str, ...],
        down: tuple[str, ...],
        *,
        time_limit: float = TIME_LIMIT,
        last_time_limit: float = LAST_TIME_LIMIT,
    ) -> None:
        """Take the argument lists `up` and `down`, empty for none.

        Each run has `time_limit` seconds. When the gateway ends, everything that remains has
        `last_time_limit` seconds together.
        """
        self.set_commands(up, down)
        self._time_limit = time_limit
        self._last_time_limit = last_time_limit
        self._wanted: str | None = None
        self._running: str | None = None
        self._enough = asyncio.Event()
        self._work: asyncio.Future[None] | None = None

    def set_commands(self, up: tuple[str, ...], down: tuple[str, ...]) -> None:
        """Have these argument lists run from now on; to be called on the loop."""
        self._commands = {"VPN_UP_COMMAND": up, "VPN_DOWN_COMMAND": down}

    def up(self) -> None:
        """Start the command for a tunnel that carries traffic; to be called on the loop."""
        self._want("VPN_UP_COMMAND")

    def down(self) -> None:
        """Start the command for a tunnel that no longer does; to be called on the loop."""
        self._want("VPN_DOWN_COMMAND")

    async def finish(self) -> None:
        """Run the last request, but not for long; what is not done then is killed.

        A command that is not the last request is killed at once.
        """
        if self._work is None:
            return
        if self._wanted is not None:
            self._enough.set()
        await asyncio.wait([self._work], timeout=self._last_time_limit)
        self._wanted = None
        self._enough.set()
        await asyncio.wait([self._work], timeout=GRACE + process.KILL_TIME)

    def _want(self, variable: str) -> None:
        if self._work is not None and not self._work.done():
            self._wanted = None if variable == self._running else variable
            return
        self._running = variable
        self._work = asyncio.ensure_future(self._run_all())

    async def _run_all(self) -> None:
        """Run the current command, then the last one that was requested meanwhile."""
        while self._running is not None:
            argv = self._commands[self._running]
            if argv:
                await self._run(self._running, argv)
            self._enough.clear()
            self._running, self._wanted = self._wanted, None

    async def _run(self, variable: str, argv: tuple[str, ...]) -> None:
        await run_command(variable, argv, self._enough, self._time_limit)


async def run_command(
    variable: str, argv: tuple[str, ...], enough: asyncio.Event, time_limit: float
) -> None:
    """Run the command of `variable` to its end, or until it is `enough`, or for `time_limit`.

    A failure is only logged, and so is what it writes. It leaves nothing when it is cut off.
    """
    log = structlog.get_logger().bind(variable=variable)
    started_at = asyncio.get_running_loop().time()
    try:
        command = process.start(argv, on_line=lambda line: log.info("command output", line=line))
        with suppress(TimeoutError):
            await command.during(enough.wait(), time_limit)
        seconds = round(asyncio.get_running_loop().time() - started_at, 1)
        log.warning("command timed out", seconds=seconds)
        await command.stop(GRACE)
    except ProcessEnded as end:
        if end.code != 0:
            why = {"problem": REMEDY} if end.code == NOT_FOUND else {}
            log.warning("command failed", ending=process.ending(end.code), **why)
    except MissingError as err:
        log.warning("command failed", problem=_why_not(argv[0], err))
    except GatewayError as err:
        log.warning("command failed", problem=str(err))


def _why_not(program: str, err: MissingError) -> str:
    """Return why `program` was not found."""
    if os.access(program, os.F_OK) and Path(program).is_file():  # that fails where we may not look
        return f"{program} {NOT_EXECUTABLE}"
    return f"{err.missing}: {REMEDY}"
