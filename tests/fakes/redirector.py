"""The redirection of questions, without a kernel."""

from collections.abc import Mapping

from gateway.errors import FirewallError
from gateway.policy.hijack import Redirection


class FakeRedirector:
    """As `gateway.firewall.nft.hijack.HijackTable`; a test changes the fields.

    `table` is what the table holds. Where it `is_there`, it `has_refused` packets by UDP over IPv4.
    The next call of `apply` is refused if `fails` is set.
    """

    def __init__(self) -> None:
        self.is_there = False
        self.table: Redirection | None = None
        self.has_refused = 0
        self.fails = False

    def apply(self, redirection: Redirection | None) -> None:
        """Hold `redirection`."""
        if self.fails:
            self.fails = False
            raise FirewallError("refused")
        self.is_there, self.table, self.has_refused = True, redirection, 0

    def verify(self, redirection: Redirection | None) -> tuple[str, ...]:
        """Compare it with what is held."""
        if not self.is_there:
            return ("the table is not there",)
        return () if self.table == redirection else ("other rules",)

    def refused(self) -> Mapping[tuple[str, str], int]:
        """Return what a test has set."""
        if not self.is_there:
            raise FirewallError("the table is not there")
        return {("ipv4", "out"): self.has_refused, ("ipv6", "out"): 0}
