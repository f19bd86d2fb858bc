"""Fetches the provider's list again from time to time, through the tunnel.

Apart from the loop: nothing waits for it, and the list that is there stays good. What a new list
changes follows as after `gateway reload`, so the tunnel stays if its server is still listed.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.daemon.ports import Lists, Resolver
from gateway.errors import GatewayError, NetworkError
from gateway.model import ServerList
from gateway.providers.kept import PLACES, file_name

LOOK_EVERY = 30.0
"""Seconds between two looks whether the tunnel is up, once the list is due."""

TIME_LIMIT = 120.0
"""Seconds for one attempt: the tunnel may be slow."""

AGAIN = 600.0
"""Seconds until the next attempt, if the period is not shorter."""


@dataclass(frozen=True)
class Tools:
    """What a refresh takes: it asks for the host, fetches, and has the configuration read again.

    `resolver` and `lists` use the namespace of the tunnel; `is_up` says whether it carries traffic.
    """

    resolver: Resolver
    lists: Lists
    is_up: Callable[[], bool]
    read_again: Callable[[], None]


async def keep_fresh(
    listed: ServerList, period: float, tools: Tools, places: Sequence[str] = PLACES
) -> None:
    """Fetch the list whenever it is `period` seconds old, until cancelled."""
    log = structlog.get_logger()
    wait = max(0.0, period - _age(listed, places))
    while True:
        await asyncio.sleep(wait)
        while not tools.is_up():  # noqa: ASYNC110 - the status comes without an event
            await asyncio.sleep(min(LOOK_EVERY, period))
        wait = period
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
    tools.resolver.open()
    addresses = (await tools.resolver.ask((listed.host,)))[listed.host]
    for number, address in enumerate(addresses, 1):
        try:
            tools.lists.open(listed, address)
            await tools.lists.fetch(listed)
        except NetworkError:
            if number == len(addresses):
                raise
        else:
            return


def _age(listed: ServerList, places: Sequence[str]) -> float:
    """Return how old the newest file of the list is, in seconds by the wall clock."""
    found = (Path(place) / file_name(listed.provider) for place in places)
    times = [path.stat().st_mtime for path in found if path.is_file()]
    return max(0.0, time.time() - max(times, default=0.0))
