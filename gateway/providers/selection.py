"""Which servers of a list a user wants, and in which order they are tried."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from difflib import get_close_matches

from gateway.model.frozen import frozen
from gateway.providers.server import Provider, Server

MOST_CANDIDATES = 64
"""How many of the matching servers are tried, one after the other, before the first again."""
MOST_SHOWN = 12
"""How many existing values an error lists."""
MOST_COMPARED = 3
"""For how many values that do not exist the nearest ones are searched: it takes up to a second."""

TEXTS = {
    "SERVER_COUNTRIES": "country",
    "SERVER_REGIONS": "region",
    "SERVER_CITIES": "city",
    "SERVER_NAMES": "name",
    "SERVER_HOSTNAMES": "hostname",
    "SERVER_CATEGORIES": "categories",
    "ISP": "isp",
}
"""The variables with values that one field of a server has to be equal to."""
FLAGS = {"OWNED_ONLY": "owned", "PORT_FORWARD_ONLY": "port_forward"}
"""The variables that are on or off."""


@frozen
class Filters:
    """What is asked for: accepted values by variable, and the variables that are on.

    A server has to match each variable, by any of its values, whatever their case.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    @property
    def variables(self) -> tuple[str, ...]:
        """Every variable that restricts the choice."""
        return (*(name for name, values in self.values.items() if values), *sorted(self.flags))


@frozen
class Unmatched:
    """Why no server matches: the variable, its value if that exists nowhere, and what does exist.

    `value` is empty if each value exists, but not together with those of `others`. Of many values
    that do not exist, only the first have `existing` ones, the nearest.
    """

    variable: str
    value: str
    existing: tuple[str, ...]
    others: tuple[str, ...] = ()


def unknown(provider: Provider, filters: Filters) -> tuple[str, ...]:
    """Return the variables that say nothing about the servers of `provider`."""
    return tuple(
        variable
        for variable in filters.variables
        if {**TEXTS, **FLAGS}[variable] not in provider.filters
    )


def matching(servers: Iterable[Server], filters: Filters) -> tuple[Server, ...]:
    """Return the servers that match all of `filters`, in the order of the list."""
    wanted = {name: set(map(str.casefold, values)) for name, values in filters.values.items()}
    return tuple(
        server
        for server in servers
        if all(getattr(server, FLAGS[flag]) for flag in filters.flags)
        and all(not values or values & _values(server, name) for name, values in wanted.items())
    )


def why_none(servers: Sequence[Server], filters: Filters) -> tuple[Unmatched, ...]:
    """Return what is wrong with filters that no server matches.

    First what exists nowhere in the list; if all of it does, the variables in their order, up to
    the one after which nothing is left.
    """
    found = tuple(_nowhere(servers, filters))
    return found or tuple(_conflict(servers, filters))


def ranked(servers: Iterable[Server], salt: bytes) -> tuple[Server, ...]:
    """Return `servers` in an order that is random for each `salt`, and always the same for it.

    So each user begins with another server, and with the same one after a restart. A server that
    joins or leaves the list does not move the others.
    """

    def place(server: Server) -> bytes:
        name = f"{server.hostname} {server.name} {server.addresses}"
        return hashlib.sha256(salt + name.encode()).digest()

    return tuple(sorted(servers, key=place))


def spread(servers: Iterable[Server]) -> tuple[Server, ...]:
    """Return `servers` with one of each place first, then the second ones, and so on.

    Those of one city are about as far away, so that a few measurements are to differ in that.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    rounds: list[tuple[int, Server]] = []
    for server in servers:
        place = server.country, server.region, server.city
        rounds.append((seen[place], server))
        seen[place] += 1
    return tuple(server for _, server in sorted(rounds, key=lambda it: it[0]))


def existing(servers: Iterable[Server], variable: str) -> tuple[str, ...]:
    """Return every value of a variable in a list, sorted, each once."""
    name = TEXTS[variable]
    found = {value for server in servers for value in _as_tuple(getattr(server, name)) if value}
    return tuple(sorted(found, key=str.casefold))


def _values(server: Server, variable: str) -> set[str]:
    return {value.casefold() for value in _as_tuple(getattr(server, TEXTS[variable]))}


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _nowhere(servers: Sequence[Server], filters: Filters) -> Iterable[Unmatched]:
    compared = 0
    for variable, values in filters.values.items():
        there = existing(servers, variable)
        known = {value.casefold() for value in there}
        if known & {value.casefold() for value in values}:
            continue
        for value in values:
            near = closest(value, there) if compared < MOST_COMPARED else ()
            compared += 1
            yield Unmatched(variable, value, near)
    for flag in sorted(filters.flags):
        if not any(getattr(server, FLAGS[flag]) for server in servers):
            yield Unmatched(flag, "on", ())


def _conflict(servers: Sequence[Server], filters: Filters) -> Iterable[Unmatched]:
    values: dict[str, tuple[str, ...]] = {}
    left: Sequence[Server] = servers
    for variable in filters.variables:
        flags = filters.flags & {variable}
        one = Filters({variable: filters.values.get(variable, ())} if not flags else {}, flags)
        remaining = matching(left, one)
        if not remaining:
            there = existing(left, variable) if variable in TEXTS else ()
            yield Unmatched(variable, "", there[:MOST_SHOWN], tuple(values))
            return
        left = remaining
        values[variable] = ()


def closest(value: str, there: Sequence[str]) -> tuple[str, ...]:
    """Return the values that are most like `value`; where none is, the first ones."""
    by_folded = {each.casefold(): each for each in there}
    near = get_close_matches(value.casefold(), by_folded, MOST_SHOWN // 2)
    inside = [folded for folded in by_folded if value.casefold() in folded and folded not in near]
    found = tuple(by_folded[folded] for folded in (*near, *inside))[:MOST_SHOWN]
    return found or tuple(there[:MOST_SHOWN])
