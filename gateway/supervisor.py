"""The one loop: wait for an event, ask the machine what it means, enforce that, tell it."""

import asyncio
import errno
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from gateway.enforcement import Enforcement, Guard, Network
from gateway.errors import FirewallError, GatewayError, KernelError, NetworkError, TunnelError
from gateway.firewall import Firewall
from gateway.model import INTERFACE, Address, Config, Status, Tunnel
from gateway.policy.dns import resolv_conf, resolved, resolvers_of
from gateway.policy.machine import step
from gateway.policy.probing import Probe, probe_for
from gateway.policy.routing import (
    fitted,
    routing_for,
    tunnel_mtu,
    uplink_to,
    without_interface,
)
from gateway.policy.states import (
    Asking,
    Begin,
    Built,
    Connected,
    Connecting,
    Event,
    Failed,
    Locked,
    Lost,
    Probed,
    Query,
    Refused,
    Resolved,
    Resolving,
    Sampled,
    State,
    Stop,
    Stopping,
)
from gateway.policy.telling import detail, name, reason, status_of
from gateway.tunnel import TunnelBackend

OWN_RESOLVER = "mount a file of your own at /etc/resolv.conf, here and in the workloads"
"""What helps where the resolver file cannot be written: Docker's with a read-only root is one."""

HEARTBEAT = 1.0
"""Seconds that the loop waits at most: how often a connected tunnel is looked at, and told of."""

EAGER = 0.02
EAGER_FOR = 2.0
"""Seconds between two looks at a tunnel that was just built, and for how long."""

VERIFY_EVERY = 3.0
"""Seconds between two comparisons of the kernel's rules and routes with those wanted."""

PROBE_EVERY = 20.0
"""Seconds between two probes inside the tunnel."""

SETTLE = 0.02
"""Seconds that kernel events get to come together before the namespace is looked at again."""

BUILD_TIME = 10.0
"""Seconds that building the interface may take before it counts as failed."""

DYNAMIC_PORTS = range(49152, 65536)
"""Where another listen port is taken from (RFC 6335, section 6)."""


class Resolver(Protocol):
    """Asks for the addresses of endpoints, from a socket of its own."""

    def open(self) -> Query:
        """Make the socket, and say what tells its packets from others. Raises GatewayError."""

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        """Return the addresses of `names`, the last known ones where nobody answers.

        Closes the socket. Raises GatewayError for a name that never had an answer.
        """


class Hooks(Protocol):
    """The user's commands."""

    def up(self) -> None:
        """Start the command for a tunnel that carries traffic."""

    def down(self) -> None:
        """Start the command for one that no longer does."""


@dataclass(frozen=True)
class Parts:
    """The kernel edge, as the composition root put it together."""

    firewall: Firewall
    guard: Guard | None
    tunnel: TunnelBackend
    network: Network
    resolver: Resolver
    hooks: Hooks
    probe: Callable[[Probe], Coroutine[Any, Any, bool]]
    write_resolver: Callable[[str], None]
    forget_flows: Callable[[], None]
    publish: Callable[[Status], None]
    clock: Callable[[], float]
    limits: tuple[str, ...] = ()
    found_resolvers: tuple[Address, ...] = ()


