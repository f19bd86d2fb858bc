"""What takes time: looking names up, building the interface, reading its counters, probing it.

Each is a job whose result is an event; an error of the kernel becomes one too. Nothing here changes
rules or routes: the loop does that.
"""

import asyncio
import errno
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from gateway.daemon.jobs import Job
from gateway.daemon.names import Names
from gateway.daemon.ports import Parts
from gateway.daemon.sizing import Sizing
from gateway.errors import (
    KERNEL,
    GatewayError,
    LoginError,
    NetworkError,
    TunnelError,
    explained,
    is_shortage,
)
from gateway.model import INTERFACE, Address, Candidate, Errand, Tunnel
from gateway.policy.actions import (
    Ask,
    AskResolvers,
    Build,
    Fetch,
    LookUp,
    Measure,
    Open,
    Remove,
    Sample,
    SendProbe,
    Work,
    WriteNames,
)
from gateway.policy.dns import reachable, resolved
from gateway.policy.events import (
    Asking,
    Built,
    Event,
    Failed,
    Fetched,
    Located,
    Lost,
    NotFetched,
    Opened,
    Probed,
    Resolved,
    ResolversAsked,
    Sampled,
    Troubled,
    Wrote,
)
from gateway.policy.facts import Facts
from gateway.policy.orders import Removed
from gateway.policy.source_port import DYNAMIC_PORTS
from gateway.policy.timing import Timing

NO_WAY = "no address that an uplink has a route to"


