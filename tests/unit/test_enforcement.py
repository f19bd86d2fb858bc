"""What is enforced when the machine changes at an unlucky moment."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from gateway.enforcement import Enforcement
from gateway.errors import FirewallError
from gateway.model import Config, Facts, Interface
from gateway.policy.firewall import closed
from gateway.policy.routing import Routing
from gateway.policy.rules import Ruleset
from tests.fakes.firewall import FakeFirewall
from tests.scenarios import IPV4_ONLY, TWO_UPLINKS


class Namespace:
    """A namespace whose links come and go, whether anybody looks or not."""

    def __init__(self, facts: Facts) -> None:
        self.now = facts
        self.is_shut = False

    def facts(self) -> Facts:
        """Return what is there now."""
        return self.now

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        """Find everything in order."""
        del name, addresses
        return ""

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

    def shut(self) -> None:
        """Set the links down."""
        self.is_shut = True


class Guard:
    """A guard as kernels before Linux 6.16 have it: none of it goes in when one device is gone."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.is_broken = False
        self.closed: list[tuple[str, ...]] = []

    def apply(self, ruleset: Ruleset, facts: Facts) -> None:
        """Take note of the uplinks of `facts` that a closed `ruleset` closes."""
        names = tuple(uplink.name for uplink in facts.uplinks)
        there = {uplink.name for uplink in self._namespace.now.uplinks}
        if self.is_broken or not there.issuperset(names):
            raise FirewallError("loading a table", "No such file or directory")
        self.closed += [names] if ruleset == closed() else []

    def verify(self, ruleset: Ruleset, facts: Facts) -> tuple[str, ...]:
        """Find everything in order."""
        del ruleset, facts
        return ()


def test_an_uplink_that_went_away_unnoticed_does_not_end_the_gateway() -> None:
    """The guard closes those that are left, and the next look puts everything into step."""
    namespace = Namespace(TWO_UPLINKS)
    guard = Guard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()
    assert guard.closed == [("eth0", "eth1")]
    namespace.now = replace(TWO_UPLINKS, uplinks=TWO_UPLINKS.uplinks[:1])
    enforcement.close()
    assert guard.closed[-1] == ("eth0",)
    assert not namespace.is_shut
    enforcement.look_around()
    assert enforcement.facts == namespace.now


def test_links_are_set_down_when_the_guard_cannot_be_closed_at_all() -> None:
    """And the failure is told."""
    namespace = Namespace(TWO_UPLINKS)
    guard = Guard(namespace)
    enforcement = Enforcement(Config((IPV4_ONLY,)), FakeFirewall(), guard, namespace)
    enforcement.look_around()
    guard.is_broken = True
    with pytest.raises(FirewallError):
        enforcement.close()
    assert namespace.is_shut
