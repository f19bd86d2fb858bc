"""Which firewall carries the rules, and how it takes over from the other one.

A kernel can hold two firewalls at once, and what either of them drops is dropped. The lock at the
start goes into the legacy tables wherever the kernel has them, and an earlier run may have left
either kind. So the one that is chosen has to make the other let go, and this is the only place
where anything is ever taken away from a firewall. It is safe by its order:

1. The chosen firewall refuses everything but loopback, and that has been read back, twice.
2. Packets that were on their way before it stood have gone through the other one.
3. Only then the other one is emptied. From here on the first alone decides, and it is closed.
4. Every error in between ends the hand-over with the other one still in force, or with both. What
   is not emptied can only refuse more.

Nothing foreign is lost: the lock has already replaced the legacy tables whole, and the table of
nftables bears our name.
"""

from pathlib import Path

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall import Firewall
from gateway.firewall.nftables import NftablesFirewall, remove_leftover
from gateway.model import Backend
from gateway.policy.rules import Family, Ruleset
from gateway.system import process
from gateway.system.kernel import wait_for_packets_in_flight

TIMEOUT = 10.0
"""Seconds that emptying the legacy tables of one family may take; it takes a few ms."""

RESTORE = {
    Family.IPV4: "iptables-legacy-restore",
    Family.IPV6: "ip6tables-legacy-restore",
}
"""The programs that replace legacy tables whole, iptables-restore(8)."""

NO_LOCK_FILE = {"XTABLES_LOCKFILE": "/dev/null"}
"""The lock file of the programs cannot be made on a read-only system, and is not needed: a table
is replaced whole, and the kernel refuses that if somebody else has changed it meanwhile."""

IN_USE = {
    Family.IPV4: Path("/proc/thread-self/net/ip_tables_names"),
    Family.IPV6: Path("/proc/thread-self/net/ip6_tables_names"),
}
"""Where the kernel lists the legacy tables of this namespace that anybody has ever opened."""

EMPTY = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
"""The legacy tables that the gateway owns, with their chains."""


def choose(backend: Backend) -> Firewall:
    """Return the firewall for `backend`: for `auto` iptables, and nftables where that is not there.

    Raises MissingError when what was asked for, or either, is not there for every family that the
    kernel has, and FirewallError when that could not be found out.
    """
    match backend:
        case Backend.IPTABLES:
            return _iptables()
        case Backend.NFTABLES:
            return NftablesFirewall.find()
        case Backend.AUTO:
            try:
                return _iptables()
            except MissingError as legacy:
                return _nftables_after(legacy)


def take_over(firewall: Firewall, closed: Ruleset) -> None:
    """Put `closed`, which refuses everything, into `firewall`, then empty the other one.

    Raises FirewallError; then the namespace is as closed as before or more.
    """
    firewall.apply(closed)
    if problems := firewall.verify(closed):
        raise FirewallError("taking over", "; ".join(problems))
    wait_for_packets_in_flight()
    if firewall.name == NftablesFirewall.name:
        for family in Family:
            _empty_legacy_tables(family)
    else:
        remove_leftover()


def _iptables() -> Firewall:
    # Imported here because its libraries may not be there, which is an answer and not a failure.
    from gateway.firewall.iptables import IptablesFirewall  # noqa: PLC0415

    return IptablesFirewall.find()


def _nftables_after(legacy: MissingError) -> Firewall:
    try:
        return NftablesFirewall.find()
    except MissingError as nftables:
        raise MissingError(
            f"no firewall: {legacy.missing}, and {nftables.missing}",
            f"one of the two: {legacy.remedy}; or {nftables.remedy}",
        ) from nftables


def _empty_legacy_tables(family: Family) -> None:
    """Let the legacy tables of `family` pass everything, those that exist in this namespace."""
    try:
        names = set(IN_USE[family].read_text("ascii").split())
    except FileNotFoundError:  # this kernel has no legacy tables of the family
        return
    except OSError as err:
        raise FirewallError("reading", str(IN_USE[family]), err.errno) from err
    tables = {table: chains for table, chains in EMPTY.items() if table in names}
    lines = [
        line
        for table, chains in tables.items()
        for line in (f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in chains), "COMMIT")
    ]
    if not lines:
        return
    try:
        process.run(
            (RESTORE[family],), stdin="\n".join(lines) + "\n", timeout=TIMEOUT, env=NO_LOCK_FILE
        )
    except (MissingError, ProcessError) as err:
        raise FirewallError("emptying the legacy tables", str(err)) from err
