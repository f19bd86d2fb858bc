"""The bytes of a legacy table, less its counters."""

import struct

import pytest

from gateway.firewall.xtables.raw import INFO, Bytes, RawChain, chains_in
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


def target(family: Family, name: bytes, rest: bytes) -> bytes:
    """Return an entry without conditions and with this target."""
    return entry(family, b"", 0, struct.pack("=H29sB", 32 + len(rest), name, 0) + rest)


def verdict(family: Family, number: int) -> bytes:
    """Return an entry with a standard target."""
    return target(family, b"", struct.pack("=i4x", number))


def table(
    family: Family, *entries: bytes, begin: int = 0, end: int | None = None
) -> list[RawChain]:
    """Take a table apart that has these entries between the hook of OUTPUT and the end."""
    blob = b"".join((*entries, target(family, b"ERROR", b"ERROR".ljust(32, b"\0"))))
    end = sum(map(len, entries[:-1])) if end is None else end
    places = (0, 0, 0, begin, 0, 0, 0, 0, end, 0)
    return chains_in(family, INFO.pack(b"t", 8, *places, len(entries) + 1, len(blob)), blob)


@pytest.mark.parametrize("family", Family)
def test_a_table_is_taken_apart_into_its_chains(family: Family) -> None:
    """Each with its policy; a jump has the name of the chain that it leads to."""
    policy, back = verdict(family, -1), verdict(family, -5)
    head = target(family, b"ERROR", b"other".ljust(32, b"\0"))
    accept = verdict(family, -2)
    jump = verdict(family, 4 * len(policy) + len(head))
    reject = target(family, b"REJECT", bytes(8))
    onward = verdict(family, 3 * len(policy))
    entries = (jump, reject, onward, policy, head, accept, back)
    assert len({len(it) for it in (jump, reject, onward, policy)}) == 1, "control: the sum is right"
    rules = ((jump, "other"), (reject, ""), (onward, "CONTINUE"))
    assert table(family, *entries, end=3 * len(policy)) == [
        RawChain("OUTPUT", "DROP", rules),
        RawChain("other", "RETURN", ((accept, "ACCEPT"),)),
    ]


@pytest.mark.parametrize("family", Family)
def test_a_table_that_libiptc_would_not_make_is_an_error(family: Family) -> None:
    """None of its rules may be overlooked."""
    policy, accept = verdict(family, -1), verdict(family, -2)
    for entries, begin, end in (
        ((), 0, None),  # nothing where the hook begins
        ((verdict(family, 12), policy), 0, None),  # a jump into an entry
        ((policy, accept), 0, 0),  # more behind the policy
        ((target(family, b"REJECT", bytes(8)),), 0, 0),  # no policy
        ((entry(family, b"condition", 0, policy[-40:]),), 0, 0),
        ((entry(family, b"", 0, b"short"), policy), 0, None),
    ):
        with pytest.raises(ValueError, match=r"^(an?|the) "):
            table(family, *entries, begin=begin, end=end)
    size = len(policy)
    same = INFO.pack(b"t", 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, size)
    with pytest.raises(ValueError, match="two hooks"):
        chains_in(family, same, policy + target(family, b"ERROR", bytes(32)))
    with pytest.raises(ValueError, match="does not end"):
        chains_in(family, INFO.pack(b"t", 8, *[0] * 10, 1, size), policy)
