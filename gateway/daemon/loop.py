"""The one loop: get an event, step, put the rules into force, start the actions, publish.

Everything that can wait runs in tasks of one task group, and reports by events: the clock and the
kernel's reports (`producers`), the jobs (`jobs`, `workers`), and what the composition root adds. An
unexpected error in any of them cancels the loop, which closes the namespace on its way out.
"""

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from gateway.daemon.ending import clear_away, end_closed
from gateway.daemon.enforcement import Enforcement
from gateway.daemon.inbox import Inbox
from gateway.daemon.jobs import Jobs, together
from gateway.daemon.names import Names
from gateway.daemon.ports import Parts
from gateway.daemon.producers import KernelReports, LostErrors, Timer
from gateway.daemon.reporter import Reporter
from gateway.daemon.resting import Rest
from gateway.daemon.setback import Setbacks, answer_to
from gateway.daemon.workers import Workers
from gateway.errors import KERNEL, is_shortage
from gateway.model import Config
from gateway.policy.actions import (
    Abandon,
    Action,
    Build,
    Count,
    LookAround,
    LookUp,
    Open,
    ReadAgain,
    Sample,
    Verify,
    Work,
)
from gateway.policy.agenda import wake_at
from gateway.policy.events import (
    Asked,
    Event,
    Failed,
    Looked,
    Probed,
    Refused,
    Stop,
    Troubled,
    Verified,
)
from gateway.policy.machine import interrupted, step
from gateway.policy.situation import Situation
from gateway.policy.states import Locked, State, Stopping
from gateway.policy.timing import Moment, Timing
from gateway.policy.ways import obstacle


