"""A provider's list as it arrives, and as the gateway keeps it in a file.

The kept form is the same for all providers, small, and read again with the same distrust: other
programs can write the file. It is an object with `provider`, `source`, `fetched` (seconds since
1970) and `servers`, an array of objects with the fields of `Server` that are not empty.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

from gateway.model import Address
from gateway.model.frozen import frozen
from gateway.providers import catalog
from gateway.providers.entries import Entry, is_host
from gateway.providers.server import Provider, Server

LARGEST = 24 << 20
"""Octets of a list. The largest published one (NordVPN) has some 10 MB."""
LARGEST_KEPT = 16 << 20
MOST_SERVERS = 20_000
MOST_ADDRESSES = 4
MOST_CATEGORIES = 20
LATEST = 253_402_300_799
"""The last second of the year 9999, after which Python knows no dates."""


class BadListError(Exception):
    """A list cannot be used; the text says why and holds nothing of the list."""


@frozen
class KeptList:
    """A list as it was at `fetched`, in seconds since 1970."""

    provider: str
    source: str
    fetched: int
    servers: tuple[Server, ...]


def servers_in(provider: Provider, raw: bytes) -> tuple[Server, ...]:
    """Return the servers of a provider's own list, each once. Raises BadListError.

    Private Internet Access puts a signature after the document, so what follows it is ignored.
    """
    read = provider.read(decoded(raw, LARGEST))
    found = tuple(_at_most(map(_shortened, read), MOST_SERVERS))
    if not found:
        raise BadListError("it has no WireGuard server in the form that this version knows")
    return found


def kept(text: bytes) -> KeptList:
    """Read what `dumped` has returned. Raises BadListError."""
    document = decoded(text, LARGEST_KEPT)
    provider = catalog.find(document.text("provider"))
    keyless = provider is not None and provider.keys is not None
    found = _kept_servers(document, keyless=keyless)
    servers = tuple(_at_most(found, MOST_SERVERS))
    name, fetched = document.text("provider"), document.number("fetched")
    if not servers or not name or fetched is None or not 0 <= fetched <= LATEST:
        raise BadListError("it is not a list as `gateway servers update` writes it")
    return KeptList(name, document.text("source"), fetched, servers)


def dumped(content: KeptList) -> bytes:
    """Return a list as it is kept in a file, one server a line. Raises BadListError."""
    head = {"provider": content.provider, "source": content.source, "fetched": content.fetched}
    lines = ",\n".join(
        json.dumps(plain(server), ensure_ascii=False, separators=(",", ":"))
        for server in content.servers
    )
    text = f'{json.dumps(head, ensure_ascii=False)[:-1]}, "servers": [\n{lines}\n]}}\n'.encode()
    if len(text) > LARGEST_KEPT:
        raise BadListError(f"its servers take more than {LARGEST_KEPT >> 20} MiB")
    return text


def plain(server: Server) -> dict[str, object]:
    """Return the fields that are not empty, as JSON has them."""
    values = {field.name: getattr(server, field.name) for field in fields(server)}
    values["addresses"] = [str(address) for address in server.addresses]
    return {name: value for name, value in values.items() if value}


def decoded(raw: bytes, largest: int) -> Entry:
    """Return a JSON document of `largest` octets, whatever follows it. Raises BadListError."""
    if len(raw) > largest:
        raise BadListError(f"it is larger than {largest >> 20} MiB")
    try:
        document, _ = json.JSONDecoder().raw_decode(raw.decode())
    except UnicodeDecodeError as err:
        raise BadListError("it is not UTF-8") from err
    except RecursionError as err:
        raise BadListError("it is nested too deeply") from err
    except ValueError as err:
        # The text of a JSONDecodeError does not quote the document.
        raise BadListError(f"it is not JSON: {err}") from err
    return Entry(document)


def _at_most(servers: Iterable[Server], most: int) -> Iterator[Server]:
    """Yield each server once. Raises BadListError if there are more than `most`."""
    seen: set[Server] = set()
    for server in servers:
        if server not in seen:
            if len(seen) == most:
                raise BadListError(f"it has more than {most} servers")
            seen.add(server)
            yield server


def _shortened(server: Server) -> Server:
    """Return a server without the categories that are not kept."""
    if len(server.categories) <= MOST_CATEGORIES:
        return server
    return replace(server, categories=server.categories[:MOST_CATEGORIES])


def _kept_servers(document: Entry, *, keyless: bool) -> Iterator[Server]:
    for entry in document.all("servers"):
        hostname, key = entry.text("hostname"), entry.key("public_key")
        addresses = tuple(_addresses(entry))
        is_usable = addresses and is_host(entry.text("name")) if keyless else hostname or addresses
        if is_usable and (key or keyless):
            yield Server(
                hostname=hostname,
                public_key="" if keyless else key,
                addresses=addresses,
                country=entry.text("country"),
                region=entry.text("region"),
                city=entry.text("city"),
                name=entry.text("name"),
                isp=entry.text("isp"),
                categories=tuple(_texts(entry, "categories"))[:MOST_CATEGORIES],
                owned=entry.flag("owned") is True,
                port_forward=entry.flag("port_forward") is True,
            )


def _texts(entry: Entry, name: str) -> Iterator[str]:
    for element in entry.all(name):
        if text := element.text():
            yield text


def _addresses(entry: Entry) -> Iterator[Address]:
    for element in list(entry.all("addresses"))[:MOST_ADDRESSES]:
        if address := element.address():
            yield address
