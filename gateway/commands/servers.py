"""`gateway servers`: fetches the list of a provider by hand, and shows what is in it."""

import argparse
import asyncio
import json
import math
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from gateway.commands.exit_codes import FAILED, OK, USAGE
from gateway.errors import GatewayError, NetworkError
from gateway.model import Address, ServerList
from gateway.providers import catalog, lists, selection
from gateway.providers.kept import PLACES, file_name
from gateway.providers.lists import BadListError, KeptList
from gateway.providers.selection import Filters
from gateway.providers.server import Provider, Server
from gateway.services.fetching.addresses import at_any
from gateway.services.fetching.lists import ListFetcher
from gateway.settings import early
from gateway.settings.kept_lists import newest, read
from gateway.system.aside import Aside

TIME_LIMIT: Final = 120
"""Seconds for a list."""
COLUMNS: Final = ("hostname", "name", "country", "region", "city", "isp")


def servers(asked: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    name = asked.provider or early.environment().get("VPN_SERVICE_PROVIDER", "")
    provider = catalog.find(name)
    listed = provider.listed if provider else None
    if provider is None or listed is None:
        known = ", ".join(each.name for each in catalog.PROVIDERS if each.url)
        remark = f" {provider.remark}" if provider else ""
        print(f"{name or 'no provider'!r} has no list; those with one: {known}.{remark}",
              file=sys.stderr)  # fmt: skip
        return USAGE
    places = [asked.directory] if asked.directory else list(map(Path, PLACES))
    try:
        if asked.action == "update":
            return _update(provider, listed, places)
        return _show(provider, places, asked)
    except (GatewayError, BadListError, OSError) as err:
        print(f"{provider.title}: {err}", file=sys.stderr)
        return FAILED


# -- update ---------------------------------------------------------------------------------------


def _update(provider: Provider, listed: ServerList, places: Sequence[Path]) -> int:
    file = asyncio.run(_fetch(listed, places))
    print(f"{len(read(file).servers)} servers of {provider.title} are now in {file}")
    return OK


async def _fetch(listed: ServerList, places: Sequence[Path]) -> Path:
    """Fetch the list by the resolver and the routes of this system; return in which file it is.

    A process without rights reads what the host sends, as for the gateway. Raises GatewayError and
    OSError.
    """
    fetcher = ListFetcher(early.environment(), is_plain=True, places=places)

    async def at(address: Address) -> Path:
        fetcher.open(listed, address)
        return await fetcher.fetch(listed)

    try:
        async with asyncio.timeout(TIME_LIMIT):
            return await at_any(await _addresses(listed), at)
    except TimeoutError as err:
        raise NetworkError(f"not done after {TIME_LIMIT} s", listed.url) from err


async def _addresses(listed: ServerList) -> list[Address]:
    """Return the addresses of the list's host. Raises NetworkError.

    Apart, because getaddrinfo(3) waits for as long as the name servers are silent, and no signal
    interrupts that.
    """
    found: list[Address] = []

    def look_up() -> None:
        answers = socket.getaddrinfo(listed.host, listed.port, type=socket.SOCK_STREAM)
        found.extend(ip_address(address[0]) for *_, address in answers)

    try:
        await Aside("the name").run(look_up, math.inf)  # the caller has a limit
    except socket.gaierror as err:
        raise NetworkError(f"look up: {err.strerror}", listed.host) from err
    return found


# -- list -----------------------------------------------------------------------------------------


def _show(provider: Provider, places: Sequence[Path], asked: argparse.Namespace) -> int:
    content = _newest(provider, places)
    given = {name: getattr(asked, _option(name)) for name in selection.TEXTS}
    values = {name: _words(text) for name, text in given.items() if text}
    flags = frozenset(flag for flag in selection.FLAGS if getattr(asked, flag.lower()))
    filters = Filters(values, flags)
    found = selection.matching(content.servers, filters)
    if asked.json:
        print(json.dumps([lists.plain(server) for server in found], ensure_ascii=False, indent=1))
    else:
        for line in _table(found):
            print(line)
        age = max(0, int(time.time()) - content.fetched) // 3600
        print(f"{len(found)} of {len(content.servers)} servers, fetched {age} hours ago",
              file=sys.stderr)  # fmt: skip
    return OK if found else FAILED


def _newest(provider: Provider, places: Sequence[Path]) -> KeptList:
    """Return the list that is kept. Raises BadListError and OSError."""
    found = []
    for place in places:
        with suppress(FileNotFoundError):
            found.append(read(place / file_name(provider.name)))
    if content := newest(found):
        return content
    raise FileNotFoundError(f"there is no list yet: run `gateway servers update {provider.name}`")


def _option(variable: str) -> str:
    """Return the name of the option that is like `variable`."""
    return variable.removeprefix("SERVER_").lower()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _table(found: Sequence[Server]) -> Iterable[str]:
    """Yield lines with the columns that any server has a value for."""
    columns = [name for name in COLUMNS if any(getattr(server, name) for server in found)]
    rows = [columns, *([getattr(server, name) for name in columns] for server in found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
