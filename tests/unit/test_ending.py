"""The end: closed rules, or links that are down, and a message that says which."""

import asyncio
import errno
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from gateway.daemon.ending import clear_away, end_closed
from gateway.errors import FirewallError, NetworkError, NotClosedError, TunnelError
from gateway.policy.timing import Timing

NOT_NOW = FirewallError("loading a table", "nft", errno.EAGAIN)
REFUSED = FirewallError("no such table")
TIMING = Timing(closing_time=0.3, closing_pause=0.05)


class Kernel:
    """Raises `errors`, one with each attempt to close; `still_up` is what stays up after that."""

    def __init__(self, *errors: BaseException, still_up: tuple[str, ...] | None = ()) -> None:
        self.errors = list(errors)
        self.still_up = still_up
        self.calls: list[str] = []

    def close(self) -> None:
        """Put the closed rules in."""
        self.calls.append("close")
        if self.errors:
            raise self.errors.pop(0)

    def shut(self) -> tuple[str, ...] | None:
        """Set the links down."""
        self.calls.append("shut")
        return self.still_up


def end(kernel: Kernel, clock: Callable[[], float] | None = None) -> None:
    """End with `kernel`, on the clock of the loop."""

    async def run() -> None:
        now = clock or asyncio.get_running_loop().time
        await end_closed(kernel, now, TIMING)  # type: ignore[arg-type]  # two of its methods

    asyncio.run(run())


def test_rules_that_go_in_are_the_end() -> None:
    """No link is set down."""
    kernel = Kernel()
    end(kernel)
    assert kernel.calls == ["close"]


def test_a_shortage_is_tried_again_until_its_time_is_over() -> None:
    """Then nothing tries again later, so the links go down."""
    kernel = Kernel(NOT_NOW, NOT_NOW)
    end(kernel)
    assert kernel.calls == ["close"] * 3
    lasting = Kernel(*[NOT_NOW] * 1000)
    with pytest.raises(NotClosedError, match=r"loading a table: nft; every link is down"):
        end(lasting)
    assert lasting.calls[-2:] == ["close", "shut"]
    assert 3 <= lasting.calls.count("close") <= 8, "every closing_pause, for closing_time"


def test_the_time_is_over_when_it_is_reached() -> None:
    """Not one attempt later."""
    kernel = Kernel(*[NOT_NOW] * 1000)
    times = iter([100.0, 100.0 + TIMING.closing_time])
    with pytest.raises(NotClosedError):
        end(kernel, lambda: next(times))
    assert kernel.calls == ["close", "shut"]


@pytest.mark.parametrize(
    ("still_up", "said"),
    [
        ((), "every link is down"),
        (("eth0", "eth1"), "still up: eth0, eth1"),
        (None, "the links are as they were, and so are the rules"),
    ],
)
def test_the_message_says_what_holds_the_namespace_closed(
    still_up: tuple[str, ...] | None, said: str
) -> None:
    """It is the last line of the log."""
    kernel = Kernel(REFUSED, still_up=still_up)
    with pytest.raises(NotClosedError) as caught:
        end(kernel)
    assert str(caught.value) == f"no such table; {said}"
    assert caught.value.__cause__ is REFUSED
    assert kernel.calls == ["close", "shut"]


def test_an_error_without_a_text_is_named_by_its_kind() -> None:
    """A MemoryError, for example."""
    with pytest.raises(NotClosedError, match=r"^RuntimeError; every link is down$"):
        end(Kernel(RuntimeError()))


def test_being_cancelled_waits_for_the_rules() -> None:
    """A producer that fails cancels the loop, also while it closes."""
    kernel = Kernel(NOT_NOW, NOT_NOW, NOT_NOW)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        closing = loop.create_task(end_closed(kernel, loop.time, TIMING))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    asyncio.run(run())
    assert kernel.calls == ["close"] * 4


class Remains:
    """An interface to remove; `error` is what that raises."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.calls: list[str] = []
        self.tunnel = self

    async def down(self) -> None:
        """Remove the interface."""
        self.calls.append("down")
        if self.error is not None:
            raise self.error


def test_the_interface_goes_and_nothing_else() -> None:
    """Without a word in the log."""
    remains = Remains(None)
    with capture_logs() as logs:
        asyncio.run(clear_away(remains))  # type: ignore[arg-type]  # two of its parts
    assert (remains.calls, logs) == (["down"], [])


@pytest.mark.parametrize(
    "error",
    [TunnelError("no"), NetworkError("no"), OSError(errno.EIO, "no"), MemoryError("no")],
    ids=repr,
)
def test_what_cannot_be_removed_is_logged(error: BaseException) -> None:
    """The closed rules stay, so nothing leaks."""
    with capture_logs() as logs:
        asyncio.run(clear_away(Remains(error)))  # type: ignore[arg-type]
    assert logs == [{"event": "could not clean up", "log_level": "error", "problem": str(error)}]


def test_a_fault_of_ours_is_not_taken_for_one_of_the_kernel() -> None:
    """It is raised."""
    with pytest.raises(RuntimeError):
        asyncio.run(clear_away(Remains(RuntimeError())))  # type: ignore[arg-type]
