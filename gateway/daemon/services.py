"""The optional services of one run, such as proxies: made of the configuration at the start.

Each runs apart from the loop that decides. It learns of the connection, reports what people want to
know, and asks for something by an event at most. One that is not wanted is not imported.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, runtime_checkable

import structlog

from gateway.model import Config
from gateway.model.frozen import frozen
from gateway.model.lease import Connection
from gateway.policy.events import Leased
from gateway.policy.history import History
from gateway.policy.limits import Limit
from gateway.policy.orders import Ordered
from gateway.policy.public_address import PublicAddress
from gateway.policy.report import Status
from gateway.policy.reports import ServiceReport
from gateway.system.netns import Netns


class Service(Protocol):
    """A service that runs as long as the gateway."""

    @property
    def name(self) -> str:
        """Its name in reports and metrics."""

    def report(self) -> ServiceReport:
        """Return what is known of it, from any thread."""

    async def run(self) -> None:
        """Run until cancelled. What it raises ends the gateway, so it expects what may happen."""

    def follow(self, connection: Connection | None) -> None:
        """Take the connection that carries traffic now, None without one; does not wait."""

    def adopt(self, config: Config) -> None:
        """Follow a configuration that was read again; does not wait."""


@frozen
class Tools:
    """What services get: the environment, namespaces, a clock, and what they may ask for.

    `netns` is the namespace of the tunnel and the workloads, `uplinks` that of the uplinks. `lease`
    opens the ports of leases, `order` asks the loop for something (`gateway.policy.orders`), and
    `reload` has the configuration read again. `status` returns what was published last, and
    `history` what was before. They are called on the loop. `limits` are those of this machine.
    `redirects` says whether forwarded ports can be redirected.
    """

    environ: Mapping[str, str]
    netns: Netns
    uplinks: Netns
    clock: Callable[[], float]
    lease: Callable[[Leased], None]
    order: Callable[[Ordered], None]
    reload: Callable[[], None]
    status: Callable[[], Status]
    limits: tuple[Limit, ...] = ()
    history: Callable[[], History] = History
    redirects: bool = False


LEAVE_TIME = 0.6
"""Seconds for which a stop waits until services have taken leave of their servers."""


@runtime_checkable
class Leaving(Protocol):
    """A service that has something to say to its server before the tunnel is closed."""

    async def take_leave(self) -> None:
        """Say it. What it raises is only logged."""


class Services:
    """Those that are wanted; `public_ip` returns what one of them knows of the public address."""

    def __init__(
        self,
        wanted: tuple[Service, ...] = (),
        public_ip: Callable[[], PublicAddress | None] = lambda: None,
    ) -> None:
        self._wanted = wanted
        self.public_ip = public_ip
        self._leaving: asyncio.Future[None] | None = None

    def reports(self) -> tuple[ServiceReport, ...]:
        """Return what is known of each, from any thread."""
        return tuple(it.report() for it in self._wanted)

    def producers(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what runs as long as the gateway, by name."""
        return {it.name: it.run() for it in self._wanted}

    def follow(self, connection: Connection | None) -> None:
        """Give each the connection that carries traffic now, None without one."""
        for it in self._wanted:
            it.follow(connection)

    def leave(self, then: Callable[[], None]) -> None:
        """Have those that want to take leave do so, and call `then` after that, or soon anyway.

        To be called on the loop. A second call does not wait.
        """
        leaving = [it.take_leave() for it in self._wanted if isinstance(it, Leaving)]
        if not leaving or self._leaving:
            for it in leaving:
                it.close()
            then()
            return
        self._leaving = asyncio.ensure_future(_left(leaving, then))

    def adopt(self, config: Config) -> None:
        """Give each a configuration that was read again."""
        for it in self._wanted:
            it.adopt(config)


async def _left(leaving: list[Coroutine[Any, Any, None]], then: Callable[[], None]) -> None:
    try:
        async with asyncio.timeout(LEAVE_TIME):
            done = await asyncio.gather(*leaving, return_exceptions=True)
        for error in filter(None, done):
            structlog.get_logger().warning("service could not take leave", problem=str(error))
    except TimeoutError:
        pass
    finally:
        then()


def services_of(config: Config, tools: Tools) -> Services:
    """Return the services that `config` wants."""
    wanted: list[Service] = []
    if config.forwarding:
        from gateway.daemon import forwarding  # noqa: PLC0415 - few want it

        wanted.append(forwarding.service_of(config, tools))
    known: list[Callable[[], PublicAddress | None]] = []
    if config.public_ip:
        from gateway.daemon.public_addresses import through_tunnel  # noqa: PLC0415 - few want it

        addresses = through_tunnel(config.public_ip, tools.environ, tools.netns, tools.clock)
        wanted.append(addresses)
        known.append(addresses.latest)
    if config.http_proxy is not None or config.socks_proxy is not None:
        from gateway.daemon.proxying import proxies  # noqa: PLC0415 - many have none

        wanted += proxies(config, tools.netns, tools.limits, tools.clock)
    if config.port_client:
        from gateway.services.port_client.service import PortPassing  # noqa: PLC0415 - few want it

        wanted.append(PortPassing(config.port_client, tools.netns, tools.clock))
    if config.control_server and config.control:
        from gateway.daemon import controlling  # noqa: PLC0415 - many have none

        given = controlling.Tools(
            tools.status, tools.history, tools.clock, tools.order, tools.reload
        )
        wanted.append(controlling.control_server(config.control_server, config.control, given))
    return Services(tuple(wanted), *known)
