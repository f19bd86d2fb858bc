"""Links and an egress guard without a kernel, for tests of what keeps both in step."""

import errno
from collections.abc import Collection

from gateway.errors import FirewallError, NetworkError
from gateway.model import Interface
from gateway.policy.facts import Facts
from gateway.policy.guard import GuardRules
from gateway.policy.tables import Routing


class FakeLinks:
    """A namespace whose links come and go, whether anybody looks or not; a test sets `now`."""

    def __init__(self, facts: Facts) -> None:
        self.now = facts
        self.is_shut = False
        self.shut_only: Collection[int] | None = None
        self.stubborn: tuple[str, ...] | None = ()
        self.unnameable: tuple[str, ...] = ()
        self.breaks = False

    def facts(self) -> Facts:
        """Return what is there now."""
        return self.now

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        """Find everything in order."""
        del name, addresses
        return ""

    def carried(self, name: str) -> bytes:
        """Have carried nothing."""
        del name
        return b""

    def set_mtu(self, name: str, mtu: int) -> None:
        """Take note of nothing."""

    def prepare(self, uplink: str) -> None:
        """Take note of nothing."""

    def apply_routing(self, wanted: Routing) -> None:
        """Take note of nothing."""

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Find everything in order."""
        del wanted
        return ()

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Find everything in order."""
        del uplink
        return ()

    def shut_unnameable(self) -> tuple[str, ...]:
        """Take those that a test has made away, once."""
        found, self.unnameable = self.unnameable, ()
        return found

    def shut_shared(self) -> tuple[str, ...]:
        """Have no link that others can send by."""
        return ()

    def reopen(self) -> tuple[str, ...]:
        """Set the links up again."""
        self.is_shut = False
        return ()

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...]:
        """Set the links down but those that are stubborn, or fail if that is set."""
        if self.breaks:
            raise OSError(errno.EMFILE, "Too many open files")
        if self.stubborn is None:
            raise NetworkError("set down: Too many open files", "every link")
        self.is_shut, self.shut_only = True, only
        return self.stubborn


class FakeGuard:
    """A guard as kernels before Linux 6.16 have it: none of it goes in when one device is gone.

    `held` is what is in force. The next calls of `apply` raise what `fails` lists; the next
    `phantoms` comparisons find a difference that is gone afterwards, as while a link is being
    renamed.
    """

    def __init__(self, namespace: FakeLinks) -> None:
        self._namespace = namespace
        self.is_broken = False
        self.is_short = False
        self.dropped = 0
        self.drifted: tuple[str, ...] = ()
        self.closed: list[tuple[str, ...]] = []
        self.held: GuardRules | None = None
        self.fails: list[BaseException] = []
        self.phantoms = 0
        self.attempts = 0

    def apply(self, rules: GuardRules) -> None:
        """Hold `rules`; take note of the devices through which nothing passes."""
        names = tuple(guarded.device for guarded in rules.devices)
        there = {uplink.name for uplink in self._namespace.now.uplinks}
        self.attempts += 1
        if self.fails:
            raise self.fails.pop(0)
        if self.is_short:
            raise FirewallError("loading a table", "nft: could not be started", errno.EAGAIN)
        if self.is_broken or not there.issuperset(names):
            raise FirewallError("loading a table", "No such file or directory")
        self.held = rules
        self.closed += [] if any(guarded.rules for guarded in rules.devices) else [names]
        self.dropped = 0
        self.drifted = ()

    def verify(self, rules: GuardRules) -> tuple[str, ...]:
        """Find what a test says, until it is put back, and whether other rules are in force."""
        if self.phantoms:
            self.phantoms -= 1
            return ("egress-eth1: the chain is missing",)
        return self.drifted or (() if rules == self.held else ("other rules",))

    def refused(self) -> dict[tuple[str, str], int]:
        """Return what a test says that was dropped since the last `apply`."""
        return {("any", "guard"): self.dropped}