class Supervisor:
    """Keeps the namespace in the state that the machine says, until it is told to stop."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._log = structlog.get_logger()
        self._kernel = Enforcement(config, parts.firewall, parts.guard, parts.network)
        self._events: asyncio.Queue[Stop | Probed | None] = asyncio.Queue()
        self._work: asyncio.Future[Event] | None = None
        self._probing: asyncio.Future[None] | None = None
        self._state: State = Locked(since=parts.clock())
        self._standing: Tunnel | None = None
        self._built_at = 0.0
        self._verify_at = 0.0
        self._probe_at = 0.0
        self._names_problem = ""
        self._reconnects: dict[str, int] = {}
        self._switches = 0

    def stop(self) -> None:
        """Ask the loop to end; to be called on the loop."""
        self._events.put_nowait(Stop())
        if self._work is not None:
            self._work.cancel()

    def kernel_changed(self) -> None:
        """Say that links, addresses, routes or rules may have changed; to be called on the loop."""
        self._events.put_nowait(None)

    async def run(self) -> None:
        """Connect, stay connected, and return once stopped and closed.

        Raises FirewallError when not even the closed ruleset could be put into force; every link
        but loopback is down then.
        """
        while not isinstance(self._state, Stopping):
            self._publish()
            try:
                self._meet(await self._next_event())
                self._keep()
            except FirewallError as err:
                self._close(err)
            except KernelError as err:
                self._close_for(Lost(str(err)))
        self._publish()
        await self._clear_away()

    # What happens next

    async def _next_event(self) -> Event | None:
        """Wait for what happens next; None when time has passed and nothing else."""
        state, now = self._state, self._now()
        match state:
            case Locked() if now >= state.retry_at:
                self._kernel.look_around()
                return Begin(tuple(fitted(t, self._kernel.facts) for t in self._config.tunnels))
            case Resolving() if now >= state.retry_at:
                return await self._look_up(state)
            case Connecting() if not state.built and now >= state.retry_at:
                return await self._interruptible(self._build(state.tunnel))
            case Connecting() if state.built and now - self._built_at < EAGER_FOR:
                pause = EAGER
            case _:
                pause = HEARTBEAT
        try:
            async with asyncio.timeout(pause):
                event = await self._events.get()
        except TimeoutError:
            return await self._sample()
        if event is None:
            await self._settle()
            self._kernel.look_around()
            return await self._sample()
        return event

    async def _settle(self) -> None:
        """Wait until kernel events have come together, and take those that say the same."""
        await asyncio.sleep(SETTLE)
        waiting = [self._events.get_nowait() for _ in range(self._events.qsize())]
        for event in waiting:
            if event is not None:
                self._events.put_nowait(event)

    async def _sample(self) -> Event | None:
        """Ask WireGuard what it knows, where there should be an interface."""
        if not _stands(self._state):
            return None
        try:
            status = await self._parts.tunnel.status()
        except TunnelError as err:
            return Lost(str(err))
        if not self._parts.network.is_up(INTERFACE):
            return Lost(f"{INTERFACE} was set down")
        return Sampled(status)

    async def _interruptible(self, work: Coroutine[Any, Any, Event]) -> Event:
        """Do `work` within its time; a `stop` meanwhile is answered at once."""
        self._work = asyncio.ensure_future(work)
        try:
            async with asyncio.timeout(BUILD_TIME):
                return await self._work
        except TimeoutError:
            return Failed(f"not done after {BUILD_TIME:g} s")
        except asyncio.CancelledError:
            return Stop()
        except FirewallError:
            raise
        except GatewayError as err:
            taken = isinstance(err, TunnelError) and err.errno == errno.EADDRINUSE
            # Which port it is matters to nobody but the rules, and those follow.
            return Failed(str(err), random.choice(DYNAMIC_PORTS) if taken else None)  # noqa: S311
        finally:
            self._work = None

    async def _look_up(self, state: Resolving) -> Event:
        """Have the names of the candidate's endpoints looked up, through a hole of their own."""
        try:
            query = self._parts.resolver.open()
        except GatewayError as err:
            return Failed(str(err))
        self._meet(Asking(query))
        return await self._interruptible(self._ask(state.turn.candidate))

    async def _ask(self, candidate: Tunnel) -> Event:
        answers = await self._parts.resolver.ask(candidate.names)
        tunnels = resolved(candidate, answers, self._kernel.facts)
        return Resolved(tunnels) if tunnels else Failed("no address that an uplink has a route to")

    async def _build(self, tunnel: Tunnel) -> Event:
        """Make the interface for `tunnel`, or only replace its peers where that is enough."""
        self._kernel.look_around()
        for endpoint in tunnel.endpoints:
            if uplink_to(endpoint.address, self._kernel.facts) is None:
                raise NetworkError("no uplink has a route to the endpoint", str(endpoint))
        routing = routing_for(tunnel, self._config, self._kernel.facts)
        self._kernel.route(without_interface(routing))
        if not await self._took_other_peers(tunnel):
            self._standing = None
            await self._parts.tunnel.up(tunnel, tunnel_mtu(tunnel, self._kernel.facts))
        self._standing = tunnel
        self._write_resolver(tunnel)
        self._built_at = self._now()
        return Built()

    async def _took_other_peers(self, tunnel: Tunnel) -> bool:
        """Give the standing interface the peers of `tunnel`, if nothing else tells them apart."""
        former = self._standing
        if former is None or replace(former, peers=()) != replace(tunnel, peers=()):
            return False
        if not self._parts.network.is_up(INTERFACE):
            return False
        try:
            await self._parts.tunnel.configure(tunnel)
        except TunnelError:
            return False
        return True

    # What it means

    def _meet(self, event: Event | None) -> None:
        """Let the machine say what `event` leads to, and make that the state."""
        if event is None:
            return
        before = self._state
        after = step(before, event, self._now(), random.random())  # noqa: S311 - spreads attempts
        self._state = after
        self._kernel.enter(after)
        if name(before) != name(after) or reason(before) != reason(after):
            self._tell(before, after)

    def _close(self, refusal: FirewallError) -> None:
        """Close because the rules of the state were refused."""
        self._log.error("rules refused, closing", problem=str(refusal))
        self._kernel.close()
        self._close_for(Refused(str(refusal)))

    def _close_for(self, event: Event) -> None:
        """Enter the stricter state that follows from a failure, and survive another one."""
        try:
            self._meet(event)
        except FirewallError as err:
            self._log.error("rules refused, closing", problem=str(err))
            self._kernel.close()
        except KernelError as err:
            self._log.warning("not everything is in step", problem=str(err))

    def _keep(self) -> None:
        """Do what is due now and then: compare with the kernel, probe the tunnel."""
        now = self._now()
        if now >= self._verify_at:
            self._verify_at = now + VERIFY_EVERY
            self._kernel.put_back_drift()
        if isinstance(self._state, Connected) and now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY
            probe = probe_for(self._state.tunnel, self._config)
            if probe is not None and (self._probing is None or self._probing.done()):
                self._probing = asyncio.ensure_future(self._probe(probe))

    async def _probe(self, probe: Probe) -> None:
        answered = await self._parts.probe(probe)
        if probe.is_question:
            self._events.put_nowait(Probed(answered))

    def _write_resolver(self, tunnel: Tunnel) -> None:
        """Write the resolver file; without it names do not resolve, but nothing leaks."""
        text = resolv_conf(resolvers_of(tunnel, self._config), self._parts.found_resolvers)
        try:
            self._parts.write_resolver(text)
        except KernelError as err:
            if not self._names_problem:
                self._log.warning("names will not resolve", problem=str(err), remedy=OWN_RESOLVER)
            self._names_problem = f"names do not resolve: {err}"
        else:
            self._names_problem = ""

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
            reason=reason(after),
            detail=detail(after),
            after=round(self._now() - before.since, 3),
        )
        if isinstance(after, Connected) and not isinstance(before, Connected):
            self._probe_at = self._now() + PROBE_EVERY
            self._parts.hooks.up()
        if isinstance(before, Connected) and not isinstance(after, Connected):
            self._reconnects[reason(after)] = self._reconnects.get(reason(after), 0) + 1
            self._parts.hooks.down()
            if isinstance(after, Connecting | Resolving) and after.turn.position != (
                before.turn.position
            ):
                self._switches += 1

    def _publish(self) -> None:
        """Tell the health server how things are."""
        parts = self._parts
        parts.publish(
            replace(
                status_of(self._state, self._now()),
                firewall=parts.firewall.name,
                tunnel=parts.tunnel.name,
                drift=self._kernel.drift,
                reconnects=tuple(self._reconnects.items()),
                switches=self._switches,
                limits=(*parts.limits, *filter(None, [self._names_problem])),
            )
        )

    def _now(self) -> float:
        return self._parts.clock()


def _stands(state: State) -> bool:
    """Say whether there should be an interface in `state`."""
    return isinstance(state, Connected) or (isinstance(state, Connecting) and state.built)
