"""What servers have answered to a key, as the gateway keeps it in a file that only root reads.

A line of JSON with `provider`, `made` (seconds since 1970), `public_key` (the user's),
`private_key` (empty unless the gateway has made it) and `token`; then one for each server, with the
fields of `Registered`. The `token`, a server's `name` and its `gateway` are what it takes to ask
Private Internet Access for a forwarded port.
"""

import json
from collections.abc import Iterator
from dataclasses import field, fields
from ipaddress import IPv4Address

from gateway.model.frozen import frozen
from gateway.providers.entries import LAST_PORT, Entry, is_host, is_key
from gateway.providers.lists import BadListError, decoded
from gateway.providers.server import Registered

LARGEST = 64 << 10
MOST_SERVERS = 16
LONGEST_TOKEN = 512


@frozen
class Registrations:
    """What was registered at `made`; `servers` in the order in which they were asked.

    `private_key` is empty where the user has it.
    """

    provider: str
    made: int
    public_key: str
    private_key: str = field(repr=False)
    token: str = field(repr=False)
    servers: tuple[Registered, ...]


def dumped(server: Registered) -> str:
    """Return the line for a server."""
    values = {each.name: getattr(server, each.name) for each in fields(server)}
    values["resolvers"] = [str(address) for address in server.resolvers]
    plain = {name: value if isinstance(value, int | list) else str(value)
             for name, value in values.items() if value is not None}  # fmt: skip
    return json.dumps(plain)


def read(text: bytes) -> Registrations:
    """Return what such a file holds; lines that are not in this form are left out.

    Raises BadListError if the first line is one of them.
    """
    if len(text) > LARGEST:
        raise BadListError(f"it is larger than {LARGEST >> 10} KiB")
    first, *others = text.splitlines() or [b""]
    head = decoded(first, LARGEST)
    provider, made = head.text("provider"), head.number("made")
    key, private = head.key("public_key"), head.key("private_key")
    if not provider or made is None or not key:
        raise BadListError("it does not begin as the gateway writes it")
    token = head.long_text("token", LONGEST_TOKEN)
    return Registrations(provider, made, key, private, token, tuple(_servers(others)))


def _servers(lines: list[bytes]) -> Iterator[Registered]:
    for line in lines[:MOST_SERVERS]:
        try:
            entry = decoded(line, LARGEST)
        except BadListError:
            continue
        if server := _server(entry):
            yield server


def _server(entry: Entry) -> Registered | None:
    name, address, key = entry.text("name"), entry.address("address"), entry.text("public_key")
    port, own = entry.number("port") or 0, entry.address("tunnel_address")
    is_known = is_host(name) and is_key(key) and 0 < port <= LAST_PORT
    if not is_known or address is None or not isinstance(own, IPv4Address):
        return None
    found = (each.address() for each in entry.all("resolvers"))
    resolvers = tuple(each for each in found if each is not None)
    return Registered(name, address, key, port, own, resolvers, entry.address("gateway"))
