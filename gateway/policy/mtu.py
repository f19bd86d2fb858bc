"""Which packets fit through the tunnel: the sizes to try, and the MTU that follows."""

from gateway.model import Tunnel
from gateway.policy.facts import Facts
from gateway.policy.link import SMALLEST_MTU, tunnel_mtu
from gateway.policy.ways import ways

LEAST = 576
"""Bytes that every host accepts (RFC 791, section 3.1), so a path that is narrower is not a path.

A host that does not answer an echo of this size says nothing about larger ones.
"""

NARROW = (768, 1024, 1152)
"""Sizes below the smallest MTU, to report how narrow a path is."""

WIDEST = 1440
"""The largest packet in a path of 1500 bytes: over IPv4 WireGuard adds 60."""

STEP = 16
"""WireGuard pads to a multiple of this, up to the MTU, so sizes in between are as long as it."""

Way = tuple[str, int]
"""What the first MTU was chosen for, as text, and that MTU: another one is measured afresh."""


def way_of(tunnel: Tunnel, facts: Facts) -> Way:
    """Return the way to the servers of `tunnel`, and the MTU that it begins with."""
    return ways(tunnel, facts), tunnel_mtu(tunnel, facts)


def steps(mtu: int) -> tuple[int, ...]:
    """Return the sizes in bytes to try once packets of `mtu` bytes have not been answered.

    `mtu` is among them, because losses alone must not lower it, and the least that a host answers.
    """
    known = (LEAST, *NARROW, *range(SMALLEST_MTU, WIDEST + STEP, STEP))
    return (*(size for size in known if size < mtu), mtu)


def fitting(mtu: int, path: int) -> int:
    """Return the MTU for a path whose largest packet has `path` bytes: at most `mtu`."""
    return min(mtu, max(SMALLEST_MTU, path))
