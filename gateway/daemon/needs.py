"""What enforcement needs of the namespace and of the egress guard, as protocols."""

from collections.abc import Collection, Mapping
from typing import Protocol

from gateway.model import Facts, Interface
from gateway.policy.routing import Routing
from gateway.policy.rules import Ruleset


class Network(Protocol):
    """What is needed of the namespace's links and routes."""

    def facts(self) -> Facts:
        """Return what the namespace looks like now."""

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        """Say why the link `name` cannot carry what comes from `addresses`; empty if it can."""

    def prepare(self, uplink: str) -> None:
        """Give `uplink` the per-device settings that the promises need."""

    def apply_routing(self, wanted: Routing) -> None:
        """Make the gateway's tables and policy rules hold exactly `wanted`."""

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Return what the kernel has otherwise than `wanted`."""

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Return the per-device settings of `uplink` that are not as `prepare` set them."""

    def shut_unnameable(self) -> tuple[str, ...]:
        """Set links down that no rule can name; return those that were up. Raises NetworkError."""

    def shut_shared(self) -> tuple[str, ...]:
        """Keep links down that others can send by below the rules; return them. NetworkError."""

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...]:
        """Set every link but loopback down, or `only` those with these indexes.

        Return those of them that are still up. Raises NetworkError.
        """

    def reopen(self) -> tuple[str, ...]:
        """Set the links up again that `shut` has set down; return what could not be restored.

        Raises NetworkError.
        """


class Guard(Protocol):
    """The egress guard, kept in step with the rules."""

    def apply(self, ruleset: Ruleset, facts: Facts) -> None:
        """Let nothing leave by the uplinks of `facts` but what `ruleset` accepted."""

    def verify(self, ruleset: Ruleset, facts: Facts) -> tuple[str, ...]:
        """Return what the kernel has otherwise."""

    def refused(self) -> Mapping[tuple[str, str], int]:
        """Return the frames dropped since the last `apply`, as `verify` has just read them."""