class Workers:
    """Does the work of `gateway.policy.actions.Work`; the caller sees to it that none overlaps."""

    def __init__(self, parts: Parts, names: Names, timing: Timing) -> None:
        self._parts = parts
        self._names = names
        self._timing = timing
        self._sizing = Sizing(parts)
        self._built: Tunnel | None = None

    def open(self, action: LookUp | Open) -> Event:
        """Make the socket for a look-up, or to the host of a provider; does not wait."""
        is_question = isinstance(action, LookUp)
        try:
            if isinstance(action, LookUp):
                return Asking(self._parts.resolver.open())
            return Opened(self._parts.provider.open(action.errand, action.server))
        except GatewayError as err:
            return Failed(explained(err)) if is_question else NotFetched(explained(err))

    def job_of(
        self,
        action: Ask | Fetch | Remove | Sample | SendProbe | AskResolvers | Measure | WriteNames,
        facts: Facts,
    ) -> tuple[Work, Job]:
        """Return the kind of work that `action` is, and how it is done."""
        match action:
            case Ask(candidate):
                return Work.CONNECT, lambda: self.look_up(candidate, facts)
            case Fetch(errand, _transfer):
                return Work.FETCH, lambda: self.fetch(errand)
            case Remove():
                return Work.CONNECT, self.remove
            case Measure():
                return Work.MEASURE, lambda: self._sizing.measure(action)
            case Sample() | SendProbe() | AskResolvers() | WriteNames():
                return self._while_there_is_one(action)

    def _while_there_is_one(
        self, action: Sample | SendProbe | AskResolvers | WriteNames
    ) -> tuple[Work, Job]:
        """Return the same for what needs the interface."""
        if isinstance(action, Sample):
            return Work.SAMPLE, lambda: self.sample(action)
        if isinstance(action, SendProbe):
            return Work.PROBE, lambda: self.probe(action)
        if isinstance(action, WriteNames):
            return Work.NAMES, lambda: self.write_names(action.tunnel)
        return Work.ASK, lambda: self.ask(action.resolvers)

    async def look_up(self, candidate: Candidate, facts: Facts) -> Event:
        """Have the names of the candidate's endpoints looked up; their hole is open."""
        return await self._within_limit(self._look_up(candidate, facts))

    async def fetch(self, errand: Errand) -> Event:
        """Have `errand` done through its socket, and what it brings kept."""
        try:
            async with asyncio.timeout(self._timing.fetch_limit):
                await self._parts.provider.fetch(errand)
        except TimeoutError:
            return NotFetched(f"not done after {self._timing.fetch_limit:g} s")
        except LoginError as err:
            return NotFetched(explained(err), refused=True)
        except GatewayError as err:
            return Troubled(Work.FETCH, err) if is_shortage(err) else NotFetched(explained(err))
        except (OSError, MemoryError) as err:
            return Troubled(Work.FETCH, err)
        return Fetched()

    async def build(self, wanted: Build, facts: Facts) -> Event:
        """Make the interface for a tunnel, to whose server there is a way."""
        return await self._within_limit(self._build(wanted.tunnel, facts, timed=wanted.timed))

    async def remove(self) -> Event:
        """Remove the interface, and with it the encrypted flow."""
        self._built = None
        try:
            await self._parts.tunnel.down()
        except KERNEL as err:
            return Troubled(Work.CONNECT, err) if is_shortage(err) else Removed(explained(err))
        return Removed()

    async def sample(self, action: Sample) -> Event:
        """Read WireGuard's counters, and whether the interface can carry traffic."""
        tunnel = action.tunnel
        heard = self._parts.overheard(tunnel.endpoints if action.listens else ())
        try:
            status = await self._parts.tunnel.status()
            fault = self._parts.around_tunnel.fault_of(INTERFACE, tunnel.addresses)
        except KERNEL as err:
            gone = isinstance(err, TunnelError) and not is_shortage(err)
            return Lost(explained(err)) if gone else Troubled(Work.SAMPLE, err)
        return Lost(fault) if fault else Sampled(status, heard)

    async def probe(self, action: SendProbe) -> Event:
        """Send a probe; only a question says something about the tunnel's resolver."""
        begun_at, probe = self._parts.clock(), action.probe
        try:
            outcome = await self._parts.probe(action)
        except KERNEL as err:
            return Troubled(Work.PROBE, err)
        answered = outcome.answered if probe.is_question else None
        return Probed(answered, outcome, begun_at, action.thorough)

    async def ask(self, resolvers: tuple[Address, ...]) -> Event:
        """Ask the workloads' resolvers whether they answer."""
        try:
            return ResolversAsked(await self._parts.not_answering(resolvers))
        except KERNEL as err:
            return Troubled(Work.ASK, err)

    async def write_names(self, tunnel: Tunnel) -> Event:
        """Write the resolver file again."""
        try:
            return Wrote(await self._names.write(tunnel))
        except MemoryError as err:
            return Troubled(Work.NAMES, err)

    async def _within_limit(self, work: Coroutine[Any, Any, Event]) -> Event:
        try:
            async with asyncio.timeout(self._timing.work_limit):
                return await work
        except TimeoutError:
            return Failed(f"not done after {self._timing.work_limit:g} s")
        except GatewayError as err:
            taken = isinstance(err, TunnelError) and err.errno == errno.EADDRINUSE
            # Which port it is matters only to the rules, and those follow.
            return Failed(explained(err), random.choice(DYNAMIC_PORTS) if taken else None)  # noqa: S311
        except (OSError, MemoryError) as err:
            return Troubled(Work.CONNECT, err)

    async def _look_up(self, candidate: Candidate, facts: Facts) -> Event:
        answers = await self._parts.resolver.ask(candidate.names)
        if candidate.errands:
            (host,) = candidate.names
            addresses = reachable(answers[host], candidate, facts)
            return Located(addresses) if addresses else Failed(NO_WAY)
        tunnels = resolved(candidate, answers, facts)
        return Resolved(tunnels) if tunnels else Failed(NO_WAY)

    async def _build(self, tunnel: Tunnel, facts: Facts, *, timed: bool) -> Event:
        """Make the interface for `tunnel`, or only replace its peers where that is enough.

        If its handshake is `timed`, it begins when the interface is complete.
        """
        changed: tuple[int, float | None] | None = await self._with_other_peers(tunnel, facts)
        if changed is None:
            former, self._built = self._built, None
            again = former is not None and former == replace(tunnel, listen_port=former.listen_port)
            mtu = self._sizing.begin(tunnel, facts, again=again and former != tunnel)
            await self._parts.tunnel.up(replace(tunnel, peers=()) if timed else tunnel, mtu)
            changed = mtu, await self._parts.tunnel.configure(tunnel) if timed else None
        self._built = tunnel
        mtu, begun_at = changed
        return Built(await self._names.write(tunnel), mtu, begun_at)

    async def _with_other_peers(self, tunnel: Tunnel, facts: Facts) -> tuple[int, float] | None:
        """Give the present interface the peers of `tunnel`, if it differs in nothing else.

        Return its MTU and when the handshake began, None where it has to be made again.
        """
        former = self._built
        if former is None or replace(former, peers=()) != replace(tunnel, peers=()):
            return None
        if self._parts.around_tunnel.fault_of(INTERFACE, tunnel.addresses):
            return None
        try:
            begun_at = await self._parts.tunnel.configure(tunnel)
            return self._sizing.continued(tunnel, facts), begun_at
        except (TunnelError, NetworkError):
            return None
