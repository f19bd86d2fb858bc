"""Looks up the public address after each connect, through the tunnel, where that is wanted.

Apart from the loop: nothing waits for it, and nothing depends on it. The names of the services are
looked up by the workloads' resolver, and the connections are bound to the tunnel's interface. What
is known of an address is forgotten with its connection.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog

from gateway.daemon.refreshing import AnyResolver, at_any_address
from gateway.errors import GatewayError
from gateway.model import INTERFACE, Address, Config, Errand, Tunnel
from gateway.model.lease import Connection
from gateway.model.public_ip import FILE, AddressApi, PublicIp
from gateway.policy.public_address import PublicAddress, place_of
from gateway.policy.reports import ServiceReport
from gateway.policy.states import Transfer
from gateway.policy.upstreams import resolvers_for
from gateway.services.fetching.lists import STORE_TIME, AnswerError
from gateway.services.fetching.public_address import AddressFetcher
from gateway.services.ports.file import write_small
from gateway.system.aside import Aside
from gateway.system.lookup import EndpointLookup
from gateway.system.netns import Netns

TIME_LIMIT = 30.0
"""Seconds for one service: the tunnel may be slow."""
LEAST_PAUSE = 5.0
"""Seconds from one look-up to the next, however often the tunnel is lost."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds until the next attempt after one that failed; each time twice as long."""

WRITES, WRITE_PAUSE = 10, 0.5
"""How often the file is tried while an earlier write has not ended, and the seconds in between."""

LAST_WRITE = 1.0
"""Seconds that the end of the gateway waits until the file is empty."""

REMEDY = "name another service in PUBLICIP_API, or set PUBLICIP_ENABLED=off"
FILE_REMEDY = "set PUBLICIP_FILE to a file that the gateway can write"


class Hosts(Protocol):
    """Asks one service at a time."""

    def open(self, errand: Errand, server: Address) -> Transfer:
        """Make the socket. Raises GatewayError."""

    async def ask(self, api: AddressApi) -> PublicAddress:
        """Ask the service through it. Raises GatewayError and OSError."""


class PublicAddresses:
    """The address of the present connection, once a service has said it."""

    name = "address look-up"

    def __init__(
        self, wanted: PublicIp, resolver: AnyResolver, hosts: Hosts, clock: Callable[[], float]
    ) -> None:
        """Ask `hosts`, whose names `resolver` looks up, when `wanted`."""
        self._wanted = wanted
        self._resolver = resolver
        self._hosts = hosts
        self._clock = clock
        self._config: Config | None = None
        self._tunnel: Tunnel | None = None
        self._changed = asyncio.Event()
        self._due_at = float("-inf")
        self._failures = 0
        self._requests = 0
        self._problem = ""
        self._unwritten = ""
        self._files = Aside("the file of the public address")
        self._log = structlog.get_logger()
        self.found: PublicAddress | None = None

    def report(self) -> ServiceReport:
        """Return what is known of it, from any thread."""
        found, problem, remedy = self.found, self._problem, REMEDY if self._problem else ""
        if not problem and self._unwritten and self._is_file_chosen:
            problem = f"the address cannot be written to {self._wanted.file} ({self._unwritten})"
            remedy = FILE_REMEDY
        said = "it is known" if found else ""
        return ServiceReport(self.name, not problem, problem, remedy, self._requests, said)

    def latest(self) -> PublicAddress | None:
        """Return the address of the present connection, from any thread; None if not known."""
        return self.found

    @property
    def _is_file_chosen(self) -> bool:
        return self._wanted.file != FILE

    def adopt(self, config: Config) -> None:
        """Follow a configuration that was read again: its resolvers are asked from now on."""
        self._config = config

    def follow(self, connection: Connection | None) -> None:
        """Look the address of another connection up, and forget the last one."""
        tunnel = connection.tunnel if connection else None
        if tunnel != self._tunnel:
            self._tunnel, self.found, self._problem = tunnel, None, ""
            self._changed.set()

    async def run(self) -> None:
        """Look the address of each connection up, until cancelled."""
        try:
            await self._write("")
            await self._follow_all()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITE):
                    await self._write("")

    async def _follow_all(self) -> None:
        while True:
            self._changed.clear()
            followed = asyncio.create_task(self._follow(self._tunnel))
            changed = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({followed, changed}, return_when=asyncio.FIRST_COMPLETED)
                if followed.done():
                    followed.result()
                    await changed
            finally:
                await _ended(followed, changed)

    async def _follow(self, tunnel: Tunnel | None) -> None:
        """Look the address of `tunnel` up until it is known; without one, there is none."""
        if tunnel is None:
            await self._write("")
            return
        while self.found is None:
            wait = self._due_at - self._clock()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            await self._attempt(tunnel)

    async def _attempt(self, tunnel: Tunnel) -> None:
        """Ask one service after the other, until one says the address."""
        self._due_at = self._clock() + LEAST_PAUSE
        problems: list[str] = []
        for api in self._wanted.apis:
            try:
                async with asyncio.timeout(TIME_LIMIT):
                    found = await self._asked(api, tunnel)
            except TimeoutError:
                problems.append(f"{api.host}: not done after {TIME_LIMIT:g} s")
            except (GatewayError, OSError, MemoryError) as err:
                said = (str(err) or type(err).__name__).removesuffix(f": {api.host}")
                problems.append(f"{api.host}: {said}")
            else:
                self.found, self._problem, self._failures = found, "", 0
                self._log.info("public address", address=found.address, place=place_of(found))
                await self._write(found.address)
                return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._problem, self._failures = "; ".join(problems), self._failures + 1
        self._due_at = self._clock() + pause
        self._log.warning("could not look up public address", problem=self._problem, again_in=pause)

    async def _asked(self, api: AddressApi, tunnel: Tunnel) -> PublicAddress:
        config = self._config
        self._resolver.resolver = next(iter(resolvers_for(tunnel, config) if config else ()), None)

        async def at(address: Address) -> PublicAddress:
            self._hosts.open(api, address)
            self._requests += 1
            return await self._hosts.ask(api)

        return await at_any_address(api, self._resolver, at, final=AnswerError)

    async def _write(self, address: str) -> None:
        """Put `address` into the file.

        What is wrong with that is a problem only where the file is one that the user has chosen.
        """
        path, content = self._wanted.file, f"{address}\n".encode() if address else b""
        said = ""
        for _ in range(WRITES):
            try:
                await self._files.run(lambda: write_small(path, content), STORE_TIME)
            except (GatewayError, OSError) as err:
                number = getattr(err, "errno", None)
                said = os.strerror(number) if number else str(err)
                if number != errno.EBUSY:
                    break
                await asyncio.sleep(WRITE_PAUSE)
            else:
                said = ""
                break
        before, self._unwritten = self._unwritten, said
        if said and said != before:
            weight = logging.WARNING if self._is_file_chosen else logging.INFO
            self._log.log(weight, "could not write public address", problem=said, file=path)


async def _ended(*tasks: "asyncio.Task[object]") -> None:
    """Cancel `tasks`, and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def through_tunnel(
    wanted: PublicIp, environ: Mapping[str, str], netns: Netns, clock: Callable[[], float]
) -> PublicAddresses:
    """Return the service that looks the address up out of `netns`, which has the tunnel."""
    hosts = AddressFetcher(environ, netns, device=INTERFACE)
    return PublicAddresses(wanted, EndpointLookup(None, netns), hosts, clock)
