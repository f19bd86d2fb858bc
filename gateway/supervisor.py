"""The one loop: wait for an event, ask the machine what it means, apply that, tell it.

A new state is applied firewall first. When its rules cannot be put into force, the closed ones are
tried in their place; when not even that is possible, the uplinks go down and the process ends.
Nothing here accepts, restores or flushes on the way out of an error.
"""

import asyncio
import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from gateway.errors import FirewallError, GatewayError, KernelError, NetworkError, TunnelError
from gateway.firewall import Firewall
from gateway.model import INTERFACE, Config, Facts, Status, Tunnel
from gateway.policy.dns import resolv_conf
from gateway.policy.firewall import closed, ruleset_for
from gateway.policy.machine import (
    Begin,
    Built,
    Connected,
    Connecting,
    Event,
    Failed,
    Locked,
    Lost,
    Refused,
    Sampled,
    State,
    Stop,
    Stopping,
    step,
)
from gateway.policy.routing import (
    LOCKED,
    Routing,
    fitted,
    routing_for,
    tunnel_mtu,
    uplink_to,
    without_interface,
)
from gateway.policy.rules import Ruleset
from gateway.policy.telling import detail, name, reason, status_of
from gateway.tunnel import TunnelBackend

HEARTBEAT = 1.0
"""Seconds that the loop waits at most: how often a connected tunnel is looked at, and told of."""

EAGER = 0.02
EAGER_FOR = 2.0
"""Seconds between two looks at a tunnel that was just built, and for how long."""

VERIFY_EVERY = 3.0
"""Seconds between two comparisons of the kernel's rules and routes with those wanted."""

SETTLE = 0.02
"""Seconds that kernel events get to come together before the namespace is looked at again."""

BUILD_TIME = 10.0
"""Seconds that building the interface may take before it counts as failed."""

DYNAMIC_PORTS = range(49152, 65536)
"""Where another listen port is taken from (RFC 6335, section 6)."""


