"""One legacy table of iptables or ip6tables: built, committed whole, read back and compared.

Rules are compared by the bytes that the kernel holds. A table is changed as a whole and committed
once. How that is done through python-iptables is in `library`.
"""

import ctypes
import errno
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from gateway.errors import FirewallError, MissingError
from gateway.firewall.xtables.entry import (
    EXTENSION,
    Entry,
    differences,
    entry_of,
    is_standard,
    packets,
)
from gateway.firewall.xtables.library import (
    LIBRARY_RULE,
    PROGRAM,
    exactly,
    filled,
    find_all_options,
    opened,
    translated,
)
from gateway.firewall.xtables.render import (
    POLICIES,
    PROTOCOL_NUMBERS,
    TABLES,
    matches_of,
    render_rule,
    target_of,
)
from gateway.policy.rules import Chain, Family, Rule, Ruleset
from gateway.system.features import missing_capabilities
from gateway.system.netns import Netns

_MARK = re.compile(r"\b0x[0-9a-f]+(/0x[0-9a-f]+)?")

COMMIT_ATTEMPTS = 10
"""How often a table is built again because another program changed it before our commit."""

_SIZES: dict[tuple[str, int], int] = {}
"""How many bytes of each extension's parameters are the user's, according to the library."""


@dataclass(frozen=True)
class Built:
    """A rule ready to be appended: the bytes for libiptc, and what the kernel should then hold.

    `text` is for people; marks are left out of it, because the egress guard's is a secret.
    """

    text: str
    buffer: Any
    entry: Entry


Chains = dict[str, tuple[Built, ...]]


class Table:
    """One table of one family in `netns`. `name` is that of the kernel."""

    def __init__(
        self, family: Family, name: str, sees: Callable[[Family], bool], netns: Netns
    ) -> None:
        self._netns = netns
        self.family = family
        self.name = name
        self._sees = sees
        self._where = f"{PROGRAM[family]} {name}"

    def build(self, ruleset: Ruleset) -> Chains:
        """Make the rules that `ruleset` has for this table, without touching the kernel's."""
        rules = ruleset.of(self.family)
        sees_all = self._sees(self.family)
        with translated(f"building rules for {self._where}"):
            return {
                chain.hook: tuple(
                    _built(chain, rule, self.family)
                    for rule in rules.get(chain, ())
                    if sees_all or not rule.extra_headers
                )
                for chain in Chain
                if chain.table == self.name
            }

    def differences(self, chains: Chains) -> list[str]:
        """Read the table and return a line for each thing that is not as `chains` says."""
        return [line for lines in self._compared(chains).values() for line in lines]

    def changed(self, chains: Chains) -> frozenset[Chain]:
        """Read the table and return the chains of the gateway that are not as `chains` says.

        A chain that is not the gateway's may do to a packet what any of them does, so a change
        there counts as one of all.
        """
        ours = {chain.hook: chain for chain in Chain if chain.table == self.name}
        changed = {name for name, lines in self._compared(chains).items() if lines}
        return frozenset(ours[name] for name in (changed if changed <= ours.keys() else ours))

    def _compared(self, chains: Chains) -> dict[str, list[str]]:
        """Return the differences of each chain in the kernel."""
        compared: dict[str, list[str]] = {}
        with self._opened() as kernel:
            for chain in kernel.chains:
                where = f"{self._where} {chain.name}"
                if chain.name not in TABLES[self.name]:
                    compared[chain.name] = [f"{where}: foreign chain"]
                    continue
                wanted = [(built.text, built.entry) for built in chains.get(chain.name, ())]
                held = list(self._held(kernel, chain.name))
                compared[chain.name] = list(differences(where, wanted, held))
                policy = kernel.get_policy(chain.name)[0].name
                if policy != POLICIES[self.name]:
                    compared[chain.name].append(f"{where}: the policy is {policy}")
        return compared

    def _held(self, kernel: Any, chain: str) -> Iterator[Entry]:
        for blob, verdict in self._entries(kernel, chain):
            yield entry_of(self.family, blob, verdict, _SIZES)

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
        """Return the packets that each chain has refused: those that it did not accept."""
        with self._opened() as kernel:
            return {
                hook: sum(
                    packets(self.family, blob)
                    for blob, verdict in self._entries(kernel, hook)
                    if verdict != "ACCEPT"
                )
                for hook in TABLES[self.name]
            }

    def commit(self, chains: Chains) -> None:
        """Replace everything in the table by `chains`, in one step of the kernel."""
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            try:
                with self._opened() as kernel:
                    kernel.flush()
                    for hook in TABLES[self.name]:
                        kernel.set_policy(hook, POLICIES[self.name])
                        for built in chains.get(hook, ()):
                            kernel.append_entry(hook, built.buffer)
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


def _built(chain: Chain, rule: Rule, family: Family) -> Built:
    """Make one rule with the library."""
    find_all_options()
    made = LIBRARY_RULE[family]()
    ip = made.get_ip()
    if rule.source is not None and rule.source.prefixlen:
        made.src = str(rule.source)
    if rule.destination is not None and rule.destination.prefixlen:
        made.dst = str(rule.destination)
    if rule.in_interface is not None:
        ip.iniface, ip.iniface_mask = exactly(rule.in_interface)
    if rule.out_interface is not None:
        ip.outiface, ip.outiface_mask = exactly(rule.out_interface)
    if rule.protocol is not None:
        made.protocol = PROTOCOL_NUMBERS[rule.protocol]
    parts = [filled(made.create_match(match.name), match) for match in matches_of(rule, family)]
    target = target_of(rule, family)
    parts.append(filled(made.create_target(target.name), target))
    headers = [match.match.u.user for match in made.matches] + [made.target.target.u.user]
    for part, header in zip(parts, headers, strict=True):
        _SIZES[header.name.decode(), header.revision] = part.usersize - EXTENSION.size
    verdict = "" if target.parameters else target.name
    entry = entry_of(family, bytes(made.rule), verdict, _SIZES)
    text = _MARK.sub("(a mark)", render_rule(chain, rule, family))
    return Built(text, made.rule, entry)
