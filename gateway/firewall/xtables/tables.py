"""One legacy table of iptables or ip6tables: built, committed whole, read back and compared.

Rules are compared by the bytes that the kernel holds. A table is changed as a whole and committed
once. How that is done through python-iptables is in `library`.
"""

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from gateway.errors import FirewallError, MissingError
from gateway.firewall.xtables.building import SIZES, Built, built_of
from gateway.firewall.xtables.chains import Line, Lines
from gateway.firewall.xtables.entry import (
    Entry,
    differences,
    entry_of,
    is_standard,
    packets,
)
from gateway.firewall.xtables.library import (
    PROGRAM,
    opened,
    translated,
)
from gateway.firewall.xtables.raw import Bytes, RawTable
from gateway.firewall.xtables.render import (
    POLICIES,
    TABLES,
    Kernel,
    table_of,
)
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.system.features import missing_capabilities
from gateway.system.netns import Netns

REMEMBERED = 4
"""Rulesets whose lines are remembered: of each state, and between two of them."""

COMMIT_ATTEMPTS = 10
"""How often a table is built again because another program changed it before our commit."""

Chains = dict[str, tuple[Built, ...]]
"""The lines of each chain, the built-in ones first."""


@dataclass(frozen=True)
class _Known:
    """A ruleset with its lines, and what was built of them."""

    ruleset: Ruleset
    kernel: Kernel
    lines: Lines
    chains: Chains


