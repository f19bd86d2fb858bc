"""How long the servers' handshakes took, as the gateway keeps it in a file next to the lists.

It is an object with `measured` (seconds since 1970), `servers` (a digest of all candidates) and
`milliseconds`, an object with a number for each server that answered, by its endpoint. Other
programs can write the file: it can change the order of configured servers, and nothing else.
"""

import hashlib
import json
from collections.abc import Collection
from typing import TypeGuard

from gateway.model import Times

FILE = "handshakes.json"
LARGEST = 16 << 10
"""Bytes of the file; the gateway times eight servers."""
MOST_AGE = 30 * 86400
"""Seconds after which servers are measured again: providers move them, and networks change."""
SLOWEST = 60_000.0
_HOUR = 3600


class BadTimesError(Exception):
    """Kept times cannot be used; the text says why and quotes nothing of them."""


def dumped(times: Times, servers: Collection[str], now: float) -> bytes:
    """Return the `times` of some of `servers`, measured `now`, as they are kept in a file."""
    milliseconds = {server: round(seconds * 1000, 3) for server, seconds in times}
    document = {"measured": int(now), "servers": _digest(servers), "milliseconds": milliseconds}
    return json.dumps(document, indent=1).encode() + b"\n"


def kept(raw: bytes, servers: Collection[str], now: float) -> Times:
    """Read what `dumped` has returned for the same `servers`.

    Raises BadTimesError, also where they are too old, or those of other servers.
    """
    if len(raw) > LARGEST:
        raise BadTimesError(f"it is larger than {LARGEST >> 10} KiB")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise BadTimesError("it is not JSON") from err
    if not isinstance(document, dict):
        raise BadTimesError("it is not an object")
    measured, values = document.get("measured"), document.get("milliseconds")
    if not _is_number(measured) or not isinstance(values, dict):
        raise BadTimesError("it has no times")
    if not now - MOST_AGE <= measured <= now + _HOUR:
        raise BadTimesError("it is too old, or from the future")
    if document.get("servers") != _digest(servers):
        raise BadTimesError("the servers to choose from have changed")
    known = set(servers)
    times = tuple(
        (server, value / 1000)
        for server, value in values.items()
        if server in known and _is_number(value) and 0 < value <= SLOWEST
    )
    if not times:
        raise BadTimesError("it has no times")
    return times


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _digest(servers: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(servers)).encode()).hexdigest()
