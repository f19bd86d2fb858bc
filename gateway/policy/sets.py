"""The lists of the configuration as what rules match: as few networks and ranges as possible.

One entry is matched as it is. Several are one set, so that the number of rules does not grow with
the list.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import collapse_addresses
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


@lru_cache(maxsize=16)
def networks(name: str, why: str, family: Family, listed: tuple[Network, ...]) -> Networks | None:
    """Return what matches every address of `family` that is in one of `listed`, None if none is.

    Networks that overlap, or together are a larger one, are merged.
    """
    ours: list[Any] = [network for network in listed if family.has(network)]
    merged: tuple[Network, ...] = tuple(collapse_addresses(ours))
    if len(merged) > 1:
        return NetworkSet(name, why, merged)
    return merged[0] if merged else None


@lru_cache(maxsize=16)
def ports(
    name: str, why: str, listed: tuple[PortRange, ...]
) -> tuple[tuple[Transport, AnyPorts], ...]:
    """Return each protocol in `listed` with what matches every port that is listed for it.

    Ranges that overlap or adjoin are merged.
    """
    found: list[tuple[Transport, AnyPorts]] = []
    for protocol in Protocol:
        merged = tuple(_merged(entry for entry in listed if entry.protocol is protocol))
        if len(merged) > 1:
            found.append((Transport(protocol), PortSet(f"{name}_{protocol}", why, merged)))
        elif merged:
            found.append((Transport(protocol), merged[0]))
    return tuple(found)


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