class Network(Protocol):
    """What the supervisor needs of the namespace's links and routes."""

    def facts(self) -> Facts:
        """Return what the namespace looks like now."""

    def is_up(self, name: str) -> bool:
        """Say whether there is a link `name` and it is set up."""

    def prepare(self, uplink: str) -> None:
        """Give `uplink` the per-device settings that the promises need."""

    def apply_routing(self, wanted: Routing) -> None:
        """Make the gateway's tables and policy rules hold exactly `wanted`."""

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Return what the kernel has otherwise than `wanted`."""

    def shut(self) -> None:
        """Set every link but loopback down."""


class Guard(Protocol):
    """The egress guard, kept in step with the rules."""

    def apply(self, ruleset: Ruleset, facts: Facts) -> None:
        """Let nothing leave by the uplinks of `facts` but what `ruleset` accepted."""

    def verify(self, ruleset: Ruleset, facts: Facts) -> tuple[str, ...]:
        """Return what the kernel has otherwise."""


@dataclass(frozen=True)
class Parts:
    """The kernel edge, as the composition root put it together."""

    firewall: Firewall
    guard: Guard | None
    tunnel: TunnelBackend
    network: Network
    write_resolver: Callable[[str], None]
    forget_flows: Callable[[], None]
    publish: Callable[[Status], None]
    clock: Callable[[], float]
    limits: tuple[str, ...] = ()


class Supervisor:
    """Keeps the namespace in the state that the machine says, until it is told to stop."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._log = structlog.get_logger()
        self._events: asyncio.Queue[Stop | None] = asyncio.Queue()
        self._building: asyncio.Future[None] | None = None
        self._state: State = Locked(since=parts.clock())
        self._facts = Facts()
        self._rules = closed()
        self._routing = LOCKED
        self._verify_at = 0.0
        self._built_at = 0.0
        self._drift = 0
        self._no_resolver = ""

    def stop(self) -> None:
        """Ask the loop to end; to be called on the loop."""
        self._events.put_nowait(Stop())
        if self._building is not None:
            self._building.cancel()

    def kernel_changed(self) -> None:
        """Say that links, addresses, routes or rules may have changed; to be called on the loop."""
        self._events.put_nowait(None)

    async def run(self) -> None:
        """Connect, stay connected, and return once stopped and closed.

        Raises KernelError when not even the closed ruleset could be put into force; every link but
        loopback is down then.
        """
        while not isinstance(self._state, Stopping):
            self._publish()
            try:
                event = await self._next_event()
                self._enter(step(self._state, event, self._now()) if event else self._state)
                self._put_back_drift()
            except FirewallError as err:
                self._close(err)
            except KernelError as err:
                self._enter(step(self._state, Lost(str(err)), self._now()))
        self._publish()
        await self._clear_away()

    async def _next_event(self) -> Event | None:
        """Wait for what happens next; None when time has passed and nothing else."""
        state, now = self._state, self._now()
        match state:
            case Locked() if now >= state.retry_at:
                self._look_around()
                return Begin(fitted(self._config.tunnels[0], self._facts))
            case Connecting() if not state.built and now >= state.retry_at:
                return await self._build(state.tunnel)
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
            self._look_around()
            return await self._sample()
        return event

    async def _settle(self) -> None:
        """Wait until kernel events have come together, and take those that say the same."""
        await asyncio.sleep(SETTLE)
        waiting = [self._events.get_nowait() for _ in range(self._events.qsize())]
        for event in filter(None, waiting):
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

    async def _build(self, tunnel: Tunnel) -> Event:
        """Build the interface for `tunnel`; a `stop` meanwhile is answered at once."""
        self._building = asyncio.ensure_future(self._build_interface(tunnel))
        try:
            async with asyncio.timeout(BUILD_TIME):
                await self._building
        except asyncio.CancelledError:
            return Stop()
        except TimeoutError:
            return Failed(f"not done after {BUILD_TIME:g} s", tunnel)
        except FirewallError:
            raise
        except GatewayError as err:
            taken = isinstance(err, TunnelError) and err.errno == errno.EADDRINUSE
            # What the port is matters to nobody but the rules, and those follow.
            port = random.choice(DYNAMIC_PORTS) if taken else tunnel.listen_port  # noqa: S311
            return Failed(str(err), replace(tunnel, listen_port=port))
        finally:
            self._building = None
        self._built_at = self._now()
        return Built()

    async def _build_interface(self, tunnel: Tunnel) -> None:
        self._look_around()
        for endpoint in tunnel.endpoints:
            if uplink_to(endpoint.address, self._facts) is None:
                raise NetworkError("no uplink has a route to the endpoint", str(endpoint))
        routing = routing_for(tunnel, self._config, self._facts)
        self._route(without_interface(routing))
        await self._parts.tunnel.up(tunnel, tunnel_mtu(tunnel, self._facts))
        self._route(routing)
        self._write_resolver()

    def _write_resolver(self) -> None:
        """Write the resolver file; without it names do not resolve, but nothing leaks."""
        try:
            self._parts.write_resolver(resolv_conf(self._config.dns))
        except KernelError as err:
            if not self._no_resolver:
                self._log.warning("names will not resolve", problem=str(err))
            self._no_resolver = f"names do not resolve: {err}"
        else:
            self._no_resolver = ""

    def _look_around(self) -> None:
        """Find out what the namespace looks like, and bring rules and routes into step."""
        facts = self._parts.network.facts()
        if facts == self._facts:
            return
        known = {uplink.name for uplink in self._facts.uplinks}
        self._facts = facts
        self._log.debug("namespace changed", uplinks=[uplink.name for uplink in facts.uplinks])
        self._put_in_force(force=True)
        for uplink in facts.uplinks:
            if uplink.name not in known:
                self._parts.network.prepare(uplink.name)
        if self._routing is not LOCKED and isinstance(self._state, Connecting | Connected):
            self._route(routing_for(self._state.tunnel, self._config, facts))

    def _enter(self, state: State) -> None:
        """Make `state` the state: its rules first, then the word about it."""
        before, self._state = self._state, state
        self._put_in_force()
        if not _stands(state) and self._routing is not LOCKED:
            self._route(LOCKED)
        if name(before) == name(state) and reason(before) == reason(state):
            return
        self._log.info(
            "state changed",
            old=name(before),
            new=name(state),
            reason=reason(state),
            detail=detail(state),
            after=round(self._now() - before.since, 3),
        )

    def _put_in_force(self, *, force: bool = False) -> None:
        """Put the rules of the state into force, where they are not already."""
        rules = ruleset_for(self._state, self._config, self._facts)
        if rules != self._rules:
            self._parts.firewall.apply(rules)
        if self._parts.guard and (force or rules != self._rules):
            self._parts.guard.apply(rules, self._facts)
        self._rules = rules

    def _close(self, refusal: FirewallError) -> None:
        """Put the closed ruleset into force because the one of the state was refused."""
        self._log.error("rules refused, closing", problem=str(refusal))
        try:
            self._parts.firewall.apply(closed())
            if self._parts.guard:
                self._parts.guard.apply(closed(), self._facts)
        except FirewallError:
            self._parts.network.shut()
            raise
        self._rules = closed()
        self._enter(step(self._state, Refused(str(refusal)), self._now()))

    def _route(self, routing: Routing) -> None:
        self._parts.network.apply_routing(routing)
        self._routing = routing

    def _put_back_drift(self) -> None:
        """Compare the kernel with what was put there, now and then, and put back what is not."""
        if self._now() < self._verify_at:
            return
        self._verify_at = self._now() + VERIFY_EVERY
        parts = self._parts
        found = parts.firewall.verify(self._rules)
        if found:
            parts.firewall.apply(self._rules)
        guarded = parts.guard.verify(self._rules, self._facts) if parts.guard else ()
        if parts.guard and guarded:
            parts.guard.apply(self._rules, self._facts)
        routed = parts.network.routing_drift(self._routing)
        if routed:
            parts.network.apply_routing(self._routing)
        drift = (*found, *guarded, *routed)
        self._drift += len(drift)
        if drift:
            self._log.warning("put back what somebody else changed", drift=list(drift))

    async def _clear_away(self) -> None:
        """Remove the interface and its key; the closed rules stay, whatever happens here."""
        try:
            await self._parts.tunnel.down()
            self._route(LOCKED)
            self._parts.forget_flows()
        except GatewayError as err:
            self._log.error("not everything was cleared away", problem=str(err))

    def _publish(self) -> None:
        """Tell the health server how things are."""
        parts, now = self._parts, self._now()
        status = status_of(self._state, now)
        limits = (*parts.limits, *filter(None, [self._no_resolver]))
        parts.publish(
            replace(
                status,
                firewall=parts.firewall.name,
                tunnel=parts.tunnel.name,
                drift=self._drift,
                limits=limits,
            )
        )

    def _now(self) -> float:
        return self._parts.clock()


def _stands(state: State) -> bool:
    """Say whether there should be an interface in `state`."""
    return isinstance(state, Connected) or (isinstance(state, Connecting) and state.built)