class Table:
    """One table of one family in `netns`. `name` is that of the kernel."""

    def __init__(
        self, family: Family, name: str, kernel: Callable[[Family], Kernel], netns: Netns
    ) -> None:
        self._netns = netns
        self.family = family
        self.name = name
        self._kernel = kernel
        self._known: list[_Known] = []
        self._raw = RawTable(family, name, netns)
        self._found: tuple[Chains, Bytes] | None = None
        self._where = f"{PROGRAM[family]} {name}"

    def build(self, ruleset: Ruleset) -> Chains:
        """Make the lines that `ruleset` has for this table, without touching the kernel's.

        Those of the last few rulesets are remembered.
        """
        kernel = self._kernel(self.family)
        for known in self._known:
            if known.kernel == kernel and (known.ruleset is ruleset or known.ruleset == ruleset):
                return known.chains
        with translated(f"building rules for {self._where}"):
            lines = table_of(ruleset, self.family, self.name, kernel)
            chains = {name: self._built(name, lines[name]) for name in lines}
        self._known = [_Known(ruleset, kernel, lines, chains), *self._known[: REMEMBERED - 1]]
        return chains

    def _built(self, name: str, lines: tuple[Line, ...]) -> tuple[Built, ...]:
        """Make the lines of one chain, unless they are the very same as before: those of a tree."""
        for known in self._known:
            if known.lines.get(name) is lines:
                return known.chains[name]
        return tuple(built_of(name, line, self.family) for line in lines)

    def differences(self, chains: Chains) -> list[str]:
        """Read the table and return a line for each thing that is not as `chains` says.

        Where nothing was, and the table still has the same bytes, nothing is.
        """
        if self._found is not None and self._found[0] is chains and self._has(self._found[1]):
            return []
        # Read first: a change meanwhile is one of these bytes, and is found the next time.
        self._found = None
        with suppress(OSError, ValueError):
            self._found = chains, self._raw.bytes()
        lines = [line for lines in self._compared(chains).values() for line in lines]
        if lines:
            self._found = None
        return lines

    def _has(self, found: Bytes) -> bool:
        """Return whether the table has these bytes; False where it cannot be read."""
        try:
            return found.are(*self._raw.read())
        except OSError:
            self._raw.close()
            return False

    def changed(self, chains: Chains) -> frozenset[Chain]:
        """Read the table and return the chains of the gateway that are not as `chains` says.

        A chain that is not the gateway's may do to a packet what any of them does, so a change
        there counts as one of all.
        """
        ours = {chain.hook: chain for chain in Chain if chain.table == self.name}
        changed = {hook_of(name) for name, lines in self._compared(chains).items() if lines}
        return frozenset(ours[name] for name in (changed if changed <= ours.keys() else ours))

    def _compared(self, chains: Chains) -> dict[str, list[str]]:
        """Return the differences of each chain in the kernel.

        A chain that is not there is one: the line that leads to it is missing.
        """
        compared: dict[str, list[str]] = {}
        with self._opened() as kernel:
            for chain in kernel.chains:
                where = f"{self._where} {chain.name}"
                if chain.name not in chains:
                    compared[chain.name] = [f"{where}: foreign chain"]
                    continue
                wanted = chains[chain.name]
                held = list(self._held(kernel, chain.name))
                lines: list[str] = []
                compared[chain.name] = lines
                if [built.entry for built in wanted] != held:
                    lines += differences(where, [(it.text, it.entry) for it in wanted], held)
                if chain.name in TABLES[self.name]:
                    policy = kernel.get_policy(chain.name)[0].name
                    if policy != POLICIES[self.name]:
                        lines.append(f"{where}: the policy is {policy}")
        return compared

    def _held(self, kernel: Any, chain: str) -> Iterator[Entry]:
        for blob, verdict in self._entries(kernel, chain):
            yield entry_of(self.family, blob, verdict, SIZES)

    def _entries(self, kernel: Any, chain: str) -> Iterator[tuple[bytes, str]]:
        """Yield each rule's bytes and the verdict of its target, empty for an extension."""
        entry = kernel.first_rule(chain)
        while entry:
            blob = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
            verdict = ""
            if is_standard(self.family, blob):
                verdict = (kernel.get_target(entry) or b"CONTINUE").decode()
            yield blob, verdict
            entry = kernel.next_rule(entry)

    def held(self, chain: Chain) -> list[Entry]:
        """Return the rules that the kernel has in `chain`. Raises FirewallError."""
        with self._opened() as kernel:
            return list(self._held(kernel, chain.hook))

    def refused(self) -> dict[str, int]:
        """Return the packets that each built-in chain has refused, and those that it leads to."""
        counted = dict.fromkeys(TABLES[self.name], 0)
        with self._opened() as kernel:
            for chain in kernel.chains:
                hook = hook_of(chain.name)
                for blob, verdict in self._entries(kernel, chain.name):
                    if hook in counted and verdict in {"", "DROP"}:
                        counted[hook] += packets(self.family, blob)
        return counted

    def commit(self, chains: Chains) -> None:
        """Replace everything in the table by `chains`, in one step of the kernel."""
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            try:
                with self._opened() as kernel:
                    kernel.flush()
                    for hook in TABLES[self.name]:
                        kernel.set_policy(hook, POLICIES[self.name])
                    for name in chains.keys() - set(TABLES[self.name]):
                        kernel.create_chain(name)
                    for name, lines in chains.items():
                        for built in lines:
                            kernel.append_entry(name, built.blob)
                    kernel.commit()
            except FirewallError as error:
                if error.errno != errno.EAGAIN or attempt == COMMIT_ATTEMPTS:
                    raise
            else:
                return

    def find(self) -> None:
        """Open the table. Raises MissingError when the kernel or the process cannot."""
        try:
            with self._opened():
                pass
        except FirewallError as error:
            if error.errno in {errno.EPERM, errno.EACCES}:
                names = missing_capabilities("NET_ADMIN", "NET_RAW")
                raise MissingError(
                    f"{' and '.join(names) or 'a permission'} is missing for {self._where}",
                    "add NET_ADMIN and NET_RAW to cap_add",
                ) from error
            if error.errno in {errno.ENOENT, errno.ENOPROTOOPT, errno.EAFNOSUPPORT}:
                module = f"{PROGRAM[self.family].removesuffix('s')}_{self.name}"
                raise MissingError(
                    f"the kernel has no legacy table {self._where}",
                    f"load it on the host (modprobe {module}) or use FIREWALL_BACKEND=nftables",
                ) from error
            raise

    def _opened(self) -> AbstractContextManager[Any]:
        """Read the table."""
        return opened(self.family, self.name, self._netns)


def hook_of(chain: str) -> str:
    """Return the built-in chain that leads to `chain`, or `chain` itself: see `chains`."""
    return chain.partition("-")[0]
