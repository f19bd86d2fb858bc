"""What is told of what cannot be enforced."""

from dataclasses import replace

import pytest

from gateway.model import Candidate, Config
from gateway.policy import report
from tests.scenarios import IPV4_ONLY

UNMARKED = Candidate(IPV4_ONLY.private_key, IPV4_ONLY.addresses, IPV4_ONLY.peers)
REMEDY = "cap_drop: [NET_RAW]"


def test_a_machine_that_can_do_everything_has_no_limits() -> None:
    """Nobody is bothered with what he does not have."""
    assert list(report.limits_of_guard(routed=True, in_advance=True)) == []
    assert list(report.limits_of_config(Config((UNMARKED,)))) == []


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (report.limits_of_guard(routed=False, in_advance=True), "routed"),
        (report.limits_of_guard(routed=True, in_advance=False), "a moment later"),
        ([report.limit_without_queues("no CAP_NET_RAW")], "AF_XDP"),
        (report.limits_of_config(Config((UNMARKED, replace(UNMARKED, fwmark=7)))), "FwMark"),
    ],
    ids=["not routed", "not in advance", "AF_XDP", "a chosen mark"],
)
def test_each_limit_is_named_with_its_remedy(told: object, what: str) -> None:
    """One line each, which is not taken for the absence of the guard."""
    (line,) = tuple(told)  # type: ignore[arg-type]  # whatever iterates
    assert what in line
    assert REMEDY in line
    assert not line.startswith(report.NO_GUARD)


def test_without_a_guard_both_remedies_are_told_once() -> None:
    """What would bring the guard, and what makes it needless."""
    told = report.limit_without_guard("the program nft is not installed", "install it")
    assert told.startswith(f"{report.NO_GUARD}: the program nft is not installed; install it; or ")
    assert REMEDY in told
    assert report.limit_without_guard("no hook", report.DROP_NET_RAW).count(REMEDY) == 1
