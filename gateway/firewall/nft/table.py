"""One table of nftables, held through the program nft: put, read back, compared.

How to compare? What nft lists is neither what it was given (`51820` comes back `0xca6c`) nor all
that the kernel executes: `meta nfproto ipv6 meta l4proto ipv6-icmp` is listed without its first
half, and the JSON form leaves out the device of a netdev chain. So the instructions are compared
that the kernel executes: those that nft makes of the text that is wanted (`--check
--debug=netlink`) with those that it reads back. Where they are the same, and the chains are on
their hooks, all is well.

Where they are not, something has changed, or this version of nft shows the two in different ways.
Then the table that is wanted is shown to the kernel as well, under a name of its own and dormant,
which means that no packet meets it; both are listed, and the difference of the two listings is
the answer. The dormant twin is removed at once and its listing remembered.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from gateway.errors import FirewallError
from gateway.firewall import brief
from gateway.firewall.nft.listing import (
    Listing,
    code_of,
    compare,
    heads_of,
    listing_of,
    refused,
    words_of,
)
from gateway.firewall.nft.program import Nft, without_marks
from gateway.firewall.nft.render import replacement, transaction

REMEMBERED = 8
"""How many bodies are remembered; a gateway goes to and fro between a few."""


class HeldTable:
    """A table of the kernel that is ours alone: `family name`, as nft writes it."""

    def __init__(self, table: str, nft: Nft) -> None:
        self.table = table
        self._twin = f"{table}_{nft.twin}"
        self._nft = nft
        self._asked: dict[str, Mapping[str, tuple[str, ...]]] = {}
        self._wanted: dict[str, Listing] = {}
        self._found: tuple[str, int] | None = None

    def put(self, body: str) -> None:
        """Fill the table with `body` in place of what it holds, in one step, and read it back.

        Raises FirewallError; the kernel then holds the former rules, or `body`, or has been
        changed by another program meanwhile.
        """
        self.put_unread(body)
        generation = self._nft.generation()
        held = self._held()
        if foreign := held.words.keys() - words_of(body).keys() - {""}:
            self._nft.load("".join(f"delete {_named(it, self.table)}\n" for it in sorted(foreign)))
            generation = self._nft.generation()
            held = self._held()
        if problems := "; ".join(self._compared_with(body, held)):
            raise FirewallError(f"table {self.table} is not what was put", problems)
        self._remember(body, generation)

    def put_unread(self, body: str) -> None:
        """Fill the table with `body`, as `put` does, but without reading it back."""
        self.forget()
        try:
            self._ask(body, self._nft.load)
        except FirewallError:
            # Another program has replaced a chain of ours, for another hook or without any.
            self._nft.load(replacement(self.table, body))

    def differences(self, body: str) -> tuple[str, ...]:
        """Compare the kernel's table with `body`: one line for each difference.

        Where there was none, and no table has changed since, nothing is read. Raises FirewallError
        when the kernel cannot be read.
        """
        # Asked first: a change meanwhile has a later number, and is found the next time.
        generation = self._nft.generation()
        if generation is not None and self._found == (body, generation):
            return ()
        self.forget()
        try:
            held = self._held()
        except FirewallError:
            if self._nft.has(self.table):
                raise
            return (f"table {self.table} is not there",)
        found = self._compared_with(body, held)
        if not found:
            self._remember(body, generation)
        return found

    def _remember(self, body: str, generation: int | None) -> None:
        """Remember that the table was `body` after the change with this number."""
        self._found = None if generation is None else (body, generation)

    def forget(self) -> None:
        """Let the next comparison read the table, whatever it was found to be."""
        self._found = None

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the packets that refusing rules have met, by family and chain."""
        return refused(self._nft.listing(self.table))

    def held(self, chain: str) -> tuple[str, ...]:
        """Return the rules in `chain` as nft lists them. Raises FirewallError."""
        return self._held().words.get(f"chain {chain}", ())

    def remove(self) -> None:
        """Remove the table, which need not be there. Raises FirewallError."""
        self._nft.load(f"add table {self.table}\ndelete table {self.table}\n")

    def _held(self) -> Listing:
        return listing_of(self._nft.listing(self.table), self.table)

    def _compared_with(self, body: str, held: Listing) -> tuple[str, ...]:
        """Return what is different in the kernel's table from `body`."""
        asked, places = self._instructions_of(body), words_of(body)
        sets = {f"@{block.removeprefix('set ')}" for block in places if block.startswith("set ")}
        are_read = all(held.code.get(name) for name in sets)
        if are_read and held.code == asked and heads_of(places) == heads_of(held.words):
            return ()
        return brief([*map(without_marks, compare(self._listing_of(body), held))])

    def _instructions_of(self, body: str) -> Mapping[str, tuple[str, ...]]:
        if body not in self._asked:
            self._ask(body, self._nft.instructions)
        return self._asked[body]

    def _ask(self, body: str, nft: Callable[[str], str]) -> None:
        """Have `nft` make instructions of `body`, and remember them."""
        instructions = nft(transaction(self.table, body))
        if body not in self._asked:
            _remember(self._asked, body, code_of(instructions, self.table))

    def _listing_of(self, body: str) -> Listing:
        """Return how the kernel lists `body`, by means of the dormant twin."""
        if body not in self._wanted:
            self._nft.load(replacement(self._twin, f"\tflags dormant;\n{body}"))
            try:
                listing = listing_of(self._nft.listing(self._twin), self._twin)
            finally:
                self._nft.load(f"delete table {self._twin}\n")
            _remember(self._wanted, body, listing)
        return self._wanted[body]


T = TypeVar("T")


def _remember(known: dict[str, T], body: str, value: T) -> None:
    """Keep `value` for `body`, and forget the oldest one for it if there are many."""
    if len(known) == REMEMBERED:
        del known[next(iter(known))]
    known[body] = value


def _named(block: str, table: str) -> str:
    """Return the words that name a listed block (`chain output`) of `table`."""
    kind, name = block.split()
    return f"{kind} {table} {name}"
