"""Producers that run as long as the gateway: the clock, the kernel's reports, lost errors.

Each runs in the task group of the loop, so none can fail without closing and ending the gateway.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from gateway.daemon.inbox import Inbox
from gateway.errors import GatewayError, NetworkError
from gateway.model import HostPort
from gateway.policy.events import Changed, Tick
from gateway.services.health.server import HealthServer


class Timer:
    """Notes a Tick when the time has come that was set last, unless `rests` sets another time."""

    def __init__(self, inbox: Inbox, clock: Callable[[], float], rests: Callable[[], bool]) -> None:
        """`rests` returns whether no Tick is needed; it has set the next time then."""
        self._inbox = inbox
        self._clock = clock
        self._rests = rests
        self._waiting: asyncio.TimerHandle | None = None
        self._is_time = asyncio.Event()

    def set(self, at: float) -> None:
        """Let the next Tick come at `at`, and none before; to be called on the loop."""
        if self._waiting is not None:
            self._waiting.cancel()
        seconds = max(0.0, at - self._clock())
        self._waiting = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        rests = False
        try:
            rests = self._rests()
        finally:  # after an error too: without a Tick nothing would set the next time
            if not rests:
                self._is_time.set()

    async def run(self) -> None:
        """Note a Tick each time, until cancelled."""
        while True:
            await self._is_time.wait()
            self._is_time.clear()
            self._inbox.note(Tick())


class KernelReports:
    """Collects what the kernel reports for a moment, since one command makes several changes."""

    def __init__(self, inbox: Inbox, settle: float) -> None:
        self._inbox = inbox
        self._settle = settle
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Say that links, addresses, routes or rules may have changed; to be called on the loop."""
        self._changed.set()

    async def run(self) -> None:
        """Note a Change for all that was reported in `settle` seconds, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._settle)
            self._changed.clear()
            self._inbox.note(Changed())


class LostErrors:
    """Raises what would otherwise only be logged: errors of callbacks and of unawaited tasks.

    An error of ours or of the kernel is left to the log: who raised it knew of it.
    """

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._found = asyncio.Event()

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take an exception from the event loop; see `loop.set_exception_handler`."""
        error = context.get("exception")
        expected = isinstance(error, GatewayError | OSError | MemoryError)
        if isinstance(error, Exception) and not expected:
            self._error = error
            self._found.set()
        else:
            loop.default_exception_handler(context)

    async def run(self) -> None:
        """Wait for such an error, and raise it."""
        await self._found.wait()
        if self._error is not None:
            raise self._error


async def keep_listening(server: HealthServer, address: HostPort, again: float) -> None:
    """Start the health server, trying every `again` seconds while its address is taken.

    Another problem than before is logged.
    """
    log, known, variable = structlog.get_logger(), "", "HEALTH_SERVER_ADDRESS"
    while True:
        try:
            server.start(address)
        except NetworkError as err:
            if (problem := str(err)) != known:
                known = problem
                log.error("could not start health server", problem=problem, variable=variable)
            await asyncio.sleep(again)
        else:
            return
