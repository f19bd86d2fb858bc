"""Tables of nftables that hold one decision of the policy: tried, put, compared, counted."""

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import transaction
from gateway.firewall.nft.table import HeldTable

W = TypeVar("W")


class RenderedTable(ABC, Generic[W]):
    """A table of which this is the only writer; `name` is its family and name.

    A table that refuses packets says in `direction` whether they come in or go out.
    """

    name: ClassVar[str]
    direction: ClassVar[str]

    def __init__(self, nft: Nft) -> None:
        self._table = HeldTable(self.name, nft)

    @staticmethod
    @abstractmethod
    def render(wanted: W, /) -> str:
        """Return what is between the braces of the table."""

    @classmethod
    def can_hold(cls, nft: Nft, trial: W) -> bool:
        """Return whether the kernel takes the rules of `trial`.

        Raises MissingError and FirewallError if it cannot be asked.
        """
        return nft.accepts(transaction(f"{cls.name}_trial", cls.render(trial)))

    def apply(self, wanted: W, /) -> None:
        """Put `wanted` into force and read it back. Raises FirewallError."""
        self._table.put(self.render(wanted))

    def verify(self, wanted: W, /) -> tuple[str, ...]:
        """Return what is different from `wanted` in the kernel. Raises FirewallError."""
        return self._table.differences(self.render(wanted))

    def refused(self) -> dict[tuple[str, str], int]:
        """Return the packets refused since the last `apply`, as `Firewall.refused` has them."""
        counted = self._table.refused().items()
        return {
            (family, self.direction): sum(it for (its, _), it in counted if its == family)
            for family in ("ipv4", "ipv6")
        }
