"""Errors at the worst moment: the rules of a state are half way in, or the answer is unforeseen."""

import errno

import pytest

from gateway.errors import FirewallError, NetworkError
from gateway.policy.states import Reason
from tests.fakes.world import World
from tests.unit.test_supervisor import ONE

INVALID = OSError(errno.EINVAL, "Invalid argument")
NOT_NOW = NetworkError("not now", "rules", errno.EAGAIN)


@pytest.mark.parametrize("error", [RuntimeError("a fault"), INVALID], ids=repr)
def test_a_fault_while_the_tunnel_is_opened_ends_closed(error: Exception) -> None:
    """What was about to be opened is not opened after the closed rules."""
    world = World(ONE)
    world.fails["rules"] = [None, error]
    with pytest.raises(type(error)):
        world.run(until=10)
    assert world.transcript.count("rules closed") >= 1
    assert world.firewall.summary == "closed"
    assert not [line for line in world.transcript[:3] if line.startswith("rules open")]


def test_an_error_that_is_not_the_kernels_answer_is_a_fault_of_ours() -> None:
    """An OSError of a call that no adapter has translated, outside of any shortage."""
    world = World(ONE)
    with pytest.raises(OSError, match="Invalid argument"):
        world.run((10, lambda: world.fails.update({"routing drift": [INVALID]})), until=30)
    assert world.clock.now < world.since(15)
    assert world.firewall.summary == "closed"


def test_the_same_error_on_the_way_back_is_tried_again() -> None:
    """The stricter state is not in force yet, and nothing else would bring it there."""
    world = World(ONE)

    def fails() -> None:
        world.fails["routing drift"] = [NetworkError("no")]
        world.fails["rules"] = [INVALID]
        world.supervisor.kernel_changed()

    world.run((10, fails), until=30)
    assert world.fails["rules"] == [], "control: it was raised"
    assert world.at(29).healthy
    assert world.firewall.summary == "closed", "at the end"


def test_after_a_shortage_on_the_way_back_a_refusal_counts_again() -> None:
    """The rules are closed, with the kernel's own words as the reason."""
    world = World(ONE)

    def fails() -> None:
        world.fails["routing drift"] = [NetworkError("no")]
        world.fails["rules"] = [NOT_NOW, FirewallError("no such table"), None]
        world.supervisor.kernel_changed()

    world.run((10, fails), until=40)
    reasons = {status.reason for status in world.published}
    assert {Reason.UNCHECKED, Reason.FIREWALL} <= reasons
    assert world.at(39).healthy


def test_after_a_shortage_on_the_way_back_another_error_is_a_new_one() -> None:
    """It leads to a stricter state again, and is not taken for a part of the shortage."""
    world = World(ONE)

    def fails() -> None:
        world.fails["routing drift"] = [NetworkError("first")]
        world.fails["rules"] = [NOT_NOW]
        world.fails["routes"] = [NetworkError("second")]
        world.supervisor.kernel_changed()

    world.run((10, fails), until=30)
    assert world.fails["routes"] == [], "control: it was raised"
    seen = {(status.reason, status.detail) for status in world.published}
    assert (Reason.NOT_BUILT, "second") in seen
    assert (Reason.UNCHECKED, "second") not in seen
    assert world.at(29).healthy


def test_a_stop_whose_rules_came_late_has_the_locked_routes_too() -> None:
    """The tunnel's table would lead to an interface that is about to go."""
    world = World(ONE)
    world.run((9.9, lambda: world.fails.update(rules=[NOT_NOW] * 2)), until=10)
    assert world.fails["rules"] == [], "control: it was short"
    last = len(world.transcript) - world.transcript[::-1].index("rules closed")
    assert "routes nowhere" in world.transcript[last:]
