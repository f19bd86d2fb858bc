"""The legacy tables of iptables and ip6tables, through python-iptables.

Reading and writing avoid what is unsafe in the library for a process like ours:

- A table is opened without autocommit, changed as a whole, and committed once; autocommit drops
  the errors of a commit.
- Rules are compared by the bytes that the kernel holds. The library's own way to read parameters
  (`get_all_parameters`, `final_check`) sends the process's standard output through a pipe.
- Interfaces are written into the entry here: `Rule6` sets a mask of 0x01 for each character, so
  that "lo" would also match "tun0" (iptc/ip6tc.py, set_in_interface).
- Targets are never looked up as names of chains, because that opens every table of the kernel.

Order. The kernel commits one table at a time, and the filter table decides by marks that the mangle
table sets: `gateway.policy.transition`. A process that dies in between leaves the stricter rules.
The families share no packet, so their order is free. Every rule of both is built before the first
commit.
"""

import ctypes
import errno
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from gateway.errors import FirewallError, MissingError
from gateway.firewall.xtables.entry import (
    EXTENSION,
    Entry,
    differences,
    is_standard,
    packets,
    parse,
)
from gateway.firewall.xtables.lock import xtables_lock
from gateway.firewall.xtables.matches import sees_extra_headers
from gateway.firewall.xtables.options import entry_size, lookup_by
from gateway.firewall.xtables.render import (
    POLICIES,
    PROTOCOL_NUMBERS,
    TABLES,
    Extension,
    commands,
    interface_of,
    matches_of,
    render_rule,
    target_of,
)
from gateway.policy.limits import blind_to_extra_headers
from gateway.policy.rules import Chain, Family, Rule, Ruleset
from gateway.policy.transition import interim
from gateway.system import applied
from gateway.system.capabilities import missing_capabilities
from gateway.system.features import has_ipv6, wait_for_packets_in_flight

# Without distutils the library asks sysconfig, as it does since Python 3.12 (iptc/util.py). The
# distutils of setuptools, where that is installed, takes 100 ms to import.
_hide_distutils = "distutils" not in sys.modules
if _hide_distutils:
    sys.modules["distutils"] = None  # type: ignore[assignment]
try:
    import iptc
    from iptc.xtables import XTablesError, xt_option_entry, xtables
except (ImportError, AttributeError, OSError, TypeError) as err:  # a library is not there
    raise MissingError(
        f"python-iptables does not load ({err})", "install libip4tc2, libip6tc2 and libxtables12"
    ) from err
finally:
    if _hide_distutils:
        del sys.modules["distutils"]

_MARK = re.compile(r"\b0x[0-9a-f]+(/0x[0-9a-f]+)?")

DIRECTIONS = {"INPUT": "in", "FORWARD": "forward", "OUTPUT": "out"}
"""The words for what each deciding chain refuses."""

COMMIT_ATTEMPTS = 10
"""How often a table is built again because somebody else changed it before our commit."""

_SIZES: dict[tuple[str, int], int] = {}
"""How many bytes of each extension's parameters are the user's, as the library tells."""

_errno_location = ctypes.CDLL(None)["__errno_location"]
_errno_location.restype = ctypes.POINTER(ctypes.c_int)


class _Rule4(iptc.Rule):  # type: ignore[misc]
    """An IPv4 rule whose target is never taken for the name of a chain."""

    tables = ()


class _Rule6(iptc.Rule6):  # type: ignore[misc]
    """An IPv6 rule whose target is never taken for the name of a chain."""

    tables = ()


_LIBRARY_RULE: dict[Family, Any] = {Family.IPV4: _Rule4, Family.IPV6: _Rule6}
_LIBRARY_TABLE: dict[Family, Any] = {Family.IPV4: iptc.Table, Family.IPV6: iptc.Table6}
_PROGRAM = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}


@dataclass(frozen=True)
class _Built:
    """A rule ready to be appended: the bytes for libiptc, and what the kernel should then hold.

    `text` is for people; marks are left out of it, because the egress guard's is a secret.
    """

    text: str
    buffer: Any
    entry: Entry


