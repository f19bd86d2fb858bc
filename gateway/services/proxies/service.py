"""A proxy of the gateway as a supervised child: tinyproxy, or the SOCKS5 server of `socks`.

It decides nothing: rules keep its user in the tunnel (P19), so it does not start where it cannot
have one, or where rules cannot know it. It is started again when it ends, hangs, or when the tunnel
has gone: its connections lead nowhere then.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from gateway.errors import GatewayError, MissingError, ProcessEnded
from gateway.model import Config, HostPort
from gateway.model.lease import Connection
from gateway.policy.reports import ServiceReport
from gateway.services.proxies.kinds import CONFIGURATION, Kind
from gateway.system.child import NEVER, Child, Restart
from gateway.system.in_memory import sealed
from gateway.system.process import ending

READY_WITHIN = 5.0
LOOK_EVERY = 30.0
"""Seconds between two looks whether it still answers."""
ANSWERS_WITHIN = 5.0
PATIENCE = 2
"""Looks without an answer after which it hangs, and is started again."""
RESTART = Restart(first=0.25, longest=30.0)

LONGEST = 300
"""Characters of a problem that are reported."""
TAKEN = "address already in use"
CLIENT_AGAIN = 60.0
"""Seconds between two lines about a refused client."""

Remedied = tuple[str, str]
"""A problem and its remedy; both are empty where there is none."""


class ProxyService:
    """Runs the proxy `kind`, unless it is `unconfined`."""

    def __init__(self, kind: Kind, unconfined: Remedied, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._unconfined = unconfined
        self._clock = clock
        self._log = structlog.get_logger()
        self._again = asyncio.Event()
        self._is_up = False
        self._spoke_at = float("-inf")
        self._asks_from = ""
        self._report = ServiceReport(kind.name, text=f"listens at {shown(kind.proxy.listening)}")

    @property
    def name(self) -> str:
        """Its name in reports and metrics."""
        return self._kind.name

    def report(self) -> ServiceReport:
        """Return what is known of it, from any thread."""
        return self._report

    def follow(self, connection: Connection | None) -> None:
        """Take the connection that carries traffic; without one, those through the proxy end."""
        was_up, self._is_up = self._is_up, connection is not None
        if was_up and not self._is_up:
            self._again.set()

    def adopt(self, config: Config) -> None:
        """Follow a configuration that was read again: that of a proxy stays as it was."""

    async def run(self) -> None:
        """Keep it running, until cancelled."""
        if self._unconfined[0]:
            self._failed(*self._unconfined, None)
            await asyncio.Event().wait()
        pause: float | None = None
        while True:
            self._again.clear()
            began = self._clock()
            problem, remedy = await self._run_once()
            lasted = self._clock() - began if self._report.is_running else 0.0
            self._report = replace(self._report, is_running=False)
            if problem:
                pause = RESTART.pause(pause, lasted)
                self._failed(problem, remedy, pause)
                await asyncio.sleep(pause)

    async def _run_once(self) -> Remedied:
        """Run one process; return why it has ended, empty if only because the tunnel has gone."""
        child: Child | None = None
        file = -1
        try:
            program = self._kind.program()
            file = sealed("proxy", self._kind.configuration())
            program = replace(program, descriptors={CONFIGURATION: file}, ready_within=READY_WITHIN)
            child = Child(program, restart=NEVER, ready=self._answers, on_line=self._heard)
            await child.start()
            self._report = replace(
                self._report,
                is_running=True,
                problem="",
                remedy="",
                starts=self._report.starts + 1,
            )
            return await self._watched(child)
        except MissingError as err:
            return err.missing, err.remedy
        except (GatewayError, OSError, MemoryError) as err:
            return self._reason(err)
        finally:
            if file >= 0:
                os.close(file)
            if child is not None:
                with suppress(GatewayError):
                    await child.stop()

    async def _watched(self, child: Child) -> Remedied:
        """Return why it has to be started again; empty if the tunnel has gone."""
        silences = 0
        while True:
            again = asyncio.ensure_future(self._again.wait())
            ended = asyncio.ensure_future(child.ended())
            try:
                await asyncio.wait(
                    [again, ended], timeout=LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED
                )
                if ended.done():
                    return self._ended(child)
                if again.done():
                    return "", ""
            finally:
                for task in (again, ended):
                    task.cancel()
            silences = 0 if await self._answers() else silences + 1
            if silences >= PATIENCE:
                return "it does not answer", "it is started again"

    async def _answers(self) -> bool:
        """Return whether it does anything with a connection, hanging up included."""
        listening = self._kind.proxy.listening
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104 - compared
            listening.host, listening.host
        )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        loop = asyncio.get_running_loop()
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    await loop.sock_connect(asking, (host, listening.port))
                    self._asks_from = str(asking.getsockname()[0])
                    await loop.sock_sendall(asking, self._kind.question)
                    await loop.sock_recv(asking, 1)
            except ConnectionResetError:
                return True
            except (OSError, TimeoutError):
                return False
        return True

    def _heard(self, line: str) -> None:
        """Take a line that it wrote."""
        what = self._kind.heard(line)
        if what is None:
            return
        if what.request:
            self._log.info("proxy request", proxy=self.name, client=what.client, to=what.request)
        elif what.is_stranger and what.client == self._asks_from:
            self._asks_from = ""  # that was the gateway itself; the next one is a workload
        elif self._clock() >= self._spoke_at + CLIENT_AGAIN:
            self._spoke_at = self._clock()
            self._log.warning(
                "proxy refuses a client",
                proxy=self.name,
                client=what.client,
                problem=what.problem,
                remedy=what.remedy,
            )

    def _ended(self, child: Child) -> Remedied:
        """Return how one has ended that has served: its last lines may be requests."""
        code = child.process.end.code if child.process else 0
        return f"it ended: {ending(code)}", f"see the log, or remove {self._kind.switch}"

    def _reason(self, error: Exception) -> Remedied:
        text = str(error) or type(error).__name__
        if isinstance(error, ProcessEnded) and TAKEN in text.lower():
            port = self._kind.proxy.listening.port
            remedy = f"have that program use another port, or set {self._kind.place}"
            return f"port {port} is taken by another program of this namespace", remedy
        return text[:LONGEST], f"see the log, or remove {self._kind.switch}"

    def _failed(self, problem: str, remedy: str, pause: float | None) -> None:
        if problem != self._report.problem:
            self._log.warning(
                "proxy failed",
                proxy=self.name,
                problem=problem,
                remedy=remedy,
                again_in=None if pause is None else round(pause, 2),
            )
        self._report = replace(self._report, problem=problem, remedy=remedy)


def shown(place: HostPort) -> str:
    """Return for people where a proxy listens."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"{host}:{place.port}" if host else f"port {place.port}"