class Supervisor:
    """Keeps the namespace in the state that the machine says, until it is stopped."""

    def __init__(self, config: Config, parts: Parts, timing: Timing, inbox: Inbox) -> None:
        self._parts = parts
        self._timing = timing
        self._log = structlog.get_logger()
        self._kernel = Enforcement(
            config, parts.firewall, parts.guard, parts.network, parts.reserve, parts.closed
        )
        self._workers = Workers(parts, Names(parts), timing)
        self._reporter = Reporter(parts, self._kernel)
        self._setbacks = Setbacks()
        self._situation = Situation(config, Locked(since=parts.clock()))
        self._inbox = inbox
        self.read_again = inbox.read_again
        self._rest = Rest(self._kernel, parts.network)
        self._timer = Timer(self._inbox, parts.clock, self._rests)
        self._reports = KernelReports(self._inbox, timing.settle)
        self._jobs: Jobs
        self._left: State | None = None  # the state that the kernel is in, where it is not ours yet
        self._refusal = ""  # why the kernel did not take the closed rules
        self._falling: Event | None = None  # to the stricter state, until it is in force

    def stop(self) -> None:
        """Ask the loop to end; to be called on the loop."""
        self._inbox.note(Stop())

    def kernel_changed(self) -> None:
        """Say that links, addresses, routes or rules may have changed; to be called on the loop."""
        self._reports.changed()

    def count(self) -> None:
        """Ask for the number of refused packets in the status; to be called on the loop."""
        self._inbox.note(Asked())

    async def run(self, **others: Coroutine[Any, Any, None]) -> None:
        """Connect, stay connected, and return once stopped and closed; `others` run as well.

        Raises NotClosedError when the closed ruleset could not be put into force in time
        (`Timing.closing_time`); every link but loopback is down then, or the message names those
        that are not. After any other error, also of `others`, the closed ruleset is in force.
        """
        lost = LostErrors()
        asyncio.get_running_loop().set_exception_handler(lost.handle)
        own = {"clock": self._timer.run(), "kernel reports": self._reports.run()}
        await together(self._live, {**own, "lost errors": lost.run(), **others})

    async def _live(self, group: asyncio.TaskGroup) -> None:
        """Follow events until one stops the gateway, then end closed, whatever is raised."""
        self._jobs = Jobs(group, self._inbox)
        try:
            self._timer.set(self._parts.clock())
            while not isinstance(self._state, Stopping):
                self._publish()
                self._turn(await self._inbox.get())
                self._set_timer()
        except BaseException:
            self._jobs.abandon()
            await self._end_closed()
            raise
        self._publish()
        try:
            if self._left is not None or self._refusal:
                await self._end_closed()
        finally:
            self._jobs.abandon()
            try:
                await self._jobs.ended(self._timing.closing_time)
            finally:
                with self._parts.reserve():  # there is nothing later to keep it for
                    await asyncio.gather(clear_away(self._parts), self._parts.hooks.finish())

    def _turn(self, first: Event) -> None:
        """Follow the event `first` and what comes of it; a failure leads to a stricter state.

        After a shortage the next attempt is waited for: see `gateway.policy.retry`.
        """
        events = deque([first])
        setback = self._setbacks.current
        if setback is not None and not setback.lets_pass(first, self._parts.clock()):
            return
        if self._refusal and not isinstance(first, Stop):
            self._falling = Refused(self._refusal)
            events.appendleft(self._falling)
        while events:
            event = events.popleft()
            try:
                events.extend(self._follow(event))
            except KERNEL as err:
                answer = answer_to(err, self._state, self._falling)
                if answer is None:
                    self._interrupt(err, event)
                    return
                self._falling = answer
                self._jobs.abandon()  # the stricter state begins its own
                events = deque([answer])
        if setback is not None and setback.is_over(first, self._situation.under_way):
            self._setbacks.end()

    def _follow(self, event: Event) -> list[Event]:
        """Step, put the rules into force, then start the actions; return what they report."""
        if isinstance(event, Troubled):
            raise event.error
        actions: tuple[Action, ...] = ()
        if not isinstance(event, Refused) or self._close(event):
            actions = self._advance(event)
        if self._left is not None or self._setbacks.current is not None:
            self._enter()
        self._falling = None
        if Sample in map(type, actions) or (isinstance(event, Probed) and event.answered):
            self._rest.begin()  # for its own packets, no other sample is needed
        found = [report for action in actions if (report := self._start(action)) is not None]
        if self._kernel.facts != self._situation.facts and Looked not in map(type, found):
            found.append(Looked(self._kernel.facts))
        return found

    def _advance(self, event: Event) -> tuple[Action, ...]:
        """Make the state that `event` leads to ours; what it needs is not in force yet."""
        before = self._situation
        self._situation, actions = step(before, event, self._moment())
        if self._state is not before.state and self._left is None:
            self._left = before.state
        if (config := self._situation.config) is not before.config:
            self._kernel.config = config
            self._reporter.limits = self._parts.adopt(config)
        if isinstance(self._state, Stopping):
            self._publish()  # red comes first: nothing is to begin with what is about to end
        return actions

    def _enter(self) -> None:
        """Put what the state needs into force, then log that it has changed."""
        self._kernel.enter(self._state)
        before, self._left = self._left, None
        if before is not None:
            self._reporter.changed(before, self._state, self._parts.clock())

    def _start(self, action: Action) -> Event | None:
        """Do what is done at once and return its report, or start the job."""
        match action:
            case LookAround():
                self._kernel.look_around()
                return Looked(self._kernel.facts)
            case Verify():
                return self._verify()
            case Abandon():
                self._jobs.abandon()
            case Count():
                self._kernel.count_refused()
                self._reporter.counted_at = self._parts.clock()
            case LookUp() | Open():
                return self._workers.open(action)
            case ReadAgain():
                self._parts.read_again()
            case Build():
                return self._build(action)
            case _:
                self._jobs.start(*self._workers.job_of(action, self._kernel.facts))
        return None

    def _verify(self) -> Event:
        """Compare the kernel with what is wanted, and revert what is different."""
        self._kernel.put_back_drift()
        if not self._kernel.drifted:
            self._reporter.verified_at = self._parts.clock()
        return Verified(drifted=bool(self._kernel.drifted))

    def _build(self, wanted: Build) -> Event | None:
        """Make the way to the server, and start the building of the interface."""
        self._kernel.look_around()
        facts = self._kernel.facts
        if problem := obstacle(wanted.tunnel, facts):
            return Failed(problem)
        self._kernel.route_to_server(wanted.tunnel)
        self._jobs.start(Work.CONNECT, lambda: self._workers.build(wanted, facts))
        return None

    def _interrupt(self, error: Exception, event: Event) -> None:
        """Cut off all work; what `error` prevented is tried again later."""
        self._falling = None
        self._jobs.abandon()
        work = event.work if isinstance(event, Troubled) else None
        self._setbacks.add(error, self._moment(), work)
        self._situation = interrupted(self._situation)

    def _close(self, refused: Refused) -> bool:
        """Put the closed rules into force; return whether `refused` leads to another state.

        When the kernel refuses those too, the links are down, and the state is the locked one
        nevertheless. After a shortage the rules of the state that is left stay in force.
        """
        is_first = not self._refusal
        if is_first:
            self._log.error("could not apply rules; closing", problem=refused.detail)
        self._refusal = refused.detail
        try:
            self._kernel.close()
        except KERNEL as err:
            if is_first and not is_shortage(err):
                self._advance(refused)
            raise
        self._refusal = ""
        # It is the locked state already where an earlier attempt was refused.
        return is_first or not isinstance(self._state, Locked)

    async def _end_closed(self) -> None:
        """Put the closed rules into force for the end. Raises NotClosedError."""
        await end_closed(self._kernel, self._parts.clock, self._timing)
        if isinstance(self._state, Stopping) and self._left is not None:
            with suppress(*KERNEL):  # only routes: the rules are in force
                self._enter()

    def _publish(self) -> None:
        """Give the health server the status as it is now."""
        self._reporter.publish(self._situation, self._parts.clock(), self._setbacks.current)

    def _rests(self) -> bool:
        """Return whether no turn is needed, since all is as it was; set the next look then."""
        moment = self._moment()
        is_settled = self._left is None and not self._refusal and self._setbacks.current is None
        if not is_settled or not self._rest.lasts(self._situation, moment):
            return False
        self._reporter.confirm(moment.now)
        self._timer.set(moment.now + self._timing.verify_every)
        return True

    def _set_timer(self) -> None:
        moment = self._moment()
        at = wake_at(self._situation, moment)
        if (setback := self._setbacks.current) is not None and setback.retry_at > moment.now:
            at = min(moment.now + self._timing.heartbeat, setback.retry_at)
        self._timer.set(at)

    @property
    def _state(self) -> State:
        return self._situation.state

    def _moment(self) -> Moment:
        return Moment(self._parts.clock(), self._timing, random.random())  # noqa: S311 - spreads
