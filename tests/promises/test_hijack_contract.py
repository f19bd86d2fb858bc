"""What the redirection of questions has to do: one list for the kernel's and for the fake."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from gateway.daemon.ports import Redirector
from gateway.firewall.nft.firewall import HIJACK, remove_leftover
from gateway.firewall.nft.hijack import HijackTable
from gateway.firewall.nft.program import Nft
from gateway.policy.hijack import Redirection
from gateway.system.netns import Netns
from tests.fakes.redirector import FakeRedirector
from tests.lab.namespace import Namespace
from tests.unit.test_hijack import WANTED

pytestmark = [pytest.mark.no_gateway, pytest.mark.promise("P10", "P17")]

REAL = pytest.param("kernel", marks=pytest.mark.lab)


@dataclass(frozen=True)
class Subject:
    """The redirector, and what another program or a later gateway does to its table."""

    redirector: Redirector[Redirection]
    drop_table: Callable[[], None]
    remove: Callable[[], None]


def in_memory() -> Subject:
    """Return the fake."""
    redirector: FakeRedirector[Redirection] = FakeRedirector()

    def drop() -> None:
        redirector.is_there = False

    return Subject(redirector, drop, drop)


def in_kernel(stack: ExitStack) -> Subject:
    """Return the real one."""
    own = Namespace(f"phij{os.getpid()}")
    own.create()
    stack.callback(own.delete)
    here = Netns.at(own.path)
    stack.callback(here.close)
    return Subject(
        HijackTable.find(Nft(netns=here)),
        lambda: own.nft(f"delete table {HIJACK}"),
        lambda: remove_leftover(here, HIJACK),
    )


@pytest.fixture(params=["in memory", REAL])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Return each in turn, with nothing there yet."""
    with ExitStack() as stack:
        yield in_memory() if request.param == "in memory" else in_kernel(stack)


def test_a_redirection_is_held_until_another_one_is(subject: Subject) -> None:
    """From nothing to all of it, and back; each differs from the other."""
    redirector = subject.redirector
    assert redirector.verify(None)
    for wanted in (None, WANTED, WANTED, None):
        redirector.apply(wanted)
        assert redirector.verify(wanted) == ()
    assert redirector.verify(WANTED)


def test_a_table_that_is_gone_is_found_and_put_back(subject: Subject) -> None:
    """Control: it was in force."""
    redirector = subject.redirector
    redirector.apply(WANTED)
    assert redirector.verify(WANTED) == ()
    subject.drop_table()
    assert redirector.verify(WANTED)
    redirector.apply(WANTED)
    assert redirector.verify(WANTED) == ()


def test_what_an_earlier_run_has_left_can_be_removed(subject: Subject) -> None:
    """Where there is nothing, too."""
    subject.remove()
    subject.redirector.apply(WANTED)
    subject.remove()
    assert subject.redirector.verify(WANTED)
