"""The legacy tables while another firewall holds the rules: they must pass everything.

What either of two firewalls drops is dropped. The lock at a start goes into the legacy tables
wherever the kernel has them, also that of a second gateway, which ends at once and leaves it there.
To empty them is safe only when the other firewall is in force and no packet is under way that has
not met it.
"""

from pathlib import Path

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall.xtables.render import TABLES
from gateway.policy.rules import Family
from gateway.system import applied, process

TIMEOUT = 10.0
"""Seconds that reading or emptying the tables of one family may take; it takes a few ms."""

PROGRAMS = {Family.IPV4: "iptables-legacy", Family.IPV6: "ip6tables-legacy"}
"""What reads tables (`-save`) and replaces them whole (`-restore`), iptables-save(8)."""

NO_LOCK_FILE = {"XTABLES_LOCKFILE": "/dev/null"}
"""The lock file of the programs cannot be made on a read-only system, and is not needed: a table
is replaced whole, and the kernel refuses that if somebody else has changed it meanwhile."""

IN_USE = {
    Family.IPV4: Path("/proc/thread-self/net/ip_tables_names"),
    Family.IPV6: Path("/proc/thread-self/net/ip6_tables_names"),
}
"""Where the kernel lists the legacy tables of this namespace that anybody has ever opened."""


def leftovers() -> tuple[str, ...]:
    """Return a line for each rule, chain and policy in the tables that is in the way.

    Where the program that reads them is not installed, none is known of: what could be there can
    only refuse. Raises FirewallError when they cannot be read.
    """
    return tuple(
        f"{PROGRAMS[family]} {table}: {line}"
        for family in Family
        if _is_installed(f"{PROGRAMS[family]}-save")
        for table in _tables(family)
        for line in _run(family, "save", "-t", table).splitlines()
        if line.startswith("-A") or (line.startswith(":") and not _passes(line, TABLES[table]))
    )


def empty() -> None:
    """Let the tables that exist in this namespace pass everything. Raises FirewallError."""
    for family in Family:
        lines = [
            line
            for table in _tables(family)
            for line in (f"*{table}", *(f":{c} ACCEPT [0:0]" for c in TABLES[table]), "COMMIT")
        ]
        if lines:
            _restore(family, "\n".join(lines) + "\n")


def _restore(family: Family, text: str) -> None:
    _run(family, "restore", stdin=text)
    applied.show(lambda: [f"{PROGRAMS[family]}-restore"], stdin=text)


def _is_installed(program: str) -> bool:
    try:
        process.find_program(program)
    except MissingError:
        return False
    return True


def _passes(line: str, chains: tuple[str, ...]) -> bool:
    """Say whether a line like `:INPUT ACCEPT [0:0]` is of a chain of the kernel's that passes."""
    name, policy, *_ = line.removeprefix(":").split()
    return name in chains and policy == "ACCEPT"


def _tables(family: Family) -> tuple[str, ...]:
    try:
        names = set(IN_USE[family].read_text("ascii").split())
    except FileNotFoundError:  # this kernel has no legacy tables of the family
        return ()
    except OSError as err:
        raise FirewallError("reading", str(IN_USE[family]), err.errno) from err
    return tuple(table for table in TABLES if table in names)


def _run(family: Family, what: str, *arguments: str, stdin: str | None = None) -> str:
    program = f"{PROGRAMS[family]}-{what}"
    try:
        return process.run((program, *arguments), stdin=stdin, timeout=TIMEOUT, env=NO_LOCK_FILE)
    except (MissingError, ProcessError) as err:
        number = err.errno if isinstance(err, ProcessError) else None
        raise FirewallError(f"the legacy tables: {program}", str(err), number) from err
