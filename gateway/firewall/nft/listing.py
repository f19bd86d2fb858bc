"""How nft lists a table, read and compared; no kernel, no program."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

_DORMANT = "flags dormant"
_REFUSING = re.compile(
    r"(?:(?:meta nfproto ipv|ip)([46]?) .*\b)?counter packets (\d+) bytes \d+ (?:drop|reject)\b"
)
_COUNTS = re.compile(r"(counter) (?:packets|pkts) \d+ bytes \d+")


HEAD = 2
"""The lines of a base chain that say where it is: its name, and its hook with the policy."""


@dataclass(frozen=True)
class Listing:
    """A table as `nft --debug=netlink list table` shows it, counts and handles left out.

    `words` are the lines of each block between the table's braces by the block's first line
    (`chain input`); the lines outside any block stand under "". `code` is what the kernel
    executes, rule by rule, by the name of the chain. The order of chains means nothing: it is the
    order in which they were made.
    """

    words: dict[str, tuple[str, ...]]
    code: dict[str, tuple[str, ...]]


def listing_of(listing: str, table: str) -> Listing:
    """Read the listing of `table`."""
    before, _, inside = _COUNTS.sub(r"\1", listing).partition(f"table {table} {{")
    return Listing(words_of(inside), code_of(before, table))


def code_of(listing: str, table: str) -> dict[str, tuple[str, ...]]:
    """Read the instructions of each chain of `table`, a line before those of each rule.

    That line is the chain's, with handles in what the kernel holds, without in what it is given.
    """
    code: dict[str, tuple[str, ...]] = {}
    chain = ""
    for line in _COUNTS.sub(r"\1", listing).splitlines():
        if where := re.fullmatch(rf"{re.escape(table)} (\S+)[ \d]*", line.rstrip()):
            chain = where[1]
            code[chain] = (*code.get(chain, ()), "rule")
        elif line.startswith(" "):
            code[chain] = (*code.get(chain, ()), line.strip())
    return code


def words_of(inside: str) -> dict[str, tuple[str, ...]]:
    """Read what is between the braces of a table, in a listing or in the text for it."""
    words: dict[str, tuple[str, ...]] = {}
    block = ""
    for line in filter(None, map(str.strip, inside.splitlines())):
        if line.endswith("{") and not block:
            block = line.removesuffix("{").strip()
            words[block] = (f"{block} {{",)
        elif line == "}":
            block = ""
        else:
            words[block] = (*words.get(block, ()), line)
    return words


def refused(listing: str) -> dict[tuple[str, str], int]:
    """Return the packets that refusing rules have met, by family and chain.

    A rule for addresses is listed without the family, which they imply. One for everything has
    the family `any`.
    """
    found: dict[tuple[str, str], int] = {}
    chain = ""
    for line in map(str.strip, listing.splitlines()):
        if line.startswith("chain ") and line.endswith("{"):
            chain = line.split()[1]
        elif counted := _REFUSING.match(line.partition(' comment "')[0]):
            where = "any" if counted[1] is None else f"ipv{counted[1] or 4}", chain
            found[where] = found.get(where, 0) + int(counted[2])
    return found


def compare(wanted: Listing, held: Listing) -> Iterator[str]:
    """Yield each difference; the dormant flag is the twin's own and wanted nowhere."""
    words = {**wanted.words, "": tuple(w for w in wanted.words.get("", ()) if w != _DORMANT)}
    same_words = True
    for block in dict.fromkeys((*words, *held.words)):
        for line in _changes(words.get(block, ()), held.words.get(block, ())):
            same_words = False
            yield f"{block}: {line}" if block else line
    if same_words and wanted.code != held.code:
        yield "the rules read as wanted, but the kernel executes something else"


def _changes(wanted: tuple[str, ...], held: tuple[str, ...]) -> Iterator[str]:
    """Yield which lines are missing and which are there that should not be, in their order."""
    matcher = SequenceMatcher(a=wanted, b=held, autojunk=False)
    for tag, first, last, held_first, held_last in matcher.get_opcodes():
        if tag != "equal":
            yield from (f"missing: {line}" for line in wanted[first:last])
            yield from (f"not ours: {line}" for line in held[held_first:held_last])
