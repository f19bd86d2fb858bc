"""What takes time on the way to a connection: looking names up, and building the interface.

One thing at a time, each within its limit, and each can be cut off by a stop. What comes of it is
an event for the machine; an error is one of them.
"""

import asyncio
import errno
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import structlog

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Parts
from gateway.errors import FirewallError, GatewayError, KernelError, NetworkError, TunnelError
from gateway.model import INTERFACE, Candidate, Config, Tunnel
from gateway.policy.dns import resolved, resolvers_of
from gateway.policy.routing import tunnel_mtu
from gateway.policy.states import Built, Event, Failed, Resolved, Stop
from gateway.policy.timing import Timing
from gateway.policy.ways import shared_addresses, uplink_to

DYNAMIC_PORTS = range(49152, 65536)
"""Where another listen port is taken from (RFC 6335, section 6)."""

TWO_ADDRESSES = (
    "give the container's network another subnet, or take the address that your provider gave you"
)
"""What helps where an uplink has the tunnel's address: no rule could tell the two apart (P11)."""

OWN_RESOLVER = "mount a file of your own at /etc/resolv.conf, here and in the workloads"
"""What helps where the resolver file cannot be written: Docker's with a read-only root is one."""


class Connector:
    """Builds the interface for one tunnel after the other; `names_problem` is told with health."""

    def __init__(self, config: Config, parts: Parts, kernel: Enforcement, timing: Timing) -> None:
        self._timing = timing
        self._config = config
        self._parts = parts
        self._kernel = kernel
        self._log = structlog.get_logger()
        self._work: asyncio.Future[Event] | None = None
        self._standing: Tunnel | None = None
        self.built_at = 0.0
        self.names_problem = ""
        self._names_tried_at = 0.0
        self._names: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """Cut off what is under way, if anything; to be called on the loop."""
        if self._work is not None:
            self._work.cancel()

    async def look_up(self, candidate: Candidate) -> Event:
        """Have the names of the candidate's endpoints looked up; their hole is open."""
        return await self._within_limit(self._look_up(candidate))

    async def build(self, tunnel: Tunnel) -> Event:
        """Make the interface for `tunnel`. Raises FirewallError."""
        return await self._within_limit(self._build(tunnel))

    async def _within_limit(self, work: Coroutine[Any, Any, Event]) -> Event:
        self._work = asyncio.ensure_future(work)
        try:
            async with asyncio.timeout(self._timing.work_limit):
                return await self._work
        except TimeoutError:
            return Failed(f"not done after {self._timing.work_limit:g} s")
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

    async def _look_up(self, candidate: Candidate) -> Event:
        answers = await self._parts.resolver.ask(candidate.names)
        tunnels = resolved(candidate, answers, self._kernel.facts)
        return Resolved(tunnels) if tunnels else Failed("no address that an uplink has a route to")

    async def _build(self, tunnel: Tunnel) -> Event:
        """Make the interface for `tunnel`, or only replace its peers where that is enough."""
        self._kernel.look_around()
        for endpoint in tunnel.endpoints:
            if uplink_to(endpoint.address, self._kernel.facts) is None:
                raise NetworkError("no uplink has a route to the endpoint", str(endpoint))
        if shared := shared_addresses(tunnel, self._kernel.facts):
            raise NetworkError(f"the tunnel's address is an uplink's too; {TWO_ADDRESSES}", shared)
        self._kernel.route_to_server(tunnel)
        if not await self._took_other_peers(tunnel):
            self._standing = None
            await self._parts.tunnel.up(tunnel, tunnel_mtu(tunnel, self._kernel.facts))
        self._standing = tunnel
        await self._write_resolver(tunnel)
        self.built_at = self._parts.clock()
        return Built()

    async def _took_other_peers(self, tunnel: Tunnel) -> bool:
        """Give the standing interface the peers of `tunnel`, if nothing else tells them apart."""
        former = self._standing
        if former is None or replace(former, peers=()) != replace(tunnel, peers=()):
            return False
        if self._parts.network.fault_of(INTERFACE, tunnel.addresses):
            return False
        try:
            await self._parts.tunnel.configure(tunnel)
        except TunnelError:
            return False
        return True

    def keep_names(self, tunnel: Tunnel) -> None:
        """Try the resolver file again when it is time, as long as names do not resolve.

        Does not wait for it; to be called on the loop, now and then, while connected.
        """
        if self._names is not None and self._names.done():
            self._names.result()  # raises what nobody else would hear of
        is_due = self._parts.clock() >= self._names_tried_at + self._timing.names_again
        if self.names_problem and is_due and (self._names is None or self._names.done()):
            self._names = asyncio.ensure_future(self._write_resolver(tunnel))

    async def _write_resolver(self, tunnel: Tunnel) -> None:
        """Write the resolver file; without it names do not resolve, but nothing leaks."""
        self._names_tried_at = self._parts.clock()
        try:
            await self._parts.write_resolver(resolvers_of(tunnel, self._config))
        except (KernelError, OSError) as err:
            if not self.names_problem:
                self._log.warning("names will not resolve", problem=str(err), remedy=OWN_RESOLVER)
            self.names_problem = f"names do not resolve: {err}; {OWN_RESOLVER}"
        else:
            if self.names_problem:
                self._log.info("names resolve again")
            self.names_problem = ""
