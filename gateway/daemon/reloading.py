"""Reads the configuration again on request, while the gateway runs on with the one that it has."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping

import structlog

from gateway.errors import (
    ConfigError,
    GatewayError,
    Notice,
    Problem,
    ProcessError,
    Weight,
    is_shortage,
)
from gateway.model import Config
from gateway.policy.events import NotReloaded, Reloaded
from gateway.policy.reload import Fault, Outcome, not_reloaded
from gateway.policy.retry import wait_after
from gateway.policy.timing import Timing
from gateway.settings import again
from gateway.settings.reading import WHAT, Read, result_of
from gateway.system import process

ATTEMPTS = 5
"""How often a reading is tried that fails for a shortage; after that the answer says so."""

BLOCKED = "a file does not answer, such as a pipe, or one on a network drive that is gone"


class Reloader:
    """A producer: reports one event for each reading. Requests during a reading share the next.

    `marked` gives a configuration the marks that the running one has. A reading begins after the
    request for it, at a time of `clock`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        marked: Callable[[Config], Config],
        report: Callable[[Reloaded | NotReloaded], None],
        clock: Callable[[], float],
        timing: Timing,
    ) -> None:
        """`environ` is the environment of the process when it started."""
        self._environ = environ
        self._marked = marked
        self._report = report
        self._clock = clock
        self._timing = timing
        self._asked = asyncio.Event()
        self._child: process.Process | None = None
        self._log = structlog.get_logger()

    def ask(self) -> None:
        """Request a reading; to be called on the loop."""
        self._asked.set()

    async def run(self) -> None:
        """Read when that is requested, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            begun_at = self._clock()
            self._report(await self._event(begun_at))
            await asyncio.sleep(self._timing.read_again)

    async def _event(self, begun_at: float) -> Reloaded | NotReloaded:
        try:
            read = await self._patiently()
        except ConfigError as err:
            self._log_findings(err.notices, err.problems)
            faults = tuple(Fault(it.where, it.message) for it in err.problems)
            return NotReloaded(not_reloaded(begun_at, Outcome.REFUSED, faults))
        except (GatewayError, OSError, MemoryError) as err:
            fault = Fault("", str(err) or type(err).__name__)
            return NotReloaded(not_reloaded(begun_at, Outcome.FAILED, (fault,)))
        except Exception as err:  # noqa: BLE001 - what runs is not to end because of it
            fault = Fault("", f"{WHAT}: unexpected {type(err).__name__}")
            return NotReloaded(not_reloaded(begun_at, Outcome.FAILED, (fault,)))
        self._log_findings(read.notices)
        return Reloaded(self._marked(read.config), begun_at)

    async def _patiently(self) -> Read:
        """Return what `_read` returns, after ATTEMPTS at most where there is a shortage."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._read()
            except (GatewayError, OSError, MemoryError) as err:
                if attempt == ATTEMPTS or not is_shortage(err):
                    raise
            await asyncio.sleep(wait_after(attempt, self._timing))

    async def _read(self) -> Read:
        """Have a child read the configuration. Raises ConfigError, ProcessError and OSError."""
        if self._child is not None and self._child.running:
            raise ProcessError(WHAT, f"the last attempt has not ended: {BLOCKED}")
        place = again.file_with(self._environ)
        try:
            self._child = process.start(
                again.command(), on_line=_ignored, descriptors={again.DESCRIPTOR: place}
            )
            try:
                done, _ = await asyncio.wait([self._child.exited], timeout=self._timing.read_limit)
            finally:
                await self._child.stop()
            if not done:
                limit = f"not done after {self._timing.read_limit:g} s"
                raise ProcessError(WHAT, f"{limit}: {BLOCKED}")
            return result_of(self._child.exited.result(), again.contents_of(place))
        finally:
            os.close(place)

    def _log_findings(
        self, notices: tuple[Notice, ...], problems: tuple[Problem, ...] = ()
    ) -> None:
        for notice in notices:
            level = logging.WARNING if notice.weight is Weight.WARNING else logging.INFO
            self._log.log(
                level, "configuration notice", variable=notice.where, notice=notice.message
            )
        for it in problems:
            self._log.error("invalid configuration", variable=it.where, problem=it.message)


def _ignored(_line: str) -> None:
    """Drop a line of the child: it writes none, unless Python itself fails."""
