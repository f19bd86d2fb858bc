"""The gateway's own resolver: unbound as a supervised child, which workloads ask at 127.0.0.1.

It decides nothing: `policy.upstreams` says which resolvers it asks, and rules keep its user in the
tunnel. When it ends, hangs or cannot start, it is started again, after longer and longer pauses.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from gateway.errors import GatewayError, NetworkError, ProcessEnded, is_shortage
from gateway.model.name_server import BlockFile, HostName, NameServer, Upstream
from gateway.policy.blocked import ZONE
from gateway.policy.limits import Limit, limit_of_confinement
from gateway.policy.reports import ResolverReport
from gateway.policy.unbound import PORT, ROOT_KEYS, Unbound, configuration
from gateway.policy.upstreams import OURS, REDIRECTED, described
from gateway.services.resolver.blocked_zone import BlockedZone
from gateway.services.resolver.files import Home
from gateway.services.resolver.lines import LONGEST, Lines, plain
from gateway.system.child import NEVER, Child, Restart
from gateway.system.kept_ports import KeptPorts
from gateway.system.netns import Netns
from gateway.system.probe import answers_here, arrivals
from gateway.system.resolver_control import Control

READY_WITHIN = 5.0
READY_WITH_LISTS = 60.0
LOOK_EVERY = 15.0
"""Seconds between two looks whether it still answers, and at its counts."""
PATIENCE = 2
"""Looks without an answer after which it hangs, and is started again."""
RESTART = Restart(first=0.25, longest=30.0)

TAKEN = "address already in use"
"""What it writes when its port is taken."""
FORGET = ("flush_infra all",)
HANG_UP = ("reload_keep_cache", "reload")
"""What it gets when the tunnel has come up or gone (unbound-control(8)); before 1.18 it cannot end
its connections without losing what it has cached."""
OTHER_RULES = f"auth_zone_reload {ZONE}"
"""What it gets when the zone of blocked names has changed."""

OFF = "or set DNS_SERVER=off, with which workloads ask the resolvers of the tunnel themselves"
OWN_ONE = (
    "if a workload is to be the resolver, set DNS_SERVER=off and DNS_ADDRESS=127.0.0.1; else "
    "have it listen at another address than 127.0.0.1 and 0.0.0.0"
)


class Resolver:
    """Runs one resolver, whose upstreams are those that `follow` was given last."""

    def __init__(
        self, server: NameServer, files: Home, netns: Netns, clock: Callable[[], float]
    ) -> None:
        """`server` says how it works, `netns` is the namespace of the workloads."""
        self._server = server
        self._files = files
        self._netns = netns
        self._clock = clock
        self._log = structlog.get_logger()
        self._control = Control(files.control)
        self._ports = KeptPorts(netns)
        self._wanted = Unbound(
            (),
            files.socket,
            exempt=server.exempt,
            caching=server.caching,
            local=server.local,
            anchor=ROOT_KEYS if server.dnssec else "",
        )
        self._said: tuple[Upstream, ...] | None = None
        self._asks: tuple[Upstream, ...] | None = None
        self._pending: tuple[str, ...] = ()
        self._lines = Lines(clock, lambda: described(self._wanted.upstreams))
        self._wake = asyncio.Event()
        self.zone = BlockedZone(server, files)
        self.busy = asyncio.Lock()
        """Held while it reads rules, and so answers late, and while a probe asks it."""
        self._reading, self._is_stale = asyncio.Lock(), False
        self._report = ResolverReport(described(()))

    @property
    def report(self) -> ResolverReport:
        """What is known of it now; from any thread.

        One that still asks the resolvers of the tunnel before does not answer: it ends soon.
        """
        report = replace(self._report, blocks=self.zone.total)
        if self._asks != self._wanted.upstreams:
            report = replace(report, answers=False)
        if report.answers and self._lines.is_refused:
            problem = f"the certificate of {report.asks} is not the right one, or has expired"
            return replace(report, problem=problem, remedy=f"set DNS_UPSTREAM_RESOLVERS, {OFF}")
        return report

    @property
    def unconfined(self) -> tuple[str, str]:
        """Why it runs as root, and the remedy; both empty if it has a user of its own."""
        return self._files.unconfined

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What does not hold because it cannot have a user of its own, by which rules know it."""
        why, remedy = self.unconfined
        if not why:
            return ()
        # What leaves for a local zone's resolver is known by its user.
        zones = "; so DNS_LOCAL_ZONES has no effect" if self._server.local else ""
        return (limit_of_confinement(f"it runs as root, {why}{zones}", f"{remedy}, {OFF}"),)

    def follow(self, upstreams: tuple[Upstream, ...]) -> None:
        """Have it ask `upstreams` from now on; to be called on the loop."""
        self._wanted = replace(self._wanted, upstreams=upstreams)
        self._report = replace(self._report, asks=described(upstreams))
        self._wake.set()

    def know(self, hosts: tuple[HostName, ...], blocks: tuple[BlockFile, ...]) -> None:
        """Have it answer by itself for `hosts`, and for the names in the lists `blocks`.

        From now on; to be called on the loop.
        """
        self._wanted = replace(self._wanted, hosts=hosts, blocks=blocks)
        self._wake.set()

    async def block(self, fetched: tuple[BlockFile, ...]) -> bool:
        """Have the names in `fetched` blocked as well, from now on; return whether they are.

        It is not started again if it can take them: then all answers wait while it reads them.
        """
        self.zone.fetched = fetched
        if not await self.zone.make(self._wanted.blocks):
            return False
        try:
            async with self.busy, self._reading:
                await self._control.send(OTHER_RULES, READY_WITH_LISTS)
        except NetworkError:
            self._is_stale = True
            self._wake.set()
        return True

    def connected(self) -> None:
        """Say that the tunnel has just come up: what it knows of upstreams is out of date.

        Else it would not ask for some seconds those that did not answer before.
        """
        self._pending = FORGET
        self._wake.set()
        if self._said != (upstreams := self._wanted.upstreams):
            self._said = upstreams
            self._log.info("names are asked", of=described(upstreams))

    def lost(self) -> None:
        """Say that the tunnel has gone: its connections to upstreams lead nowhere.

        A connection survives that, so a question would wait in it instead of failing (P12).
        """
        self._pending = HANG_UP
        self._wake.set()

    def prepare(self) -> None:
        """Make what it takes. Raises MissingError, and OSError where that is not known."""
        self._files.prepare()

    async def run(self) -> None:
        """Keep it running, until cancelled."""
        pause: float | None = None
        while True:
            self._wake.clear()
            wanted, began = self._wanted, self._clock()
            problem = await self._run_once(wanted)
            lasted = self._clock() - began if self._report.answers else 0.0
            self._report = replace(self._report, answers=False)
            if not problem:  # only its configuration has changed
                continue
            pause = RESTART.pause(pause, lasted)
            self._failed(problem, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._other_wanted(wanted)

    async def _run_once(self, wanted: Unbound) -> str:
        """Run one process; return why it has ended, empty if only for another configuration."""
        child: Child | None = None
        try:
            self._files.prepare()
            child = self._child(await self._with_zone(wanted))
            await child.start()
            self._has_started(wanted)
            return await self._watched(child, wanted)
        except (GatewayError, OSError, MemoryError, ValueError) as err:
            return self._reason(err)
        finally:
            self._ports.keep()
            if child is not None:
                with suppress(GatewayError):
                    await child.stop()

    async def _with_zone(self, wanted: Unbound) -> Unbound:
        """Return `wanted` with its lists as one zone, if that has names or may get some."""
        self._is_stale = False
        if await self.zone.make(wanted.blocks) or self.zone.total:
            return replace(wanted, zone=str(self._files.zone))
        return wanted

    def _child(self, wanted: Unbound) -> Child:
        """Return the program that does `wanted`. Raises GatewayError and OSError."""
        files = self._files
        authorities = files.readable_authorities()
        arriving = arrivals(self._netns) if self._server.hijack else ()
        given = replace(wanted, certificates=authorities, redirected=arriving)
        program = files.program(configuration(given))
        places = ((OURS, PORT), *((it, REDIRECTED) for it in arriving))
        patience = READY_WITH_LISTS if wanted.zone else READY_WITHIN
        return Child(
            replace(program, netns=self._netns, ready_within=patience),
            restart=NEVER,
            ready=self._ports.shared_until(places, self._control.path, self._control.is_served),
            on_line=self._lines.heard,
        )

    async def _answers(self) -> bool:
        """Return whether it answers, or cannot be asked for now, which says nothing about it."""
        try:
            return await answers_here(self._netns)
        except OSError as err:
            return is_shortage(err)

    def _has_started(self, wanted: Unbound) -> None:
        self._asks = wanted.upstreams
        report = replace(self._report, answers=True, problem="", remedy="", others_answer=False)
        self._report = replace(report, starts=report.starts + 1)

    async def _watched(self, child: Child, wanted: Unbound) -> str:
        """Return why it has to be started again; empty if only for another configuration."""
        silences = 0
        while True:
            woken = asyncio.ensure_future(self._wake.wait())
            ended = asyncio.ensure_future(child.ended())
            try:
                await asyncio.wait(
                    [woken, ended], timeout=LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED
                )
                if ended.done():
                    return self._reason(child.process.end) if child.process else "it has ended"
                if woken.done():
                    self._wake.clear()
                    if wanted != self._wanted or self._is_stale:
                        return ""
                    pending, self._pending = self._pending, ()
                    await self._control.send_known(pending)
                    continue
            finally:
                for task in (woken, ended):
                    task.cancel()
            silences = 0 if self._reading.locked() or await self._answers() else silences + 1
            if silences >= PATIENCE:
                return "it does not answer"
            with suppress(NetworkError):
                counted = await self._control.counts()
                self._report = replace(self._report, questions=counted)

    async def _other_wanted(self, former: Unbound) -> None:
        while self._wanted == former:
            await self._wake.wait()
            self._wake.clear()

    def _reason(self, error: Exception) -> str:
        text = plain(str(error) or type(error).__name__)
        if isinstance(error, ProcessEnded) and TAKEN in text.lower():
            self._report = replace(self._report, others_answer=True)
            ports = f"port {PORT} or {REDIRECTED}" if self._server.hijack else f"port {PORT}"
            return f"{ports} of 127.0.0.1 is taken by another program"
        self._report = replace(self._report, others_answer=False)
        return text

    def _failed(self, problem: str, pause: float) -> None:
        remedy = OWN_ONE if self._report.others_answer else f"see the log, {OFF}"
        problem = problem[:LONGEST]
        if problem != self._report.problem:
            again = round(pause, 2)
            self._log.warning("resolver failed", problem=problem, remedy=remedy, again_in=again)
        self._report = replace(self._report, answers=False, problem=problem, remedy=remedy)
