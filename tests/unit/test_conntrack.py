"""Forgetting flows: what is asked of the kernel, and what is made of its answers."""

import pytest

from gateway.errors import NetworkError
from gateway.system.conntrack import ATTEMPTS, MOST_COMPARED, _flush
from tests.fakes.conntrack import Conntrack, Flow


def numbered(*numbers: int) -> set[Flow]:
    """Return flows that differ in everything."""
    return {(number, b"%08d" % number) for number in numbers}


def test_flows_that_are_gone_are_not_listed() -> None:
    """Their number is enough, however many there were."""
    kernel = Conntrack(numbered(*range(100_000)))
    _flush(kernel)
    assert (kernel.flushes, kernel.listed, kernel.flows) == (1, 0, set())


def test_flows_that_begin_meanwhile_are_new_ones_and_stay() -> None:
    """They are distinguished from the old ones by number and addresses together."""
    generations = iter((numbered(1, 2), {(1, b"another."), (3, b"00000002")}))
    kernel = Conntrack(numbered(1), lambda _: next(generations))
    _flush(kernel)
    assert kernel.flushes == 2
    assert kernel.flows == {(1, b"another."), (3, b"00000002")}


def test_flows_that_stay_are_an_error_after_a_few_attempts() -> None:
    """It cannot be distinguished from one that begins again at once with the same number."""
    kernel = Conntrack(numbered(1), lambda flows: flows)
    with pytest.raises(NetworkError, match="still lists"):
        _flush(kernel)
    assert kernel.flushes == ATTEMPTS + 1


def test_more_flows_than_can_be_compared_are_an_error_and_cost_no_more() -> None:
    """A workload that begins flows all the time holds nothing up."""
    kernel = Conntrack(set(), lambda _: numbered(*range(MOST_COMPARED * 2)))
    with pytest.raises(NetworkError, match="not compared"):
        _flush(kernel)
    assert kernel.listed <= MOST_COMPARED + 1
