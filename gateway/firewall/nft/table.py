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

import errno
import re
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from gateway.errors import FirewallError, MissingError, NetworkError, ProcessError, is_shortage
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
from gateway.firewall.nft.render import replacement, transaction
from gateway.system import applied, process
from gateway.system.netlink import Netlink, attributes_in
from gateway.system.netns import OWN, Netns

TIMEOUT = 10.0
"""Seconds that one call of nft may take; it takes 5 to 25 ms."""

NETLINK_NETFILTER = 12
GET_GENERATION = 10 << 8 | 16
"""NFT_MSG_GETGEN of the subsystem NFNL_SUBSYS_NFTABLES (linux/netfilter/nfnetlink.h)."""
NFTA_GEN_ID = 1
GENERATION_ID = struct.Struct("!I")
"""The number of the last change, from NFT_MSG_NEWGEN (linux/netfilter/nf_tables.h)."""
NFGENMSG_LENGTH = 4
"""The length of struct nfgenmsg, all zero here: no family, version 0, no resource."""

NOT_THERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT} | {
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
}
"""What kernels answer that lack nftables (nfnetlink_rcv_msg), or nfnetlink altogether (socket)."""

REMEMBERED = 8
"""How many bodies are remembered; a gateway goes to and fro between a few."""


class Run(Protocol):
    """How a program is run: `gateway.system.process.run`, or a stand-in of a test."""

    def __call__(self, argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        """Return what the program printed. Raises MissingError or ProcessError."""


class Nft:
    """The program nft, run in `netns`."""

    def __init__(
        self,
        run: Run | None = None,
        twin: str = "wanted",
        netns: Netns = OWN,
        generation: Callable[[], int | None] | None = None,
    ) -> None:
        """`twin` ends the names of dormant twins: two processes that compare need two.

        A stand-in for the program needs one for `generation` too, or it is not known.
        """
        self._run: Run = run or partial(process.run, netns=netns)
        self.generation = generation or (partial(_generation, netns) if run is None else _unknown)
        self.twin = twin
        self.netns = netns

    def load(self, text: str) -> None:
        """Put `text` into the kernel in one transaction. Raises FirewallError: nothing changed."""
        self._call("loading a table", "-f", "-", stdin=text)
        applied.show(lambda: ["nft -f -"], stdin=text)

    def is_in_kernel(self) -> bool:
        """Return whether the kernel has nftables, asked without the program.

        Raises MissingError when it may not be asked, which takes CAP_NET_ADMIN, and FirewallError
        when it does not answer. Source: NFT_MSG_GETGEN of linux/netfilter/nf_tables.h.
        """
        netlink = Netlink(self.netns, NETLINK_NETFILTER, FirewallError)
        try:
            netlink.send("asking for nftables", "", bytes(NFGENMSG_LENGTH), GET_GENERATION)
        except FirewallError as err:
            if err.errno in {errno.EPERM, errno.EACCES}:
                raise MissingError(
                    "the capability NET_ADMIN", "give the container `cap_add: [NET_ADMIN]`"
                ) from err
            if err.errno in NOT_THERE:
                return False
            raise
        return True

    def accepts(self, text: str) -> bool:
        """Ask the kernel whether it would take `text`, without changing anything.

        Raises MissingError when the program nft is not there, and FirewallError when it could not
        ask.
        """
        try:
            self._run(("nft", "-c", "-f", "-"), stdin=text, timeout=TIMEOUT)
        except ProcessError as err:
            if is_shortage(err):
                raise _unmarked("asking for a feature", err) from None
            return False
        return True

    def instructions(self, text: str) -> str:
        """Return the instructions that nft makes of `text`; nothing is changed."""
        return self._call("reading", "-c", "--debug=netlink", "-f", "-", stdin=text)

    def listing(self, table: str) -> str:
        """Return `table` as the kernel holds it: its instructions, then the words for them."""
        return self._call("reading", "--debug=netlink", "list", "table", *table.split())

    def has(self, table: str) -> bool:
        """Return whether there is such a table in this network namespace."""
        return f"table {table}" in self._call("reading", "list", "tables").splitlines()

    def _call(self, what: str, *arguments: str, stdin: str | None = None) -> str:
        try:
            return self._run(("nft", *arguments), stdin=stdin, timeout=TIMEOUT)
        except (MissingError, ProcessError) as err:
            raise _unmarked(what, err) from None


def _unknown() -> None:
    """Return that it is not known whether a table has changed."""


def _generation(netns: Netns) -> int | None:
    """Return the number of the last change of any table in `netns`, None if not known.

    The kernel counts every transaction (net/netfilter/nf_tables_api.c, nf_tables_commit).
    """
    netlink = Netlink(netns, NETLINK_NETFILTER, FirewallError)
    body = bytes(NFGENMSG_LENGTH)
    with suppress(FirewallError, NetworkError):
        for answer in netlink.send("asking for the last change", "", body, GET_GENERATION):
            value = attributes_in(answer, NFGENMSG_LENGTH).get(NFTA_GEN_ID, b"")
            if len(value) == GENERATION_ID.size:
                number: int = GENERATION_ID.unpack(value)[0]
                return number
    return None


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
            self._nft.load(transaction(self.table, body))
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
            text = transaction(self.table, body)
            _remember(self._asked, body, code_of(self._nft.instructions(text), self.table))
        return self._asked[body]

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


def _unmarked(what: str, error: MissingError | ProcessError) -> FirewallError:
    number = error.errno if isinstance(error, ProcessError) else None
    return FirewallError(what, without_marks(str(error)), number)


def without_marks(message: str) -> str:
    """Return `message` without the values of marks: the egress guard's is a secret.

    A reader of logs or health could otherwise send what the guard lets pass. It is also why
    errors of nft, which quote the rules, are not kept as the cause of ours.
    """
    return _MARK.sub(r"\1 (a mark)", message)


_MARK = re.compile(r"\b(mark(?: set)?) 0x[0-9a-fA-F]+")
