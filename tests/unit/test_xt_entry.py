"""Rules as bytes: what counts when two of them are compared."""

import struct
from dataclasses import replace

import pytest

from gateway.firewall.xtables.entry import (
    ENTRY_SIZE,
    HEADER_SIZE,
    Entry,
    Part,
    differences,
    entry_of,
    is_standard,
)
from gateway.policy.rules import Family

SIZES = {("mark", 1): 4}


def part(name: str, parameters: bytes, revision: int = 1) -> bytes:
    """Return a match or target as the kernel lays it out."""
    return struct.pack("=H29sB", 32 + len(parameters), name.encode(), revision) + parameters


def entry(family: Family, header: bytes, matches: bytes, target: bytes, counter: int = 0) -> bytes:
    """Return an entry as the kernel lays it out."""
    size = ENTRY_SIZE[family]
    start = header.ljust(HEADER_SIZE[family], b"\0")
    offsets = struct.pack("=IHH", 0, size + len(matches), size + len(matches) + len(target))
    counters = struct.pack("=QQ", counter, counter)
    padding = bytes(size - len(start) - len(offsets) - len(counters))
    return start + offsets + padding + counters + matches + target


@pytest.mark.parametrize("family", Family)
def test_addresses_matches_and_target_come_apart(family: Family) -> None:
    """Counters do not count, nor what the kernel keeps behind the parameters."""
    mark = part("mark", b"\1\2\3\4kernel's")
    blob = entry(family, b"10.", mark, part("MARK", b"abcd"), counter=77)
    assert entry_of(family, blob, "", SIZES) == Entry(
        b"10.".ljust(HEADER_SIZE[family], b"\0"),
        (Part("mark", "", 1, b"\1\2\3\4"), Part("MARK", "", 1, b"abcd")),
    )
    assert not is_standard(family, blob)


@pytest.mark.parametrize("family", Family)
def test_a_verdict_is_known_by_what_it_says(family: Family) -> None:
    """The kernel writes a number where the library writes a name, and leaves rests of the name."""
    blob = entry(family, b"", b"", part("\0CCEPT", b"\xfe\xff\xff\xff" + bytes(4), 0))
    assert is_standard(family, blob)
    assert entry_of(family, blob, "ACCEPT", {}).parts == (Part("", "ACCEPT"),)


ONE = Entry(b"1", (Part("", "ACCEPT"),))
TWO = Entry(b"2", (Part("", "DROP"),))
WANTED = [("one", ONE), ("two", TWO)]

HELD: dict[str, tuple[list[Entry], list[str]]] = {
    "the same": ([ONE, TWO], []),
    "none": ([], ["c: missing one", "c: missing two"]),
    "one missing": ([TWO], ["c: missing one"]),
    "one twice": ([ONE, ONE, TWO], ["c: rule 1 is foreign (-j ACCEPT)"]),
    "another order": ([TWO, ONE], ["c: the rules are out of order"]),
    "another parameter": (
        [ONE, replace(TWO, parts=(Part("MARK", "", 2, b"x"),))],
        ["c: missing two", "c: rule 2 is foreign (-j MARK)"],
    ),
}


@pytest.mark.parametrize("what", HELD)
def test_each_difference_is_one_line(what: str) -> None:
    """Missing rules by their text, foreign ones by position and target."""
    held, lines = HELD[what]
    assert list(differences("c", WANTED, held)) == lines


def test_a_rule_that_is_wanted_twice_is_missing_twice() -> None:
    """Each with its own text."""
    wanted = [("one", ONE), ("again", ONE)]
    assert list(differences("c", wanted, [])) == ["c: missing one", "c: missing again"]
    assert list(differences("c", wanted, [ONE])) == ["c: missing one"]
    foreign = ["c: rule 1 is foreign (-j ACCEPT)", "c: rule 2 is foreign (-j ACCEPT)"]
    assert list(differences("c", [], [ONE, ONE])) == foreign