_Chains = dict[str, tuple[_Built, ...]]


class _Table:
    """One table of one family. `name` is that of the kernel."""

    def __init__(self, family: Family, name: str, sees: Callable[[Family], bool]) -> None:
        self.family = family
        self.name = name
        self._sees = sees
        self._where = f"{_PROGRAM[family]} {name}"

    def build(self, ruleset: Ruleset) -> _Chains:
        """Make the rules that `ruleset` has for this table, without touching the kernel's."""
        rules = ruleset.of(self.family)
        sees_all = self._sees(self.family)
        with _translated(f"building rules for {self._where}"):
            return {
                chain.hook: tuple(
                    _built(chain, rule, self.family)
                    for rule in rules.get(chain, ())
                    if sees_all or not rule.extra_headers
                )
                for chain in Chain
                if chain.table == self.name
            }

    def differences(self, chains: _Chains) -> list[str]:
        """Read the table and return a line for each thing that is not as `chains` says."""
        return [line for lines in self._compared(chains).values() for line in lines]

    def changed(self, chains: _Chains) -> frozenset[Chain]:
        """Read the table and return the chains of the gateway that are not as `chains` says.

        A chain that is not the gateway's may do to a packet what any of them does, so a change
        there counts as one of all.
        """
        ours = {chain.hook: chain for chain in Chain if chain.table == self.name}
        changed = {name for name, lines in self._compared(chains).items() if lines}
        return frozenset(ours[name] for name in (changed if changed <= ours.keys() else ours))

    def _compared(self, chains: _Chains) -> dict[str, list[str]]:
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
            yield parse(self.family, blob, verdict, _SIZES)

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

    def commit(self, chains: _Chains) -> None:
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
                module = f"{_PROGRAM[self.family].removesuffix('s')}_{self.name}"
                raise MissingError(
                    f"the kernel has no legacy table {self._where}",
                    f"load it on the host (modprobe {module}) or use FIREWALL_BACKEND=nftables",
                ) from error
            raise

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Read the table; the library keeps one object for each name, so it is closed again."""
        with _translated(self._where):
            kernel = _LIBRARY_TABLE[self.family](self.name, autocommit=False)
            try:
                kernel.refresh()
                yield kernel
            finally:
                kernel.close()


_Tables = dict[Family, tuple[_Table, _Table]]


class IptablesFirewall:
    """The filter and mangle tables of each family that the kernel has, as the gateway's own.

    The kernel is asked each time anew: with IPv6 that appears later, its tables are open.
    """

    name = "iptables"

    def __init__(
        self,
        speaks_ipv6: Callable[[], bool] = has_ipv6,
        sees: Callable[[Family], bool] = sees_extra_headers,
    ) -> None:
        self._speaks_ipv6 = speaks_ipv6
        self._sees = sees
        self._all_tables = {
            family: (_Table(family, "mangle", sees), _Table(family, "filter", sees))
            for family in Family
        }

    @classmethod
    def find(cls) -> "IptablesFirewall":
        """Return the firewall of this kernel.

        Raises MissingError when it is not there for every family that the kernel has, and
        FirewallError when that could not be found out.
        """
        firewall = cls()
        for table in _each(firewall._tables()):
            table.find()
        return firewall

    @property
    def limits(self) -> tuple[str, ...]:
        """What this kernel's tables cannot refuse, with the remedy. Raises FirewallError."""
        blind = [family for family in self._tables() if not self._sees(family)]
        return tuple(blind_to_extra_headers(family) for family in blind)

    def apply(self, ruleset: Ruleset) -> None:
        """Put `ruleset` into force for every family and read it back; see `Firewall.apply`."""
        tables = self._tables()
        with xtables_lock():
            built = {table: table.build(ruleset) for table in _each(tables)}
            changed = {family: frozenset[Chain]() for family in Family}
            for family, (marks, _decides) in tables.items():
                changed[family] = marks.changed(built[marks])
            between = interim(ruleset, changed)
            for family, (marks, decides) in tables.items():
                if changed[family]:
                    decides.commit(decides.build(between))
                    marks.commit(built[marks])
            if between != ruleset:
                self._show(between, tables)
                wait_for_packets_in_flight()
            for _marks, decides in tables.values():
                decides.commit(built[decides])
            remaining = [line for table in built for line in table.differences(built[table])]
        if remaining:
            raise FirewallError("the kernel does not hold the rules", "; ".join(remaining))
        self._show(ruleset, tables)

    def _show(self, ruleset: Ruleset, tables: _Tables) -> None:
        """Show what was applied, at the level debug."""
        applied.show(
            lambda: [
                command
                for family in tables
                for command in commands(ruleset, family, sees_all=self._sees(family))
            ]
        )

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Return one line for each difference of the kernel; see `Firewall.verify`."""
        tables = _each(self._tables())
        return tuple(line for table in tables for line in table.differences(table.build(ruleset)))

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the packets refused, by family and direction; see `Firewall.refused`."""
        return {
            (family.name.lower(), DIRECTIONS[hook]): count
            for family, (_marks, decides) in self._tables().items()
            for hook, count in decides.refused().items()
        }

    def _tables(self) -> _Tables:
        """Return the marking and the deciding table of each family that the kernel has now."""
        families = Family if self._speaks_ipv6() else (Family.IPV4,)
        return {family: self._all_tables[family] for family in families}


