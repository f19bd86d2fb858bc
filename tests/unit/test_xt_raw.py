"""The bytes of a legacy table, less its counters."""

import struct

import pytest

from gateway.firewall.xtables.raw import Bytes
from gateway.policy.rules import Family

SIZES = {Family.IPV4: (84, 112), Family.IPV6: (136, 168)}
"""The size of the header, and of an entry before its first match."""


def entry(family: Family, header: bytes, packets: int, rest: bytes = b"target..") -> bytes:
    """Return one entry that has met so many packets, of 100 bytes each."""
    size, whole = SIZES[family]
    fixed = header.ljust(size, b"\0") + struct.pack("=IHHI", 0, whole, whole + len(rest), 0)
    counters = struct.pack("=QQ", packets, packets * 100)
    return fixed.ljust(whole - len(counters), b"\0") + counters + rest


@pytest.mark.parametrize("family", Family)
def test_counters_make_no_difference_and_everything_else_does(family: Family) -> None:
    """Of each entry; the hooks count too."""
    quiet = entry(family, b"one", 0) + entry(family, b"two", 0, b"another target..")
    busy = entry(family, b"one", 1 << 40) + entry(family, b"two", 7, b"another target..")
    found = Bytes.of(family, b"hooks", busy)
    assert found.are(b"hooks", busy)
    assert found.are(b"hooks", quiet)
    assert not found.are(b"other hooks", quiet)
    counters = {
        start + SIZES[family][1] - 16 + byte
        for start in (0, len(entry(family, b"one", 0)))
        for byte in range(16)
    }
    for position in range(len(quiet)):
        changed = bytearray(quiet)
        changed[position] ^= 1
        assert found.are(b"hooks", bytes(changed)) == (position in counters), position


@pytest.mark.parametrize("family", Family)
def test_a_rule_more_or_less_is_a_difference(family: Family) -> None:
    """In front, behind, or in the other order."""
    one, two = entry(family, b"one", 3), entry(family, b"two", 3)
    found = Bytes.of(family, b"", one + two)
    for other in (one, two + one, one + two + two, one + one + two, b""):
        assert not found.are(b"", other)


def test_an_empty_table_has_no_entries() -> None:
    """Not even those of its policies; the kernel has no such table."""
    assert Bytes.of(Family.IPV4, b"", b"").are(b"", b"")


@pytest.mark.parametrize("size", [0, 111, 200])
def test_entries_without_end_are_an_error(size: int) -> None:
    """An entry smaller than it can be, or longer than what is left."""
    blob = bytearray(entry(Family.IPV4, b"one", 0))
    blob[90:92] = struct.pack("=H", size)
    with pytest.raises(ValueError, match="an entry without end"):
        Bytes.of(Family.IPV4, b"", bytes(blob) + bytes(8))
