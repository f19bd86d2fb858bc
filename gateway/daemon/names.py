"""The resolver file: without it names do not resolve, but nothing leaks."""

import asyncio
import errno
from contextlib import suppress

import structlog

from gateway.daemon.ports import Parts
from gateway.errors import KernelError, NetworkError, is_shortage
from gateway.model import Config, Tunnel
from gateway.policy.limits import OWN_RESOLVER
from gateway.policy.upstreams import resolvers_for
from gateway.system.aside import Aside
from gateway.system.given import Given

TAKE_ATTEMPTS = 10
TAKE_PAUSE = 0.25
"""How often the given resolvers are looked for while a shortage or a workload prevents reading
them, and the seconds between two attempts."""


class Names:
    """Writes the file, and logs when that begins or ceases to fail."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._log = structlog.get_logger()
        self._failed = False

    async def write(self, tunnel: Tunnel) -> str:
        """Write the resolvers of `tunnel`; return why names will not resolve, empty if they do."""
        try:
            await self._parts.write_resolver(tunnel)
        except (KernelError, OSError) as err:
            if not self._failed:
                self._log.warning(
                    "could not write resolver file", problem=str(err), remedy=OWN_RESOLVER
                )
            self._failed = True
            return str(err)
        if self._failed:
            self._log.info("resolver file written again")
        self._failed = False
        return ""


async def take_resolvers(given: Given, config: Config, files: Aside, *, first: bool) -> None:
    """Find the resolvers that the container was given, and seal them in the file that named them.

    At once, before any workload can write to it. `first` says that no gateway has had the namespace
    before. Whether the file can be written at all is reported with the tunnel's resolvers.
    """

    def take() -> None:
        given.take(config.tunnels[0].private_key, first=first)

    for _ in range(TAKE_ATTEMPTS):
        try:
            await files.run(take)
        except NetworkError as err:
            if not is_shortage(err) and err.errno != errno.EBUSY:
                break
            await asyncio.sleep(TAKE_PAUSE)
        else:
            break
    with suppress(NetworkError):
        await files.run(lambda: given.write(resolvers_for(config.tunnels[0], config)))
