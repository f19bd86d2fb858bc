"""The legacy tables while another firewall holds the rules: they must pass everything.

What either of two firewalls drops is dropped. The lock at a start goes into the legacy tables
wherever the kernel has them, also that of a second gateway, which ends at once and leaves it there.
To empty them is safe only when the other firewall is in force and no packet is under way that has
not met it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall.xtables.raw import RawChain, RawTable, chains_in
from gateway.firewall.xtables.render import TABLES
from gateway.policy.rules import Family
from gateway.system import applied, process
from gateway.system.netns import OWN, Netns

TIMEOUT = 10.0
"""Seconds that reading or emptying the tables of one family may take; it takes a few ms."""

PROGRAMS = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}
"""What reads tables (`-save`) and replaces them whole (`-restore`), iptables-save(8)."""

NO_LOCK_FILE = {"XTABLES_LOCKFILE": "/dev/null"}
"""The lock file of the programs cannot be made on a read-only system, and is not needed: a table
is replaced whole, and the kernel refuses that if another program has changed it meanwhile."""

LOCK_FILE = "/run/xtables.lock"
"""What the programs of iptables lock while they change tables, iptables(8)."""

WAIT_SECONDS = 0.5
"""Seconds that another program may keep the lock."""

IN_USE = {
    Family.IPV4: Path("/proc/thread-self/net/ip_tables_names"),
    Family.IPV6: Path("/proc/thread-self/net/ip6_tables_names"),
}
"""Where the kernel lists the legacy tables of this namespace that anybody has ever opened."""


def leftovers(netns: Netns = OWN) -> tuple[str, ...]:
    """Return a line for each rule, chain and policy in the tables of `netns` that is in the way.

    Where the program that reads them is not installed, none is known of: what could be there can
    only refuse. Raises FirewallError when they cannot be read.
    """
    return tuple(
        f"{PROGRAMS[family]} {table}: {line}"
        for family in Family
        if _is_installed(f"{PROGRAMS[family]}-save")
        for table in _tables(family, netns)
        for line in _run(netns, family, "save", "-t", table).splitlines()
        if line.startswith("-A") or (line.startswith(":") and not _passes(line, TABLES[table]))
    )


def saved(netns: Netns = OWN) -> Iterator[str]:
    """Yield the lines of every table in use in `netns`, with counters. Raises FirewallError."""
    for family in Family:
        for table in _tables(family, netns):
            yield f"# {PROGRAMS[family]}-save -c -t {table}"
            yield from _run(netns, family, "save", "-c", "-t", table).splitlines()


class Leftovers:
    """The `leftovers` of `netns`, for who asks often: the programs run only where there are any."""

    def __init__(self, netns: Netns = OWN) -> None:
        self._netns = netns
        self._raw = {
            (family, table): RawTable(family, table, netns) for family in Family for table in TABLES
        }

    def find(self) -> tuple[str, ...]:
        """Return what `leftovers` returns. Raises FirewallError when a table cannot be read."""
        in_use = [(family, table) for family in Family for table in _tables(family, self._netns)]
        if all(self._is_empty(family, table) for family, table in in_use):
            return ()
        return leftovers(self._netns)

    def _is_empty(self, family: Family, table: str) -> bool:
        """Return whether a table passes everything; False where it cannot be read."""
        raw = self._raw[family, table]
        try:
            chains = chains_in(family, *raw.read())
        except OSError:
            raw.close()
            return False
        except ValueError:
            return False
        empty = {RawChain(name, "ACCEPT", ()) for name in TABLES[table]}
        return len(chains) == len(empty) and set(chains) == empty


def empty(netns: Netns = OWN) -> None:
    """Let the tables that exist in `netns` pass everything. Raises FirewallError."""
    for family in Family:
        lines = [
            line
            for table in _tables(family, netns)
            for line in (f"*{table}", *(f":{c} ACCEPT [0:0]" for c in TABLES[table]), "COMMIT")
        ]
        if lines:
            _restore(netns, family, "\n".join(lines) + "\n")


def _restore(netns: Netns, family: Family, text: str) -> None:
    _run(netns, family, "restore", stdin=text)
    applied.show(lambda: [f"{PROGRAMS[family]}-restore"], stdin=text)


def _is_installed(program: str) -> bool:
    try:
        process.find_program(program)
    except MissingError:
        return False
    return True


def _passes(line: str, chains: tuple[str, ...]) -> bool:
    """Return whether a line like `:INPUT ACCEPT [0:0]` shows a built-in chain that accepts."""
    name, policy, *_ = line.removeprefix(":").split()
    return name in chains and policy == "ACCEPT"


def _tables(family: Family, netns: Netns) -> tuple[str, ...]:
    try:
        names = set(netns.read(IN_USE[family]).split())
    except FileNotFoundError:  # this kernel has no legacy tables of the family
        return ()
    except OSError as err:
        raise FirewallError("reading", str(IN_USE[family]), err.errno) from err
    return tuple(table for table in TABLES if table in names)


def _run(netns: Netns, family: Family, what: str, *arguments: str, stdin: str | None = None) -> str:
    program = f"{PROGRAMS[family]}-{what}"
    try:
        return process.run(
            (program, *arguments), stdin=stdin, timeout=TIMEOUT, env=NO_LOCK_FILE, netns=netns
        )
    except (MissingError, ProcessError) as err:
        number = err.errno if isinstance(err, ProcessError) else None
        raise FirewallError(f"the legacy tables: {program}", str(err), number) from err


@contextmanager
def xtables_lock() -> Iterator[None]:
    """Keep the programs of iptables from changing a table between our reading and writing it.

    Without the lock (a read-only file system, or another process that keeps it) we go on: what we
    write is whole, and what is read back afterwards is what counts.
    """
    try:
        lock = os.open(LOCK_FILE, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _is_locked(lock) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
