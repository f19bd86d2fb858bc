"""The iptables firewall: the filter and mangle tables of both families.

Order. The kernel commits one table at a time, and the filter table decides by marks that the mangle
table sets: `gateway.policy.transition`. A process that dies in between leaves the stricter rules.
The families share no packet, so their order is free. Every rule of both is built before the first
commit.
"""

from collections.abc import Callable

from gateway.errors import FirewallError
from gateway.firewall import brief
from gateway.firewall.marks import FLOW, PASSED_FIREWALL, Marks
from gateway.firewall.xtables.legacy import xtables_lock
from gateway.firewall.xtables.marks import mark_of
from gateway.firewall.xtables.matches import kernel_in, kernel_of
from gateway.firewall.xtables.render import Kernel, commands
from gateway.firewall.xtables.tables import Table
from gateway.policy.limits import (
    Limit,
    limit_of_confinement,
    limit_of_extra_headers,
    limit_of_unknown_users,
)
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.policy.transition import interim
from gateway.system import applied
from gateway.system.features import has_ipv6, wait_for_packets_in_flight
from gateway.system.netns import OWN, Netns

DIRECTIONS = {"INPUT": "in", "FORWARD": "forward", "OUTPUT": "out"}
"""The words for what each deciding chain refuses."""

_Tables = dict[Family, tuple[Table, Table]]

NO_OWNER = "the kernel lacks xt_owner"
LOAD_OWNER = "load xt_owner on the host (modprobe xt_owner), or use FIREWALL_BACKEND=nftables"


class IptablesFirewall:
    """The filter and mangle tables of each family that the kernel has, as the gateway's own.

    The tables are those of `netns`. The kernel is asked each time, because IPv6 can
    appear later, with open tables.
    """

    name = "iptables"

    def __init__(
        self,
        speaks_ipv6: Callable[[], bool] = has_ipv6,
        kernel: Callable[[Family], Kernel] = kernel_of,
        netns: Netns = OWN,
    ) -> None:
        self._speaks_ipv6 = speaks_ipv6
        self._kernel = kernel
        self._all_tables = {
            family: (Table(family, "mangle", kernel, netns), Table(family, "filter", kernel, netns))
            for family in Family
        }

    @classmethod
    def find(cls, netns: Netns = OWN) -> "IptablesFirewall":
        """Return the firewall of this kernel for `netns`.

        Raises MissingError when it is not there for every family that the kernel has, and
        FirewallError when that could not be found out.
        """
        firewall = cls(kernel=kernel_in(netns), netns=netns)
        for table in _each(firewall._tables()):
            table.find()
        return firewall

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What this kernel's tables cannot refuse, with the remedy. Raises FirewallError."""
        blind = [family for family in self._tables() if not self._kernel(family).extra_headers]
        found = [limit_of_extra_headers(family) for family in blind]
        kernels = [self._kernel(family) for family in self._tables()]
        if not all(it.has_our_users for it in kernels):
            found.append(limit_of_unknown_users())
        elif not all(it.owner or not it.has_ids for it in kernels):
            found.append(limit_of_confinement(NO_OWNER, LOAD_OWNER))
        return tuple(found)

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
            raise FirewallError("the kernel does not hold the rules", "; ".join(brief(remaining)))
        self._show(ruleset, tables)

    def _show(self, ruleset: Ruleset, tables: _Tables) -> None:
        """Show what was applied, at the level debug."""
        applied.show(
            lambda: [
                command
                for family in tables
                for command in commands(ruleset, family, self._kernel(family))
            ]
        )

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Return one line for each difference of the kernel; see `Firewall.verify`."""
        tables = _each(self._tables())
        return brief([line for it in tables for line in it.differences(it.build(ruleset))])

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the packets refused, by family and direction; see `Firewall.refused`."""
        return {
            (family.name.lower(), DIRECTIONS[hook]): count
            for family, (_marks, decides) in self._tables().items()
            for hook, count in decides.refused().items()
        }

    def marks(self) -> Marks:
        """Return the secret marks in the kernel's rules. Raises FirewallError."""
        flow = passed = None
        for marking, deciding in self._tables().values():
            flow = flow or mark_of(deciding.held(FLOW[0]), FLOW[1])
            passed = passed or mark_of(marking.held(PASSED_FIREWALL[0]), PASSED_FIREWALL[1])
        return Marks(flow, passed)

    def _tables(self) -> _Tables:
        """Return the marking and the deciding table of each family that the kernel has now."""
        families = Family if self._speaks_ipv6() else (Family.IPV4,)
        return {family: self._all_tables[family] for family in families}


def _each(tables: _Tables) -> list[Table]:
    return [table for pair in tables.values() for table in pair]
