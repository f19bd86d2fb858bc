"""Forwarded ports as a service: asks for them in each connection, has them opened, passes them on.

It decides nothing. What a forwarder has obtained becomes leases, which are an event of the loop;
the loop opens their ports. Only ports that are open are passed on, in the file and to commands.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from gateway.errors import GatewayError, MissingError, is_shortage
from gateway.model import Config, Tunnel
from gateway.model.forwarding import Forwarding
from gateway.model.frozen import frozen
from gateway.model.lease import Connection, Lease
from gateway.policy.events import Leased
from gateway.policy.forwarding import kept_closed, target_of
from gateway.policy.mapped import Granted
from gateway.policy.port_problems import Found
from gateway.policy.reports import ServiceReport
from gateway.services.ports.forwarder import Forwarder, Surroundings, end_if_cancelled
from gateway.services.ports.news import PortNews
from gateway.system.child import Restart
from gateway.system.netns import Netns

NAME = "port forwarding"
RESTART = Restart(first=0.5, longest=60.0, lasting=30.0)
CLOSE_TIME, LEAVE_TIME = 0.15, 0.35
"""Seconds at the end for ports to be closed here, and for them to be given back."""

_KEPT_CLOSED = "the server gives port {port}, which has another use here and stays closed"
_NOT_MOVED = "port {port} arrives at {arriving}, and cannot be redirected: {why}"
_INSTEAD = "choose another server, or set VPN_PORT_FORWARDING_LISTENING_PORTS"


@frozen
class Means:
    """What the service works with: the tunnel's namespace, the environment, a clock.

    `lease` has the ports of leases opened, `make` makes the forwarder for a connection, and
    `cannot_redirect` says why no port can be redirected, "" where that works.
    """

    netns: Netns
    environ: Mapping[str, str]
    clock: Callable[[], float]
    lease: Callable[[Leased], None]
    make: Callable[[Surroundings], Forwarder]
    cannot_redirect: str = ""


class PortForwarding:
    """The service."""

    name = NAME

    def __init__(self, config: Config, means: Means) -> None:
        if config.forwarding is None:
            raise ValueError("no port is wanted")
        self._config = config
        self._wanted: Forwarding = config.forwarding
        self._means = means
        self._news = PortNews(self._wanted)
        self._tunnel: Tunnel | None = None
        self._open: tuple[int, ...] = ()
        self._former: tuple[int, ...] = ()
        self._found = Found()
        self._kept: tuple[Granted, ...] = ()
        self._leased: tuple[Lease, ...] = ()
        self._refusal = ""
        self._starts = 0
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._is_leaving = False
        self._log = structlog.get_logger()

    def report(self) -> ServiceReport:
        """Return what is known of it, from any thread."""
        found, ports = self._found, self._open
        problem, remedy = self._problem_of(found)
        listed = ", ".join(map(str, ports))
        return ServiceReport(
            self.name,
            bool(ports),
            problem,
            remedy,
            self._starts,
            f"port {listed}" if ports else "no port",
        )

    def _problem_of(self, found: Found) -> tuple[str, str]:
        if self._tunnel is None:
            return "", ""
        if self._refusal:
            return self._refusal, _INSTEAD
        if found.problem:
            return found.text, found.remedy
        if problem := self._news.file_problem:
            file = self._wanted.status_file
            return f"{file} cannot be written ({problem})", (
                "mount a volume that the gateway can write to at its directory, or set "
                "VPN_PORT_FORWARDING_STATUS_FILE=off"
            )
        return "", ""

    def follow(self, connection: Connection | None) -> None:
        """Take the connection that carries traffic now; ask for ports in a new one."""
        tunnel = connection.tunnel if connection else None
        ports = tuple(it.port for it in connection.leases) if connection else ()
        if tunnel != self._tunnel:
            self._tunnel, self._found, self._refusal = tunnel, Found(), ""
            self._kept = self._leased = ()
            self._changed.set()
        self._open, self._leased = ports, connection.leases if connection else ()
        self._former = ports or self._former
        if not ports:
            self._closed.set()
        self._news.take(ports)

    def adopt(self, config: Config) -> None:
        """Follow a configuration: a port that has another use by now is closed.

        What it says of forwarded ports themselves takes effect at a restart only.
        """
        self._config = config
        if self._tunnel is not None and self._found.ports:
            self._take(self._tunnel, self._found)

    async def run(self) -> None:
        """Ask for ports in each connection, until cancelled."""
        news = asyncio.create_task(self._news.run(), name="news of forwarded ports")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_result_of(news))
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    await self._stop()
                    if self._tunnel is not None and not self._is_leaving:
                        self._working = group.create_task(self._obtain(self._tunnel))
        finally:
            await self._news.finish(news)

    async def take_leave(self) -> None:
        """Close the ports, then give them back, in half a second at most."""
        self._is_leaving = True
        if self._tunnel is None or self._working is None:
            return
        if self._open:
            self._closed.clear()
            self._means.lease(Leased(self._tunnel, ()))
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIME):
                    await self._closed.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIME):
                await self._stop()

    async def _stop(self) -> None:
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
            await asyncio.wait([working])

    async def _obtain(self, tunnel: Tunnel) -> None:
        """Run a forwarder for `tunnel`, again and again, until cancelled."""
        pause: float | None = None
        clock = self._means.clock
        while True:
            began_at = clock()
            around = Surroundings(
                self._config,
                tunnel,
                self._means.netns,
                clock,
                self._means.environ,
                self._former,
            )
            forwarder = self._means.make(around)
            self._kept = self._found.ports  # the server has promised them to an earlier one
            try:
                await forwarder.run(lambda found: self._take(tunnel, found))
            except MissingError as err:
                self._failed(err.missing, err.remedy)
            except (GatewayError, OSError, MemoryError) as err:
                end_if_cancelled()
                remedy = "" if is_shortage(err) else "`gateway doctor` collects what a report needs"
                self._failed(str(err), remedy)
            finally:
                self._starts += forwarder.starts
            pause = RESTART.pause(pause, clock() - began_at)
            await asyncio.sleep(pause)

    def _failed(self, problem: str, remedy: str) -> None:
        """Note why no forwarder runs; leases stay in force until they end."""
        self._log.warning("port forwarding failed", problem=problem, remedy=remedy)
        self._found = Found(self._found.ports, "failed", problem, remedy)

    def _take(self, tunnel: Tunnel, found: Found) -> None:
        """Have the ports opened that the server of `tunnel` has given."""
        if found.problem and found.problem != self._found.problem:
            self._log.warning("no forwarded port", problem=found.text, remedy=found.remedy)
        given, now = {it.index for it in found.ports}, self._means.clock()
        self._kept = tuple(it for it in self._kept if it.index not in given and it.until > now)
        ports = sorted((*found.ports, *self._kept), key=lambda it: it.index)
        self._found, self._refusal = replace(found, ports=tuple(ports)), ""
        leases = tuple(self._leases(self._found))
        if tunnel == self._tunnel and not self._is_leaving and not _same(leases, self._leased):
            self._leased = leases
            self._means.lease(Leased(tunnel, leases))

    def _leases(self, found: Found) -> Iterator[Lease]:
        """Yield the leases of the ports that may be opened."""
        for it in found.ports:
            target = target_of(self._wanted, it.index, it.public)
            arriving = None if it.arriving == target else it.arriving
            chosen = {it.public, it.arriving} - set(self._wanted.listening)
            if kept_closed(self._config, chosen):
                self._refuse(_KEPT_CLOSED.format(port=it.public))
            elif arriving is not None and self._means.cannot_redirect:
                why = self._means.cannot_redirect
                self._refuse(_NOT_MOVED.format(port=it.public, arriving=it.arriving, why=why))
            else:
                yield Lease(it.public, target, it.until, arriving=arriving)

    def _refuse(self, why: str) -> None:
        if why != self._refusal:
            self._log.warning("forwarded port refused", problem=why)
        self._refusal = why


async def _result_of(task: asyncio.Task[None]) -> None:
    """Wait for the end of `task`, without ending it, and raise what it has raised."""
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _same(leases: Sequence[Lease], others: Sequence[Lease]) -> bool:
    """Return whether both open the same ports for the same time, to a second."""
    return len(leases) == len(others) and all(
        replace(one, until=0.0) == replace(other, until=0.0) and abs(one.until - other.until) < 1
        for one, other in zip(leases, others, strict=True)
    )
