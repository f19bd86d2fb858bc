"""The redirection of questions or of ports, without a kernel."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from gateway.errors import FirewallError

R = TypeVar("R")


class FakeRedirector(Generic[R]):
    """As `HijackTable` and `PortTable` in `gateway.firewall.nft`; a test changes the fields.

    `table` is what the table holds. Where it `is_there`, it `has_refused` packets over IPv4, in
    the `direction` of the table. The next call of `apply` is refused if `fails` is set.
    """

    def __init__(self, direction: str = "out") -> None:
        self.is_there = False
        self.table: R | None = None
        self._direction = direction
        self.has_refused = 0
        self.fails = False

    def apply(self, redirection: R | None) -> None:
        """Hold `redirection`."""
        if self.fails:
            self.fails = False
            raise FirewallError("refused")
        self.is_there, self.table, self.has_refused = True, redirection, 0

    def verify(self, redirection: R | None) -> tuple[str, ...]:
        """Compare it with what is held."""
        if not self.is_there:
            return ("the table is not there",)
        return () if self.table == redirection else ("other rules",)

    def refused(self) -> Mapping[tuple[str, str], int]:
        """Return what a test has set."""
        if not self.is_there:
            raise FirewallError("the table is not there")
        return {("ipv4", self._direction): self.has_refused, ("ipv6", self._direction): 0}
