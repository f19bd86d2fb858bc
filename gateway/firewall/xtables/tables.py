"""One legacy table of iptables or ip6tables: built, committed whole, read back and compared.

Rules are compared by the bytes that the kernel holds. A table is changed as a whole and committed
once. How that is done through python-iptables is in `library`.
"""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from gateway.errors import FirewallError, MissingError
from gateway.firewall.xtables.building import SIZES, Built, built_of
from gateway.firewall.xtables.chains import Line, Lines
from gateway.firewall.xtables.entry import (
    Entry,
    differences,
    entry_of,
    packets,
)
from gateway.firewall.xtables.library import (
    PROGRAM,
    opened,
    translated,
)
from gateway.firewall.xtables.raw import Bytes, RawChain, RawTable, chains_in
from gateway.firewall.xtables.render import (
    POLICIES,
    TABLES,
    Kernel,
    table_of,
)
from gateway.model.frozen import frozen
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.system.features import missing_capabilities
from gateway.system.netns import Netns

REMEMBERED = 4
"""Rulesets whose lines are remembered: of each state, and between two of them."""

COMMIT_ATTEMPTS = 10
"""How often a table is built again because another program changed it before our commit."""

Chains = dict[str, tuple[Built, ...]]
"""The lines of each chain, the built-in ones first."""


@frozen
class _Known:
    """A ruleset with its lines, and what was built of them."""

    ruleset: Ruleset
    kernel: Kernel
    lines: Lines
    chains: Chains


@frozen
class _Found:
    """A table that was as `chains` says: as it was `read` last, and without its counters."""

    chains: Chains
    read: tuple[bytes, bytes]
    uncounted: Bytes

    def is_still(self, read: tuple[bytes, bytes]) -> bool:
        """Return whether the table that was `read` now is the same but for its counters."""
        return self.read is read or self.uncounted.are(*read)


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
        self._found: _Found | None = None
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
        read = self._read()
        known, self._found = self._found, None
        if known is not None and known.chains is chains and known.is_still(read):
            self._found = replace(known, read=read)
            return []
        lines = [line for lines in self._compared(chains, *read).values() for line in lines]
        if not lines:
            self._found = _Found(chains, read, Bytes.of(self.family, *read))
        return lines

    def _read(self) -> tuple[bytes, bytes]:
        """Return the table's bytes. Raises FirewallError."""
        try:
            return self._raw.read()
        except OSError as err:
            self._raw.close()
            raise FirewallError(err.strerror or str(err), self._where, err.errno) from err

    def changed(self, chains: Chains) -> frozenset[Chain]:
        """Read the table and return the chains of the gateway that are not as `chains` says.

        A chain that is not the gateway's may do to a packet what any of them does, so a change
        there counts as one of all.
        """
        ours = {chain.hook: chain for chain in Chain if chain.table == self.name}
        changed = {
            hook_of(name) for name, lines in self._compared(chains, *self._read()).items() if lines
        }
        return frozenset(ours[name] for name in (changed if changed <= ours.keys() else ours))

    def _compared(self, chains: Chains, info: bytes, blob: bytes) -> dict[str, list[str]]:
        """Return the differences of each chain in a table that was read.

        A chain that is not there is one: the line that leads to it is missing.
        """
        compared: dict[str, list[str]] = {}
        try:
            held = chains_in(self.family, info, blob)
        except ValueError as err:
            return {"": [f"{self._where}: {err}"]}
        for chain in held:
            where = f"{self._where} {chain.name}"
            if chain.name not in chains or chain.name in compared:
                compared[chain.name] = [f"{where}: foreign chain"]
                continue
            wanted = chains[chain.name]
            entries = self._entries(chain)
            lines: list[str] = []
            compared[chain.name] = lines
            if [built.entry for built in wanted] != entries:
                lines += differences(where, [(it.text, it.entry) for it in wanted], entries)
            policy = POLICIES[self.name] if chain.name in TABLES[self.name] else "RETURN"
            if chain.policy != policy:
                lines.append(f"{where}: the policy is {chain.policy}")
        return compared

    def _entries(self, chain: RawChain) -> list[Entry]:
        return [entry_of(self.family, blob, verdict, SIZES) for blob, verdict in chain.rules]

    def _held(self) -> list[RawChain]:
        """Return what the kernel has. Raises FirewallError."""
        with translated(self._where):
            return chains_in(self.family, *self._read())

    def held(self, chain: Chain) -> list[Entry]:
        """Return the rules that the kernel has in `chain`. Raises FirewallError."""
        return [
            entry for it in self._held() if it.name == chain.hook for entry in self._entries(it)
        ]

    def refused(self) -> dict[str, int]:
        """Return the packets that each built-in chain has refused, and those that it leads to."""
        counted = dict.fromkeys(TABLES[self.name], 0)
        for chain in self._held():
            hook = hook_of(chain.name)
            for blob, verdict in chain.rules:
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
