"""Passes the forwarded port to a torrent client, and sees to it that the client listens there.

It looks at the client again and again, because a client that was started again, or whose user has
changed the port, does not say so. A process without rights does the talking (`talk`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import structlog

from gateway.errors import GatewayError
from gateway.model import Config
from gateway.model.lease import Connection
from gateway.model.port_client import PortClient
from gateway.policy.port_client import (
    GOOD,
    NAMES,
    NOT_THERE,
    SAID_AFTER,
    Look,
    Outcome,
    Past,
    Wanted,
    problem,
    wanted,
)
from gateway.policy.reports import ServiceReport
from gateway.services.port_client.talk import Talk
from gateway.system.netns import Netns

LONGEST = 200
"""Characters of a problem that is shown."""


class Talker(Protocol):
    """What looks at a client; see `gateway.services.port_client.talk.Talk`."""

    @property
    def starts(self) -> int:
        """How many processes there were."""

    async def look(self, wanted: Wanted, unless: tuple[int, ...] | None) -> Look | None:
        """Have the client do what is wanted. Raises GatewayError and OSError."""

    async def stop(self) -> None:
        """End the process."""


class PortPassing:
    """The service; see `gateway.daemon.services.Service`."""

    name = "port client"

    def __init__(
        self,
        client: PortClient,
        netns: Netns,
        clock: Callable[[], float],
        talk: Talker | None = None,
    ) -> None:
        """`netns` is the namespace of the workloads; `talk` is by default the process in it."""
        self._client: PortClient | None = client
        self._connection: Connection | None = None
        self._clock = clock
        self._talk: Talker = talk or Talk(netns)
        self._wake = asyncio.Event()
        self._past = Past()
        self._last: Wanted | None = None
        self._log = structlog.get_logger()
        self._report = ServiceReport(self.name, is_running=True, text=_waiting(client))

    def report(self) -> ServiceReport:
        """Return what is known of it; see `Service.report`."""
        return replace(self._report, starts=self._talk.starts)

    def follow(self, connection: Connection | None) -> None:
        """Take the connection; see `Service.follow`."""
        self._connection = connection
        self._wake.set()

    def adopt(self, config: Config) -> None:
        """Follow a configuration; a corrected password is tried at once. See `Service.adopt`."""
        if config.port_client != self._client:
            self._client = config.port_client
            self._past = Past()
        self._wake.set()

    async def run(self) -> None:
        """Look at the client, until cancelled."""
        try:
            while True:
                self._wake.clear()
                pause = await self._turn()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            await self._talk.stop()

    async def _turn(self) -> float | None:
        """Look once, if there is a port; return the seconds until the next turn, None for never."""
        now = wanted(self._client, self._connection)
        if now is None:
            text = _waiting(self._client) if self._client else "no client is wanted"
            self._report = ServiceReport(self.name, is_running=True, text=text)
            return None
        if now != self._last:
            if self._past.outcome in GOOD:
                self._past = Past()
            self._last = now
        try:
            look = await self._talk.look(now, self._past.unless(self._clock()))
        except (GatewayError, OSError, MemoryError) as err:
            look = Look(Outcome.BROKEN, now.port, str(err)[:LONGEST] or type(err).__name__)
        if now.client != self._client:  # its answer is about another password, or another place
            return 0.0
        former, self._past = self._past, self._past.after(look, self._clock())
        if look is not None:
            self._take(now, look, former)
        return self._past.pause

    def _take(self, now: Wanted, look: Look, former: Past) -> None:
        """Report and log what came of a look."""
        kind = now.client.kind
        what, remedy = problem(kind, str(now.client.url), look)
        what = what[:LONGEST]
        was_well, is_well = former.outcome in GOOD, look.outcome in GOOD
        text = f"{NAMES[kind]} listens at {look.port}"
        if look.outcome is Outcome.NOT_SEEN:
            text = f"{NAMES[kind]} has {look.port}; whether it listens, the kernel cannot say"
        if is_well and (look.changed or not was_well):
            self._log.info("port passed on", client=kind.value, port=look.port)
        if not is_well and self._is_news(what):
            again = round(self._past.pause, 1)
            self._log.warning("port not passed on", problem=what, remedy=remedy, again_in=again)
        self._report = ServiceReport(
            self.name,
            is_running=is_well,
            problem=what,
            remedy=remedy,
            text=text if is_well else f"{NAMES[kind]} does not have {look.port}",
        )

    def _is_news(self, what: str) -> bool:
        """Return whether a problem is to be logged: a client may start a little later than we."""
        if self._past.outcome in NOT_THERE:
            return self._past.times == SAID_AFTER
        return what != self._report.problem


def _waiting(client: PortClient) -> str:
    return f"{NAMES[client.kind]} gets the port as soon as there is one"
