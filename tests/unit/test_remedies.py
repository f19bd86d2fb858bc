"""Every reason and every error of the kernel that a person may meet comes with what to do."""

import errno
from dataclasses import replace
from typing import Final

import pytest

from gateway.errors import REMEDIES as OF_ERRORS
from gateway.errors import (
    SHORTAGES,
    FirewallError,
    NetworkError,
    TunnelError,
    explained,
)
from gateway.policy.remedies import REMEDIES, remedy_of
from gateway.policy.report import Status
from gateway.policy.reports import ResolverReport
from gateway.policy.states import Reason

ENDS_WITHOUT_HELP: Final = {
    *(Reason.ANSWERS, Reason.STARTING, Reason.STOPPING, Reason.MEASURING),
    *(Reason.MOVED, Reason.RETURNING, Reason.RECONFIGURED, Reason.REQUESTED),
}
"""Reasons about which a person has nothing to do."""
OF_THE_RESOLVER: Final = {Reason.RESOLVER_DOWN}
"""Reasons whose remedy depends on what failed."""
ENDS_BY_ITSELF: Final = {errno.ETIMEDOUT, errno.EINTR}
"""Shortages of time, which no setting of the container ends."""

STATUS: Final = Status(0.0, "connecting", healthy=False, reason=Reason.STARTING, since=0.0)


def test_every_reason_has_a_remedy_unless_it_ends_without_help() -> None:
    """Both ways, so that a new reason needs a decision."""
    assert set(REMEDIES) == set(Reason)
    without = {reason for reason, remedy in REMEDIES.items() if not remedy}
    assert without == ENDS_WITHOUT_HELP | OF_THE_RESOLVER


def test_the_diagnosis_of_a_handshake_is_the_remedy_once_there_is_one() -> None:
    """It knows more than the general text."""
    status = replace(STATUS, reason=Reason.NO_HANDSHAKE)
    assert "provider" in remedy_of(status)
    assert not remedy_of(replace(status, diagnosis="no_answer"))


def test_the_remedy_of_the_resolver_depends_on_what_failed() -> None:
    """Its own report has it."""
    down = replace(STATUS, reason=Reason.RESOLVER_DOWN)
    assert not remedy_of(down)
    report = ResolverReport("192.0.2.53", problem="it cannot start", remedy="set DNS_SERVER=off")
    assert remedy_of(replace(down, resolver=report)) == "set DNS_SERVER=off"


def test_every_shortage_has_a_remedy() -> None:
    """They keep health red until a limit is raised."""
    assert set(OF_ERRORS) >= SHORTAGES - ENDS_BY_ITSELF


@pytest.mark.parametrize("number", OF_ERRORS)
def test_an_error_of_the_kernel_comes_with_its_remedy(number: int) -> None:
    """The text keeps what failed, and where."""
    text = explained(TunnelError("make interface", "wg0", number))
    assert text == f"make interface: wg0; {OF_ERRORS[number]}"


def test_an_error_without_a_number_keeps_its_text() -> None:
    """So does one whose number says nothing to a person, and an exception without a text."""
    assert explained(FirewallError("no table", "filter")) == "no table: filter"
    assert explained(TunnelError("x", "wg0", errno.EBADMSG)) == "x: wg0"
    assert explained(MemoryError()) == "MemoryError"


def test_a_packet_that_our_rules_refuse_does_not_blame_a_capability() -> None:
    """The kernel says EPERM for both."""
    refused = NetworkError("send", "192.0.2.1", errno.EPERM)
    assert explained(refused) == "send: 192.0.2.1"
    assert "NET_ADMIN" in explained(FirewallError("replace rules", "filter", errno.EPERM))
