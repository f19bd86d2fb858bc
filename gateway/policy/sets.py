"""The lists of the configuration as what rules match: as few networks and ranges as possible.

One entry is matched as it is. Several are one set, so that the number of rules does not grow with
the list.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import collapse_addresses
from itertools import pairwise
from typing import Any

from gateway.model import Network, PortRange, Protocol
from gateway.policy.rules import (
    AnyPorts,
    Family,
    Networks,
    NetworkSet,
    Ports,
    PortSet,
    Transport,
)

FEW = 4
"""How many networks of a family, or ranges of a protocol, have a policy rule each.

The kernel compares a packet with one rule after another whenever it looks up a route."""

REMEMBERED = 16
"""Lists whose sets are remembered: one object for all rules, which compare it by identity."""


@lru_cache(maxsize=REMEMBERED)
def merged_networks(family: Family, listed: tuple[Network, ...]) -> tuple[Network, ...]:
    """Return the fewest networks with the addresses of `family` in `listed`, sorted."""
    ours: list[Any] = [network for network in listed if family.has(network)]
    return tuple(collapse_addresses(ours))


@lru_cache(maxsize=REMEMBERED)
def merged_ports(listed: tuple[PortRange, ...]) -> dict[Transport, tuple[Ports, ...]]:
    """Return the fewest ranges with the ports in `listed`, sorted, for each protocol listed."""
    found = {
        Transport(protocol): tuple(_merged(it for it in listed if it.protocol is protocol))
        for protocol in Protocol
    }
    return {transport: spans for transport, spans in found.items() if spans}


@lru_cache(maxsize=REMEMBERED)
def networks(name: str, why: str, family: Family, listed: tuple[Network, ...]) -> Networks | None:
    """Return what matches every address of `family` that is in one of `listed`, None if none is."""
    merged = merged_networks(family, listed)
    if len(merged) > 1:
        return NetworkSet(name, why, merged)
    return merged[0] if merged else None


@lru_cache(maxsize=REMEMBERED)
def ports(
    name: str, why: str, listed: tuple[PortRange, ...]
) -> tuple[tuple[Transport, AnyPorts], ...]:
    """Return each protocol in `listed` with what matches every port that is listed for it."""
    return tuple(
        (transport, PortSet(f"{name}_{transport}", why, spans) if len(spans) > 1 else spans[0])
        for transport, spans in merged_ports(listed).items()
    )


@lru_cache(maxsize=REMEMBERED)
def few_and_many(listed: tuple[Network, ...]) -> tuple[tuple[Network, ...], tuple[Network, ...]]:
    """Return the networks of the families of which at most `FEW` are listed, then the others.

    The others are merged.
    """
    few, many = list[Network](), list[Network]()
    for family in Family:
        ours = [network for network in listed if family.has(network)]
        if len(ours) <= FEW:
            few += ours
        else:
            many += merged_networks(family, listed)
    return tuple(few), tuple(many)


@lru_cache(maxsize=REMEMBERED)
def widened(listed: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """Return at most `FEW` ranges for each protocol, with all ports in `listed`.

    They have as few others as possible: the smallest gaps are closed.
    """
    return tuple(
        PortRange(Protocol(transport), span.first, span.last)
        for transport, spans in merged_ports(listed).items()
        for span in _widened(spans)
    )


def _widened(spans: tuple[Ports, ...]) -> Iterator[Ports]:
    largest_first = sorted(range(1, len(spans)), key=lambda n: spans[n - 1].last - spans[n].first)
    begins = (0, *sorted(largest_first[: FEW - 1]), len(spans))
    return (Ports(spans[a].first, spans[b - 1].last) for a, b in pairwise(begins))


def _merged(listed: Iterable[PortRange]) -> Iterator[Ports]:
    """Yield the fewest ranges that have the same ports, in their order."""
    open_: Ports | None = None
    for entry in sorted(listed, key=lambda entry: entry.first):
        if open_ is None:
            open_ = Ports(entry.first, entry.last)
        elif entry.first <= open_.last + 1:
            open_ = Ports(open_.first, max(open_.last, entry.last))
        else:
            yield open_
            open_ = Ports(entry.first, entry.last)
    if open_ is not None:
        yield open_
