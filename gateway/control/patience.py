"""How long an address waits for a verdict after it has shown wrong credentials.

Nothing is locked: the right credential is let in after the same wait, LONGEST at most, and an
address that has guessed nothing never waits. So a guesser cannot keep others out.
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

FIRST, LONGEST = 0.1, 2.0
"""Seconds after the first wrong credential, doubled with each one up to the longest."""
FORGOTTEN_AFTER = 60.0
"""Seconds without a wrong credential after which an address does not wait any more."""
MOST_ADDRESSES = 1024
"""Of more addresses, the one whose last failure is oldest is forgotten."""
IPV6_PREFIX = 64


class Patience:
    """Remembers failures by address; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_for(self, address: str) -> float:
        """Return how many seconds `address` waits for its next verdict."""
        count, at = self._failures.get(place_of(address), (0, 0.0))
        if not count or self._clock() - at > FORGOTTEN_AFTER:
            return 0.0
        return float(min(FIRST * 2 ** min(count - 1, 16), LONGEST))

    def failed(self, address: str) -> None:
        """Note that `address` has shown a wrong credential."""
        place = place_of(address)
        count, at = self._failures.pop(place, (0, 0.0))
        if self._clock() - at > FORGOTTEN_AFTER:
            count = 0
        self._failures[place] = count + 1, self._clock()
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)


def place_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)
