"""How nft lists a table, read and compared; no kernel, no program."""

import re
from collections.abc import Iterator, Mapping

from gateway.model.frozen import frozen

_DORMANT = "flags dormant"
_REFUSING = re.compile(
    r"(?:.*?\b(?:meta nfproto ipv|ip)([46]?) .*\b)?"
    r"counter packets (\d+) bytes \d+ (?:drop|reject)\b"
)
_COUNTS = re.compile(r"(counter) (?:packets|pkts) \d+ bytes \d+")
_NO_FLAGS = re.compile(r"(\[ lookup .*) 0x0 \]")
"""A look-up in a set as it is read back; in what nft makes of a text it has no flags."""

_ELEMENTS = "elements = {"

HEAD = {"chain": 2, "set": 3}
"""The lines of a block that say what it is: of a base chain its name, and its hook with the policy;
of a set its name, type and flags."""


@frozen
class Listing:
    """A table as `nft --debug=netlink list table` shows it, counts and handles left out.

    `words` are the lines of each block between the table's braces by the block's first line
    (`chain input`); the lines outside any block stand under "". `code` is what the kernel
    executes, rule by rule, by the name of the chain, and the elements of each set by `@` and the
    set's name. The order of chains and sets means nothing: it is the order in which they were made.
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
    Elements of a set are listed in either order, one or many in a line; here they are sorted. Those
    of an interval set are the first number of each interval, and the first behind it (`1 [end]`).
    """
    name = table.partition(" ")[2]
    heads = re.compile(rf"{re.escape(table)} (\S+)[ \d]*|(\S+) {re.escape(name)} 0")
    code: dict[str, list[str]] = {}
    found: list[str] = []
    for line in _COUNTS.sub(r"\1", listing).splitlines():
        if line.startswith(" "):
            found.append(_NO_FLAGS.sub(r"\1 ]", line.strip()))
        elif line.startswith("\t"):
            found += (element.strip() for element in line.split("element ")[1:])
        elif where := heads.fullmatch(line.rstrip()):
            found = code.setdefault(where[1] or f"@{where[2]}", [])
            if where[1] and not where[1].startswith("@"):
                found.append("rule")
    return {at: tuple(sorted(said) if at[0] == "@" else said) for at, said in code.items()}


def words_of(inside: str) -> dict[str, tuple[str, ...]]:
    """Read what is between the braces of a table, in a listing or in the text for it.

    Each element of a set is a line, so that a difference names one element.
    """
    words: dict[str, list[str]] = {}
    block = elements = ""
    for line in filter(None, map(str.strip, inside.splitlines())):
        if line.endswith("{") and not block:
            block = line.removesuffix("{").strip()
            words[block] = [f"{block} {{"]
        elif elements or line.startswith(_ELEMENTS):
            elements += line
            if line.endswith("}"):
                listed = elements.removeprefix(_ELEMENTS).removesuffix("}").split(",")
                words.setdefault(block, []).extend(f"element {it.strip()}" for it in listed)
                elements = ""
        elif line == "}":
            block = ""
        else:
            words.setdefault(block, []).append(line)
    return {block: tuple(lines) for block, lines in words.items()}


def heads_of(words: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the lines that say where each chain is and of which type and flags each set."""
    return {
        block: lines[: HEAD.get(block.partition(" ")[0], len(lines))]
        for block, lines in words.items()
    }


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
    from difflib import SequenceMatcher  # noqa: PLC0415 - large, and seldom needed

    matcher = SequenceMatcher(a=wanted, b=held, autojunk=False)
    for tag, first, last, held_first, held_last in matcher.get_opcodes():
        if tag != "equal":
            yield from (f"missing: {line}" for line in wanted[first:last])
            yield from (f"not ours: {line}" for line in held[held_first:held_last])
