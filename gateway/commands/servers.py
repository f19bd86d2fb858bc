"""`gateway servers`: fetches the list of a provider by hand, and shows what is in it."""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from gateway.commands.exit_codes import FAILED, OK, USAGE
from gateway.commands.in_time import in_time
from gateway.errors import NetworkError
from gateway.model import ServerList
from gateway.providers import catalog, lists, selection
from gateway.providers.kept import PLACES, file_name
from gateway.providers.lists import BadListError, KeptList
from gateway.providers.selection import Filters
from gateway.providers.server import Provider, Server
from gateway.settings import early
from gateway.settings.kept_lists import newest, read
from gateway.system import https
from gateway.system.copied import keep_copy

CONNECT_TIME: Final = 10.0
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
    except (NetworkError, BadListError, OSError) as err:
        print(f"{provider.title}: {err}", file=sys.stderr)
        return FAILED


# -- update ---------------------------------------------------------------------------------------


def _update(provider: Provider, listed: ServerList, places: Sequence[Path]) -> int:
    with in_time(TIME_LIMIT, lambda: NetworkError(f"not done after {TIME_LIMIT} s", listed.url)):
        found = fetched(provider, listed)
    content = KeptList(provider.name, listed.url, int(time.time()), found)
    place = _keep(content, places)
    print(f"{len(content.servers)} servers of {provider.title} are now in {place}")
    return OK


def fetched(provider: Provider, listed: ServerList) -> tuple[Server, ...]:
    """Return the servers of a list, by the resolver and the routes of this system.

    Raises NetworkError, OSError and BadListError.
    """
    request = https.Request(listed, lists.LARGEST)
    context = https.trusted()
    channel = socket.create_connection((listed.host, listed.port), timeout=CONNECT_TIME)
    return lists.servers_in(provider, https.get(channel, request, context))


def _keep(content: KeptList, places: Sequence[Path]) -> Path:
    """Write the list to the first place that takes it. Raises OSError."""
    with closing(os.fdopen(os.memfd_create("list", os.MFD_CLOEXEC), "wb")) as file:
        file.write(lists.dumped(content))
        file.flush()
        return keep_copy(places, file_name(content.provider), file.fileno())


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
