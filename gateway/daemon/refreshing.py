"""Fetches the provider's list again from time to time, through the tunnel.

Apart from the loop: nothing waits for it, and the list that is there stays good. What a new list
changes follows as after `gateway reload`, so the tunnel stays if its server is still listed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from gateway.daemon.ports import ProviderHosts, Resolver
from gateway.errors import GatewayError, MissingError
from gateway.model import Address, Config, Errand, ServerList
from gateway.model.frozen import frozen
from gateway.policy.upstreams import resolvers_for
from gateway.providers.kept import PLACES, file_name
from gateway.services.fetching.addresses import at_any
from gateway.system.aside import Aside

T = TypeVar("T")

LOOK_EVERY = 30.0
"""Seconds between two looks whether the tunnel is up, once the list is due."""

TIME_LIMIT = 120.0
"""Seconds for one attempt: the tunnel may be slow."""

AGAIN = 600.0
"""Seconds until the next attempt, if the period is not shorter."""


class AnyResolver(Resolver, Protocol):
    """Asks the resolver that it is given."""

    resolver: Address | None


@frozen
class Tools:
    """What a refresh takes: it asks for the host, fetches, and has the configuration read again.

    `resolver` and `provider` use the namespace of the tunnel; `is_up` says whether it carries
    traffic.
    """

    resolver: AnyResolver
    provider: ProviderHosts
    is_up: Callable[[], bool]
    read_again: Callable[[], None]


async def keep_fresh(
    running: Callable[[], Config], period: float, tools: Tools, places: Sequence[str] = PLACES
) -> None:
    """Fetch the list that is in use whenever it is `period` seconds old, until cancelled."""
    log = structlog.get_logger()
    wait = max(0.0, period - await _age(running().server_list, places))
    while True:
        await asyncio.sleep(wait)
        while not tools.is_up():  # noqa: ASYNC110 - the status comes without an event
            await asyncio.sleep(min(LOOK_EVERY, period))
        wait = period
        config = running()
        if (listed := config.server_list) is None:
            continue
        tools.resolver.resolver = next(iter(resolvers_for(config.tunnels[0], config)), None)
        try:
            async with asyncio.timeout(TIME_LIMIT):
                await _fetch(listed, tools)
        except TimeoutError:
            problem = f"not done after {TIME_LIMIT:g} s"
        except (GatewayError, OSError, MemoryError) as err:
            problem = str(err) or type(err).__name__
        else:
            log.info("list of servers fetched", provider=listed.provider)
            tools.read_again()
            continue
        wait = min(period, AGAIN)
        log.warning("could not fetch list of servers", provider=listed.provider, problem=problem)


async def _fetch(listed: ServerList, tools: Tools) -> None:
    """Try each address of the host. Raises GatewayError and OSError."""
    if tools.resolver.resolver is None:
        raise MissingError("the tunnel has no resolver", "set DNS_ADDRESS")

    async def at(address: Address) -> None:
        tools.provider.open(listed, address)
        await tools.provider.fetch(listed)

    await at_any_address(listed, tools.resolver, at)


async def at_any_address(
    errand: Errand,
    resolver: Resolver,
    work: Callable[[Address], Awaitable[T]],
    *,
    final: type[Exception] | tuple[()] = (),
) -> T:
    """Return what `work` returns at the first address of the host where it does not fail.

    After an error of the kind `final` no other address is tried. Raises GatewayError and OSError.
    """
    resolver.open()
    addresses = (await resolver.ask((errand.host,)))[errand.host]
    return await at_any(addresses, work, final=final)


async def _age(listed: ServerList | None, places: Sequence[str]) -> float:
    """Return how old the newest file of the list is, in seconds by the wall clock.

    It counts as just fetched where that is not known: the file may be on another machine.
    """
    if listed is None:
        return 0.0
    files, times = [Path(place) / file_name(listed.provider) for place in places], [0.0]

    def look() -> None:
        for file in files:
            with suppress(FileNotFoundError):
                times.append(file.stat().st_mtime)

    try:
        await Aside("the list of servers").run(look)
    except (GatewayError, OSError):
        return 0.0
    return max(0.0, time.time() - max(times))
