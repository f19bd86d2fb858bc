"""The one loop: wait for an event, ask the machine what it means, enforce that, tell it."""

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Parts
from gateway.daemon.prober import Prober
from gateway.daemon.reporter import Reporter
from gateway.daemon.setback import Setbacks, end_closed
from gateway.daemon.workers import Connector
from gateway.errors import FirewallError, GatewayError, KernelError, TunnelError, is_shortage
from gateway.model import INTERFACE, Config, Facts, TunnelStatus
from gateway.policy.moves import move
from gateway.policy.routing import fitted
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
    Refused,
    Resolving,
    Sampled,
    State,
    Stop,
    Stopping,
)
from gateway.policy.timing import Moment, Timing
from gateway.policy.ways import has_moved, shared_addresses, ways


class Supervisor:
    """Keeps the namespace in the state that the machine says, until it is told to stop."""

    def __init__(self, config: Config, parts: Parts, timing: Timing) -> None:
        self._timing = timing
        self._config = config
        self._parts = parts
        self._log = structlog.get_logger()
        self._kernel = Enforcement(
            config, parts.firewall, parts.guard, parts.network, parts.reserve
        )
        self._connector = Connector(config, parts, self._kernel, timing)
        self._reporter = Reporter(parts, self._kernel)
        self._setbacks = Setbacks(parts.clock, timing)
        self._state: State = Locked(since=parts.clock())
        self._left: State | None = None
        self._refusal = ""
        self._woken = asyncio.Event()
        self._prober = Prober(config, parts, self._woken.set)
        self._asked_to_stop = False
        self._kernel_changed = False
        self._sampling: asyncio.Future[TunnelStatus] | None = None
        self._verify_at = 0.0
        self._verified_at = 0.0
        self._tried = Facts()

    def stop(self) -> None:
        """Ask the loop to end; to be called on the loop."""
        self._asked_to_stop = True
        self._connector.stop()
        if self._sampling is not None:
            self._sampling.cancel()
        self._woken.set()

    def kernel_changed(self) -> None:
        """Say that links, addresses, routes or rules may have changed; to be called on the loop."""
        self._kernel_changed = True
        self._woken.set()

    async def run(self) -> None:
        """Connect, stay connected, and return once stopped and closed.

        Raises NotClosedError when the closed ruleset could not be put into force in time
        (`Timing.closing_time`); every link but loopback is down then, or the message names those
        that are not. Whatever else is raised, the closed ruleset is in force.
        """
        try:
            while not isinstance(self._state, Stopping):
                self._publish()
                await self._turn()
        except BaseException:
            await self._end_closed()
            raise
        self._publish()
        try:
            if self._left is not None or self._refusal:
                await self._end_closed()
        finally:
            with self._parts.reserve():  # there is nothing later to keep it for
                await asyncio.gather(self._clear_away(), self._parts.hooks.finish())

    async def _turn(self) -> None:
        """Wait for one event, and follow it; a failure leads to a stricter state.

        A shortage leads to no other state: the kernel has refused nothing, and what is in force is
        what was read back last. Health is red until the kernel can be asked again.
        """
        try:
            await self._wait_for_retry()
            if not self._catch_up():
                return
            self._meet(await self._next_event())
            self._keep()
        except (KernelError, OSError, MemoryError) as err:
            self._take(err)
        else:
            self._setbacks.end()

    def _take(self, error: KernelError | OSError | MemoryError) -> None:
        """Draw the conclusion from an error: go on later, close, or go back."""
        if is_shortage(error):
            self._setbacks.add(error)
        elif isinstance(error, FirewallError):
            self._close(str(error))
        elif isinstance(error, KernelError):
            self._fail(str(error))
        else:
            raise error

    async def _wait_for_retry(self) -> None:
        """Wait until the next attempt is due, and go on publishing.

        A stop ends the waiting, and so does a change: a new link has to have a guard, or be down.
        """
        while not self._asked_to_stop and self._setbacks.seconds_left > 0:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    min(self._setbacks.seconds_left, self._timing.heartbeat)
                ):
                    await self._woken.wait()
            self._publish()
            if self._kernel_changed:
                self._kernel_changed = False
                return

    def _catch_up(self) -> bool:
        """Do what could not be done before; return whether it is. Raises KernelError."""
        if self._setbacks.current is None or self._asked_to_stop:
            return True
        if self._refusal:
            self._close(self._refusal)
            return not self._refusal and self._left is None
        if self._left is not None or self._kernel.are_links_down:
            self._enter()
        self._kernel.look_around()
        self._verify(self._now())
        return True

    async def _end_closed(self) -> None:
        """Put the closed rules into force for the end. Raises NotClosedError."""
        await end_closed(self._kernel, self._parts.clock, self._timing)
        if isinstance(self._state, Stopping) and self._left is not None:
            with suppress(KernelError, OSError, MemoryError):  # only routes: the rules are in force
                self._enter()

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
            is_new = now - self._connector.built_at < self._timing.eager_for
            return self._timing.eager if is_new else self._timing.heartbeat
        if isinstance(state, Locked | Resolving | Connecting):
            return min(self._timing.heartbeat, state.retry_at - now)
        return self._timing.heartbeat

    async def _wait(self, seconds: float) -> Event | None:
        """Wait until somebody has something to say, `seconds` at most, and look what it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        if self._asked_to_stop:
            return Stop()
        if self._kernel_changed:
            await asyncio.sleep(self._timing.settle)
            self._kernel_changed = False
            self._kernel.look_around()
            self._verify_at = min(self._verify_at, self._verified_at + self._timing.verify_again)
        if moved := self._moved():
            return moved
        return self._prober.answers.popleft() if self._prober.answers else await self._sample()

    def _moved(self) -> Moved | None:
        """Say so if the way to the server is another one than when it was last tried."""
        state, former, facts = self._state, self._tried, self._kernel.facts
        changed, now = False, ""
        if isinstance(state, Resolving):
            changed = former != facts
        if isinstance(state, Connecting | Connected):
            now = ways(state.tunnel, facts)
            changed = has_moved(state.tunnel, former, facts)
        if not changed:
            return None
        self._tried = facts
        return Moved(now)

    async def _sample(self) -> Event | None:
        """Ask WireGuard what it knows, where there should be an interface; a stop ends it."""
        state = self._state
        if not isinstance(state, Connected) and not (isinstance(state, Connecting) and state.built):
            return None
        self._sampling = asyncio.ensure_future(self._parts.tunnel.status())
        try:
            status = await self._sampling
        except TunnelError as err:
            if is_shortage(err):
                raise
            return Lost(str(err))
        except asyncio.CancelledError:
            if self._asked_to_stop:
                return Stop()
            raise
        fault = self._parts.network.fault_of(INTERFACE, state.tunnel.addresses)
        if not fault and (shared := shared_addresses(state.tunnel, self._kernel.facts)):
            fault = f"the tunnel's address is an uplink's too: {shared}"
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
        while not (await asyncio.wait({task}, timeout=self._timing.heartbeat))[0]:
            if self._asked_to_stop:
                self._connector.stop()  # it may have begun only after it was told to stop
            try:
                self._verify_if_due(self._now())
            except (KernelError, OSError, MemoryError):
                self._connector.stop()
                await asyncio.wait({task})
                raise
            self._publish()
        return task.result()

    def _meet(self, event: Event | None) -> None:
        """Let the machine say what `event` leads to, and make that the state."""
        if event is not None:
            self._advance(event)
            self._enter()

    def _advance(self, event: Event) -> None:
        """Make the state that `event` leads to ours; what it needs is not in force yet.

        Until then, `_left` is the state that the kernel is in.
        """
        before = self._state
        self._state = move(before, event, self._moment())
        self._left = before if self._left is None else self._left
        if isinstance(self._state, Stopping):
            self._publish()  # red comes first: nobody is to begin with what is about to end

    def _enter(self) -> None:
        """Put what the state needs into force, then log that it has changed."""
        self._kernel.enter(self._state)
        before, self._left = self._left, None
        if before is not None:
            self._reporter.changed(before, self._state, self._now())
            if isinstance(self._state, Connected) and not isinstance(before, Connected):
                self._prober.connected()

    def _close(self, problem: str) -> None:
        """Close because the rules of the state were refused, or nothing can be found out.

        When the kernel refuses the closed rules too, the links are down, and that is tried again;
        so it is after a shortage, where the rules of the state that is left stay in force.
        """
        is_first = not self._refusal
        if is_first:
            self._log.error("closing", problem=problem)
        self._refusal = problem
        try:
            self._kernel.close()
        except (KernelError, OSError, MemoryError) as err:
            self._setbacks.add(err)
            if is_first and not is_shortage(err):
                self._advance(Refused(problem))
        else:
            self._refusal = ""
            # The state is the locked one already where an earlier attempt was refused.
            is_locked = isinstance(self._state, Locked) and not is_first
            self._follow(None if is_locked else Refused(problem))

    def _fail(self, problem: str) -> None:
        """Go back because something that the state needs could not be done."""
        match self._state:
            case Locked() | Stopping():
                self._close(problem)
            case Resolving() | Connecting():
                self._follow(Failed(problem))
            case Connected():
                self._follow(Lost(problem))

    def _follow(self, event: Event | None) -> None:
        """Enter the stricter state that follows from a failure, and survive another one.

        None stands for the state that is ours already.
        """
        try:
            if event is not None:
                self._advance(event)
            self._enter()
        except (KernelError, OSError, MemoryError) as err:
            refused = isinstance(err, FirewallError) and not is_shortage(err)
            if refused and event is not None and not isinstance(event, Refused):
                self._close(str(err))
            else:
                self._setbacks.add(err)

    def _keep(self) -> None:
        """Compare with the kernel, probe the tunnel, mend the resolver file, when it is time."""
        now = self._now()
        if now >= self._verify_at:
            self._kernel.look_around()
        self._verify_if_due(now)
        if isinstance(self._state, Connected):
            self._prober.send_if_due(self._state, self._moment())
            self._connector.keep_names(self._state.tunnel)

    def _verify_if_due(self, now: float) -> None:
        if now >= self._verify_at:
            self._verify(now)

    def _verify(self, now: float) -> None:
        """Compare the kernel with what is wanted, and put back what is different."""
        self._kernel.put_back_drift()
        self._verified_at = now
        if not self._kernel.drifted:
            self._reporter.verified_at = now
        self._verify_at = now + (
            self._timing.verify_again if self._kernel.drifted else self._timing.verify_every
        )

    async def _clear_away(self) -> None:
        """Remove the interface and its key; the closed rules stay, whatever happens here."""
        try:
            await self._parts.tunnel.down()
            await self._parts.forget_flows()
        except (GatewayError, OSError, MemoryError) as err:
            self._log.error("not everything was cleared away", problem=str(err))

    def _publish(self) -> None:
        """Give the health server the status as it is now."""
        self._reporter.publish(
            self._state, self._now(), self._setbacks.current, self._connector.names_problem
        )

    def _moment(self) -> Moment:
        return Moment(self._now(), self._timing, random.random())  # noqa: S311 - spreads attempts

    def _now(self) -> float:
        return self._parts.clock()
