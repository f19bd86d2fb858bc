"""The program nft: what it is asked, and that it can be asked at all.

Its errors quote rules, so marks are taken out of what is reported.
"""

import errno
import re
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway.errors import FirewallError, MissingError, NetworkError, ProcessError, is_shortage
from gateway.system import applied, process
from gateway.system.netlink import ATTRIBUTE, Netlink, attributes_in
from gateway.system.netns import OWN, Netns
from gateway.system.questions import Questions

BY_LIBRARY = Path(__file__).with_name("by_library.py")
"""The stand-in for nft that uses a netlink socket which it is given."""

TIMEOUT = 10.0
"""Seconds that one call of nft may take; it takes 5 to 25 ms."""

NETLINK_NETFILTER = 12
GET_GENERATION = 10 << 8 | 16
"""NFT_MSG_GETGEN of the subsystem NFNL_SUBSYS_NFTABLES (linux/netfilter/nfnetlink.h)."""
GET_TABLE = 10 << 8 | 1
NFTA_TABLE_NAME = 1
FAMILIES = {"inet": 1, "netdev": 5}
"""NFT_MSG_GETTABLE with NFTA_TABLE_NAME, and NFPROTO_* of linux/netfilter.h."""
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
        self._is_real = run is None
        self._run: Run = run or _run_in(netns)
        questions = Questions(netns, NETLINK_NETFILTER, FirewallError)
        ask = partial(_generation, questions) if run is None else _unknown
        self.generation: Callable[[], int | None] = generation or ask
        self.twin = twin
        self.netns = netns

    def load(self, text: str) -> str:
        """Put `text` into the kernel in one transaction, and return the instructions for it.

        Raises FirewallError: nothing changed.
        """
        instructions = self._call("loading a table", "--debug=netlink", "-f", "-", stdin=text)
        applied.show(lambda: ["nft -f -"], stdin=text)
        return instructions

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

    def surely_lacks(self, table: str) -> bool:
        """Return whether the kernel reports `table` as absent, without running nft.

        Source: NFT_MSG_GETTABLE of linux/netfilter/nf_tables.h. A stand-in is not asked.
        """
        family, name = table.split()
        value = name.encode() + b"\0"
        head = ATTRIBUTE.pack(ATTRIBUTE.size + len(value), NFTA_TABLE_NAME)
        body = bytes([FAMILIES[family], 0, 0, 0]) + head + value + bytes(-len(value) % 4)
        netlink = Netlink(self.netns, NETLINK_NETFILTER, FirewallError)
        try:
            if self._is_real:
                netlink.send("looking for a table", table, body, GET_TABLE)
        except FirewallError as err:
            return err.errno == errno.ENOENT
        return False

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

    def ruleset(self) -> str:
        """Return the tables of all programs in this namespace, as nft writes them."""
        return self._call("reading", "list", "ruleset")

    def has(self, table: str) -> bool:
        """Return whether there is such a table in this network namespace."""
        return f"table {table}" in self._call("reading", "list", "tables").splitlines()

    def _call(self, what: str, *arguments: str, stdin: str | None = None) -> str:
        try:
            return self._run(("nft", *arguments), stdin=stdin, timeout=TIMEOUT)
        except (MissingError, ProcessError) as err:
            raise _unmarked(what, err) from None


def _run_in(netns: Netns) -> Run:
    """Return what runs nft in `netns`: the program, or a stand-in where it cannot be entered."""
    if netns.can_be_entered:
        return partial(process.run, netns=netns)

    def run(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        try:
            channel = netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        except OSError as err:
            raise ProcessError(
                argv[0], f"no netlink socket: {err.strerror}", "", err.errno
            ) from err
        with channel:
            given = channel.fileno()
            program = (sys.executable, "-I", "-S", str(BY_LIBRARY), str(given), *argv[1:])
            return process.run(program, stdin=stdin, timeout=timeout, descriptors=(given,))

    return run


def _unknown() -> None:
    """Return that it is not known whether a table has changed."""


def _generation(questions: Questions) -> int | None:
    """Return the number of the last change of any table, None if not known.

    The kernel counts every transaction (net/netfilter/nf_tables_api.c, nf_tables_commit).
    """
    body = bytes(NFGENMSG_LENGTH)
    with suppress(FirewallError, NetworkError):
        answer = questions.ask("asking for the last change", "", body, GET_GENERATION)
        value = attributes_in(answer, NFGENMSG_LENGTH).get(NFTA_GEN_ID, b"")
        if len(value) == GENERATION_ID.size:
            number: int = GENERATION_ID.unpack(value)[0]
            return number
    return None


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
