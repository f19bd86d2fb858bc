"""The two secret marks, found again in the rules that a firewall holds."""

from typing import NamedTuple

from gateway.policy.flows import ENCRYPTED, PASSED
from gateway.policy.rules import Chain


class Marks(NamedTuple):
    """The marks in the kernel's rules, None for one that no rule has.

    `flow` is that of the encrypted flow, `passed` that of packets which have passed the firewall.
    """

    flow: int | None
    passed: int | None


FLOW = (Chain.OUTPUT, ENCRYPTED)
PASSED_FIREWALL = (Chain.POSTROUTING, PASSED)
"""The chain and the comment of a rule with each mark."""
