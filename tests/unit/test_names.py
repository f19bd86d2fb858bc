"""The resolvers that the container was given are found at the start, if at all possible."""

import asyncio
import errno
import time

import pytest

from gateway.daemon import names
from gateway.daemon.names import TAKE_ATTEMPTS, TAKE_PAUSE, take_resolvers
from gateway.errors import NetworkError
from gateway.model import Address, Config, Secret
from gateway.system.aside import Aside
from tests.scenarios import IPV4_ONLY

CONFIG = Config((IPV4_ONLY,))
SHORT = NetworkError("no descriptor", "/etc/resolv.conf", errno.EMFILE)
BUSY = NetworkError("a workload writes to it", "/etc/resolv.conf", errno.EBUSY)
ABSENT = NetworkError("no such file", "/etc/resolv.conf", errno.ENOENT)


class Resolvers:
    """The resolver file and its copy; `errors` are what the next attempts to read them raise."""

    def __init__(self, *errors: NetworkError, writable: bool = True) -> None:
        self.errors = list(errors)
        self.writable = writable
        self.taken: list[tuple[Secret, bool]] = []
        self.written: list[tuple[Address, ...]] = []

    def take(self, key: Secret, *, first: bool) -> None:
        """Find the resolvers."""
        self.taken.append((key, first))
        if self.errors:
            raise self.errors.pop(0)

    def write(self, resolvers: tuple[Address, ...]) -> None:
        """Write the file."""
        self.written.append(resolvers)
        if not self.writable:
            raise NetworkError("read-only", "/etc/resolv.conf", errno.EROFS)


def take(given: Resolvers, *, first: bool = True, pause: float = 0.001) -> None:
    """Have the resolvers taken, with this pause between two attempts, in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "TAKE_PAUSE", pause)
        files = Aside("/etc/resolv.conf")
        asyncio.run(take_resolvers(given, CONFIG, files, first=first))  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [True, False])
def test_they_are_sealed_with_the_key_of_the_first_candidate(*, first: bool) -> None:
    """Once, and the file gets the resolvers of that candidate."""
    given = Resolvers()
    take(given, first=first)
    assert given.taken == [(IPV4_ONLY.private_key, first)]
    assert given.written == [IPV4_ONLY.dns]


@pytest.mark.parametrize("error", [SHORT, BUSY], ids=["shortage", "busy"])
def test_a_moment_in_which_the_file_cannot_be_read_is_waited_for(error: NetworkError) -> None:
    """It is tried ten times, for two and a half seconds."""
    given = Resolvers(error, error)
    take(given)
    assert (len(given.taken), len(given.written)) == (3, 1)
    lasting = Resolvers(*[error] * 100)
    take(lasting)
    assert (len(lasting.taken), len(lasting.written)) == (10, 1)
    assert TAKE_ATTEMPTS * TAKE_PAUSE == 2.5
    began = time.monotonic()
    take(Resolvers(error), pause=0.1)
    assert time.monotonic() - began >= 0.1


def test_a_file_that_is_not_there_is_not_waited_for() -> None:
    """It is written all the same."""
    given = Resolvers(ABSENT, ABSENT)
    take(given)
    assert (len(given.taken), len(given.written)) == (1, 1)


def test_a_file_that_cannot_be_written_is_reported_later() -> None:
    """With the tunnel's resolvers, when there is a status to say so."""
    given = Resolvers(writable=False)
    take(given)
    assert len(given.written) == 1
