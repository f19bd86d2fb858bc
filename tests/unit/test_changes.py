"""What was read is remembered until there is a notice, and never where that is not known."""

import errno
import math
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.system.changes import AT_ONCE, FRESH_FOR, UNSETTLED_FOR, Changes
from gateway.system.netns import OWN, Netns


class Notices(Netns):
    """A namespace whose notices the test sends; `fails` is the error of the next socket."""

    def __init__(self) -> None:
        super().__init__(None, "notices")
        self.fails: OSError | None = None
        self.kernel: socket.socket | None = None

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return one end of a pair; the other is the kernel's."""
        assert (family, kind, protocol) == (
            socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE
        )  # fmt: skip
        if self.fails:
            raise self.fails
        self.close_kernel()
        ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return Bound(fileno=ours.detach())

    def close_kernel(self) -> None:
        """Close the kernel's end."""
        if self.kernel:
            self.kernel.close()

    def notice(self) -> None:
        """Send a notice."""
        assert self.kernel
        self.kernel.send(b"changed")


class Bound(socket.socket):
    """A socket that can be bound to groups."""

    def bind(self, address: object) -> None:
        """Take every group."""
        assert address == (0, 0x800405D1), address


@pytest.fixture
def notices() -> Iterator[Notices]:
    """Return a namespace without notices."""
    found = Notices()
    yield found
    found.close_kernel()


class Reader:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> int:
        """Return how often it was asked, this time included."""
        self.times += 1
        return self.times


def test_nothing_is_read_twice_without_a_notice(notices: Notices) -> None:
    """Each thing is remembered apart, and the last question about it alone."""
    changes, read, other = Changes(notices), Reader(), Reader()
    assert [changes.remembered("a", None, read) for _ in range(3)] == [1, 1, 1]
    assert changes.remembered("b", 1, other) == 1
    assert changes.remembered("b", 2, other) == 2
    assert changes.remembered("b", 1, other) == 3
    assert changes.remembered("a", None, read) == 1
    changes.forget("a")
    assert changes.remembered("a", None, read) == 2
    changes.forget("never read")


def test_a_notice_lets_everything_be_read_again(notices: Notices) -> None:
    """Each time until its effects are there, and then once, however many there were."""
    now = 1000.0
    changes, read, other = Changes(notices, lambda: now), Reader(), Reader()
    for reader in (read, other):
        changes.remembered(reader, None, reader)
    for _ in range(3):
        notices.notice()
    for reader in (read, other):
        assert [changes.remembered(reader, None, reader) for _ in range(2)] == [2, 3]
    now += UNSETTLED_FOR
    for reader in (read, other):
        assert [changes.remembered(reader, None, reader) for _ in range(2)] == [4, 4]


def test_a_change_while_it_is_read_is_found_the_next_time(notices: Notices) -> None:
    """The notice comes after the question and before the answer."""
    now = 1000.0
    changes, read = Changes(notices, lambda: now), Reader()
    changes.happened()

    def racing() -> int:
        notices.notice()
        return read()

    assert changes.remembered("a", None, racing) == 1
    assert changes.remembered("a", None, read) == 2
    now += UNSETTLED_FOR
    assert changes.remembered("a", None, read) == 3
    assert changes.remembered("a", None, read) == 3


def test_a_flood_is_taken_in_parts(notices: Notices) -> None:
    """Each question takes a bounded number, and counts as a change while there are more."""
    changes = Changes(notices)
    changes.happened()
    assert not changes.happened()
    assert notices.kernel
    notices.kernel.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):  # its queue is full
        while True:
            notices.notice()
            sent += 1
    questions = -(-sent // AT_ONCE) if sent % AT_ONCE else sent // AT_ONCE + 1
    assert [changes.happened() for _ in range(questions)] == [
        *[True] * (questions - 1),
        sent % AT_ONCE > 0,
    ]
    assert not changes.happened()


def test_a_notice_that_was_lost_is_a_change(
    notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOBUFS, or any other error of the socket."""
    changes = Changes(notices)
    changes.happened()
    assert not changes.happened()

    def lost(_self: object, _size: int) -> bytes:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patch:
        patch.setattr(Bound, "recv", lost, raising=False)
        assert changes.happened()
    assert not changes.happened()


@pytest.mark.parametrize("when", ["opened", "bound"])
def test_without_a_socket_nothing_is_remembered(
    notices: Notices, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It is tried again each time."""
    changes, read = Changes(notices), Reader()
    shortage = OSError(errno.EMFILE, "Too many open files")

    def refuse(_self: object, _address: object) -> None:
        raise shortage

    with monkeypatch.context() as patch:
        if when == "opened":
            notices.fails = shortage
        else:
            patch.setattr(Bound, "bind", refuse)
        assert [changes.remembered("a", None, read) for _ in range(3)] == [1, 2, 3]
    notices.fails = None
    assert [changes.remembered("a", None, read) for _ in range(3)] == [4, 4, 4]


def test_what_is_old_is_read_again(notices: Notices) -> None:
    """Not every change has a notice."""
    now = 1000.0
    changes, read = Changes(notices, lambda: now), Reader()
    assert changes.remembered("a", None, read) == 1
    now += FRESH_FOR - 0.1
    assert changes.remembered("a", None, read) == 1
    now += 0.1
    assert changes.remembered("a", None, read) == 2
    now += FRESH_FOR - 0.1
    assert changes.remembered("a", None, read) == 2


def test_where_each_change_has_a_notice_nothing_becomes_old(
    notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notice, one that was lost, and a socket that is gone count as before."""
    now = 1000.0
    changes = Changes(notices, lambda: now, fresh_for=math.inf)
    assert changes.happened()
    now += 1e9
    assert not changes.happened()
    notices.notice()
    assert changes.happened()

    def lost(_self: object, _size: int) -> bytes:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patch:
        patch.setattr(Bound, "recv", lost, raising=False)
        assert changes.happened()
    assert not changes.happened()
    changes.close()
    assert changes.happened()


def test_after_it_was_closed_everything_is_read(notices: Notices) -> None:
    """Closing twice raises nothing."""
    changes, read = Changes(notices), Reader()
    assert changes.remembered("a", None, read) == 1
    changes.close()
    changes.close()
    assert changes.remembered("a", None, read) == 2


def test_what_cannot_be_read_is_not_remembered(notices: Notices) -> None:
    """The error is raised, each time."""
    changes = Changes(notices)
    tries = 0

    def fails() -> None:
        nonlocal tries
        tries += 1
        raise OSError("no")

    for number in (1, 2):
        with pytest.raises(OSError, match="no"):
            changes.remembered("a", None, fails)
        assert tries == number


def test_by_default_it_listens_in_the_gateways_namespace() -> None:
    """Any user may listen."""
    changes = Changes()
    assert changes._netns is OWN  # noqa: SLF001 - what the default is
    assert changes.happened()
    changes.close()