def _each(tables: _Tables) -> list[_Table]:
    return [table for pair in tables.values() for table in pair]


def _built(chain: Chain, rule: Rule, family: Family) -> _Built:
    """Make one rule with the library."""
    _find_all_options()
    made = _LIBRARY_RULE[family]()
    ip = made.get_ip()
    if rule.source is not None and rule.source.prefixlen:
        made.src = str(rule.source)
    if rule.destination is not None and rule.destination.prefixlen:
        made.dst = str(rule.destination)
    if rule.in_interface is not None:
        ip.iniface, ip.iniface_mask = _exactly(rule.in_interface)
    if rule.out_interface is not None:
        ip.outiface, ip.outiface_mask = _exactly(rule.out_interface)
    if rule.protocol is not None:
        made.protocol = PROTOCOL_NUMBERS[rule.protocol]
    parts = [_filled(made.create_match(match.name), match) for match in matches_of(rule, family)]
    target = target_of(rule, family)
    parts.append(_filled(made.create_target(target.name), target))
    headers = [match.match.u.user for match in made.matches] + [made.target.target.u.user]
    for part, header in zip(parts, headers, strict=True):
        _SIZES[header.name.decode(), header.revision] = part.usersize - EXTENSION.size
    verdict = "" if target.parameters else target.name
    entry = parse(family, bytes(made.rule), verdict, _SIZES)
    text = _MARK.sub("(a mark)", render_rule(chain, rule, family))
    return _Built(text, made.rule, entry)


@cache
def _find_all_options() -> None:
    """Let the library find every option of an extension, whatever its iptables; once."""
    options = iptc.Rule().create_match("conntrack")._module.x6_options  # noqa: SLF001 - no other way
    xtables._option_lookup = lookup_by(entry_size(options), xt_option_entry)  # noqa: SLF001


def _filled(extension: Any, wanted: Extension) -> Any:
    for parameter, value in wanted.parameters:
        # A list, in which only a first word "!" means inversion.
        extension.set_parameter(parameter, ["!", value] if wanted.inverted else [value])
    return extension


def _exactly(interface: str) -> tuple[bytes, bytes]:
    """Return the name and the mask that match this interface and no other."""
    name = interface_of(interface).encode()
    return name, b"\xff" * (len(name) + 1)


@contextmanager
def _translated(subject: str) -> Iterator[None]:
    """Turn the library's errors into ours. The library drops errno; libc still has it.

    Only for an error of libiptc: any other leaves the number of some earlier call there.
    """
    try:
        yield
    except iptc.IPTCError as error:
        raise FirewallError(str(error), subject, _errno_location()[0]) from error
    except (XTablesError, ValueError, AttributeError) as error:
        raise FirewallError(str(error), subject) from error
