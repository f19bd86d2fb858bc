"""The one loop: wait for an event, ask the machine what it means, enforce that, tell it."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from gateway.connector import Connector
from gateway.enforcement import Enforcement
from gateway.errors import FirewallError, GatewayError, KernelError, TunnelError
from gateway.model import INTERFACE, Config, Facts
from gateway.parts import Parts
from gateway.policy.machine import step
from gateway.policy.probing import Probe, probe_for
from gateway.policy.routing import fitted, ways
from gateway.policy.states import (
    Asking,
    Begin,
    Connected,
    Connecting,
    Event,
    Failed,
    Locked,
    Lost,
    Moved,
    Probed,
    Reason,
    Refused,
    Resolving,
    Sampled,
    State,
    Stop,
    Stopping,
)
from gateway.policy.telling import detail, endpoint, name, reason, status_of

HEARTBEAT = 1.0
"""Seconds that the loop waits at most: how often a connected tunnel is looked at, and told of."""

EAGER = 0.02
EAGER_FOR = 2.0
"""Seconds between two looks at a tunnel that was just built, and for how long."""

VERIFY_EVERY = 3.0
VERIFY_AGAIN = 1.0
"""Seconds between two comparisons of the kernel with what is wanted.

Less where they differed, or where the kernel tells of a change, which it does not for rules.
"""

PROBE_EVERY = 20.0
PROBE_IN_DOUBT = 1.0
"""Seconds between two probes inside the tunnel; less while something stays unanswered."""

SETTLE = 0.02
"""Seconds that kernel events get to come together before the namespace is looked at again."""


class Supervisor:
    """Keeps the namespace in the state that the machine says, until it is told to stop."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._log = structlog.get_logger()
        self._kernel = Enforcement(config, parts.firewall, parts.guard, parts.network)
        self._connector = Connector(config, parts, self._kernel)
        self._state: State = Locked(since=parts.clock())
        self._woken = asyncio.Event()
        self._asked_to_stop = False
        self._kernel_changed = False
        self._probed: deque[Probed] = deque()
        self._probing: asyncio.Future[None] | None = None
        self._probed_at = 0.0
        self._verify_at = 0.0
        self._verified_at = 0.0
        self._as_wanted_at: float | None = None
        self._tried = Facts()
        self._reconnects: Counter[str] = Counter()
        self._switches = 0
        self._served = ""

    def stop(self) -> None:
        """Ask the loop to end; to be called on the loop."""
        self._asked_to_stop = True
        self._connector.stop()
        self._woken.set()

    def kernel_changed(self) -> None:
        """Say that links, addresses, routes or rules may have changed; to be called on the loop."""
        self._kernel_changed = True
        self._woken.set()

    async def run(self) -> None:
        """Connect, stay connected, and return once stopped and closed.

        Raises FirewallError when not even the closed ruleset could be put into force; every link
        but loopback is down then, or the log names those that are not. Whatever else is raised,
        the closed ruleset is in force.
        """
        try:
            while not isinstance(self._state, Stopping):
                self._publish()
                await self._turn()
        except BaseException:
            self._kernel.close()
            raise
        self._publish()
        await asyncio.gather(self._clear_away(), self._parts.hooks.finish())

    async def _turn(self) -> None:
        """Wait for one event, and follow it; a failure leads to a stricter state."""
        try:
            self._meet(await self._next_event())
            self._keep()
        except FirewallError as err:
            self._close(str(err))
        except KernelError as err:
            self._fail(str(err))

    # What happens next

    async def _next_event(self) -> Event | None:
        """Wait for what happens next; None when time has passed and nothing else."""
        state, now = self._state, self._now()
        if self._asked_to_stop:
            return Stop()
        match state:
            case Locked() if now >= state.retry_at:
                self._kernel.look_around()
                return Begin(tuple(fitted(t, self._kernel.facts) for t in self._config.tunnels))
            case Resolving() if now >= state.retry_at:
                self._tried = self._kernel.facts
                return await self._look_up(state)
            case Connecting() if not state.built and now >= state.retry_at:
                event = await self._meanwhile(self._connector.build(state.tunnel))
                self._tried = self._kernel.facts
                return event
            case _:
                return await self._wait(self._pause(state, now))

    def _pause(self, state: State, now: float) -> float:
        """Return the seconds until `state` has to be looked at again, if nothing happens."""
        if isinstance(state, Connecting) and state.built:
            return EAGER if now - self._connector.built_at < EAGER_FOR else HEARTBEAT
        if isinstance(state, Locked | Resolving | Connecting):
            return min(HEARTBEAT, state.retry_at - now)
        return HEARTBEAT

    async def _wait(self, seconds: float) -> Event | None:
        """Wait until somebody has something to say, `seconds` at most, and look what it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        if self._asked_to_stop:
            return Stop()
        if self._kernel_changed:
            await asyncio.sleep(SETTLE)
            self._kernel_changed = False
            self._kernel.look_around()
            self._verify_at = min(self._verify_at, self._verified_at + VERIFY_AGAIN)
        if moved := self._moved():
            return moved
        return self._probed.popleft() if self._probed else await self._sample()

    def _moved(self) -> Moved | None:
        """Say so if the way to the server is another one than when it was last tried."""
        state, former, facts = self._state, self._tried, self._kernel.facts
        changed, now = False, ""
        if isinstance(state, Resolving):
            changed = former != facts
        if isinstance(state, Connecting | Connected):
            now = ways(state.tunnel, facts)
            changed = now != ways(state.tunnel, former)
        if not changed:
            return None
        self._tried = facts
        return Moved(now)

    async def _sample(self) -> Event | None:
        """Ask WireGuard what it knows, where there should be an interface."""
        state = self._state
        if not isinstance(state, Connected) and not (isinstance(state, Connecting) and state.built):
            return None
        try:
            status = await self._parts.tunnel.status()
        except TunnelError as err:
            return Lost(str(err))
        fault = self._parts.network.fault_of(INTERFACE, state.tunnel.addresses)
        return Lost(fault) if fault else Sampled(status)

    async def _look_up(self, state: Resolving) -> Event:
        """Have the names of the candidate's endpoints looked up, through a hole of their own."""
        try:
            query = self._parts.resolver.open()
        except GatewayError as err:
            return Failed(str(err))
        self._meet(Asking(query))
        return await self._meanwhile(self._connector.look_up(state.turn.candidate))

    async def _meanwhile(self, work: Coroutine[Any, Any, Event]) -> Event:
        """Wait for what takes the connector its time; put back drift and tell of it all the same.

        The namespace is not looked at: its rules and routes are in between two states.
        """
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait({task}, timeout=HEARTBEAT))[0]:
            try:
                self._verify_if_due(self._now())
            except KernelError:
                self._connector.stop()
                await asyncio.wait({task})
                raise
            self._publish()
        return task.result()

    # What it means

    def _meet(self, event: Event | None) -> None:
        """Let the machine say what `event` leads to, and make that the state."""
        if event is None:
            return
        before = self._state
        after = step(before, event, self._now(), random.random())  # noqa: S311 - spreads attempts
        self._state = after
        if isinstance(after, Stopping):
            self._publish()  # red comes first: nobody is to begin with what is about to end
        self._kernel.enter(after)
        if _told(before) != _told(after):
            self._tell(before, after)

    def _close(self, problem: str) -> None:
        """Close because the rules of the state were refused, or nothing can be found out."""
        self._log.error("closing", problem=problem)
        self._kernel.close()
        self._follow(Refused(problem))

    def _fail(self, problem: str) -> None:
        """Go back because something that the state needs could not be done."""
        match self._state:
            case Locked() | Stopping():
                self._close(problem)
            case Resolving() | Connecting():
                self._follow(Failed(problem))
            case Connected():
                self._follow(Lost(problem))

    def _follow(self, event: Event) -> None:
        """Enter the stricter state that follows from a failure, and survive another one."""
        try:
            self._meet(event)
        except FirewallError as err:
            self._log.error("closing", problem=str(err))
            self._kernel.close()
        except KernelError as err:
            self._log.warning("not everything is in step", problem=str(err))

    # What is due now and then

    def _keep(self) -> None:
        """Compare with the kernel, and probe the tunnel, when it is time."""
        now = self._now()
        if now >= self._verify_at:
            self._kernel.look_around()
        self._verify_if_due(now)
        if isinstance(self._state, Connected):
            self._probe_if_due(self._state, now)

    def _verify_if_due(self, now: float) -> None:
        if now >= self._verify_at:
            self._kernel.put_back_drift()
            self._verified_at = now
            if not self._kernel.drifted:
                self._as_wanted_at = now
            self._verify_at = now + (VERIFY_AGAIN if self._kernel.drifted else VERIFY_EVERY)

    def _probe_if_due(self, state: Connected, now: float) -> None:
        in_doubt = state.resolver_failures or state.pulse.is_in_doubt(now)
        due_at = self._probed_at + (PROBE_IN_DOUBT if in_doubt else PROBE_EVERY)
        probe = probe_for(state.tunnel, self._config)
        if probe and now >= due_at and (self._probing is None or self._probing.done()):
            self._probed_at = now
            self._probing = asyncio.ensure_future(self._probe(probe))

    async def _probe(self, probe: Probe) -> None:
        answered = await self._parts.probe(probe)
        if probe.is_question:
            self._probed.append(Probed(answered))
            self._woken.set()

    async def _clear_away(self) -> None:
        """Remove the interface and its key; the closed rules stay, whatever happens here."""
        try:
            await self._parts.tunnel.down()
            self._parts.forget_flows()
        except GatewayError as err:
            self._log.error("not everything was cleared away", problem=str(err))

    # What is told

    def _tell(self, before: State, after: State) -> None:
        """Log a change of state, count it, and start the user's command for it."""
        self._log.info(
            "state changed",
            old=name(before),
            new=name(after),
            reason=str(reason(after)),
            detail=detail(after),
            endpoint=endpoint(after),
            seconds=round(self._now() - before.since, 3),
        )
        if isinstance(after, Connected) and not isinstance(before, Connected):
            self._probed_at = 0.0
            self._switches += self._served not in {"", endpoint(after)}
            self._served = endpoint(after)
            self._parts.hooks.up()
        if isinstance(before, Connected) and not isinstance(after, Connected):
            self._reconnects.update([reason(after)] if not isinstance(after, Stopping) else [])
            self._parts.hooks.down()

    def _publish(self) -> None:
        """Tell the health server how things are."""
        parts, kernel, now = self._parts, self._kernel, self._now()
        status = replace(
            status_of(self._state, now),
            firewall=parts.firewall.name,
            tunnel=parts.tunnel.name,
            drift=kernel.drift,
            verified_age=None if self._as_wanted_at is None else now - self._as_wanted_at,
            reconnects=tuple(self._reconnects.items()),
            switches=self._switches,
            refused=kernel.refused,
            limits=(*parts.limits, *filter(None, [self._connector.names_problem])),
        )
        if kernel.drifted and status.healthy:
            # Put back, but not yet seen to stay.
            status = replace(
                status, healthy=False, reason=Reason.DRIFT, detail="; ".join(kernel.drifted)
            )
        parts.publish(status)

    def _now(self) -> float:
        return self._parts.clock()


def _told(state: State) -> tuple[str, ...]:
    """Return what makes a difference that is worth a line in the log."""
    return name(state), reason(state), endpoint(state)
