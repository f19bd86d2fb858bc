"""Putting a ruleset into the kernel's firewall, whichever it has."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.policy.limits import Limit
from gateway.policy.rules import Ruleset

MOST_DIFFERENCES = 20
"""How many differences are reported: a set can lose thousands of members at once."""


def brief(differences: Sequence[str]) -> tuple[str, ...]:
    """Return the first of `differences`, and in the last line how many more there are."""
    if len(differences) <= MOST_DIFFERENCES:
        return tuple(differences)
    left = len(differences) - MOST_DIFFERENCES + 1
    return (*differences[: MOST_DIFFERENCES - 1], f"and {left} more differences")


class Firewall(Protocol):
    """A kernel firewall that holds one whole ruleset at a time."""

    @property
    def name(self) -> str:
        """The backend's name as the user writes it: `iptables` or `nftables`."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What it cannot refuse on this kernel, each with the remedy. May raise FirewallError."""

    def apply(self, ruleset: Ruleset) -> None:
        """Put `ruleset` into force for both families in place of the former one, and read it back.

        Each family changes in one atomic step, and at no moment accepts anything that neither the
        former nor the new ruleset accepts. Raises FirewallError when the kernel
        refused or does not hold what was asked for.
        """

    def verify(self, ruleset: Ruleset) -> tuple[str, ...]:
        """Compare the kernel with `ruleset`: one line for each difference, none when all is well.

        Raises FirewallError when the kernel cannot be read.
        """

    def refused(self) -> Mapping[tuple[str, str], int]:
        """Return how many packets the rules have refused since they were put into force.

        By family (`ipv4`, `ipv6`) and direction (`in`, `forward`, `out`). Raises FirewallError when
        the kernel cannot be read.
        """
