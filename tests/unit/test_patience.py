"""Waiting before there is a loop: shortages, and the signals that end the waiting."""

import asyncio
import errno
import signal
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from gateway import __main__
from gateway.daemon.patience import RELOAD_SIGNAL, STOP_SIGNALS, at_signals, until_it_works
from gateway.errors import FirewallError, NetworkError, ProcessError, StoppedError
from gateway.policy.timing import Timing
from gateway.system.order_signals import SIGNALS

SHORT = Timing(retry_first=0.01, retry_last=0.02)
NOT_NOW = [
    NetworkError("no socket", "eth0", errno.EMFILE),
    ProcessError("nft", "could not be started", "", errno.EAGAIN),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    MemoryError(),
]


class Work:
    """Raises `errors`, one with each call, and then returns `done`."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.called: list[float] = []

    def __call__(self) -> str:
        """Work."""
        self.called.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture(autouse=True)
def blocked() -> Iterator[None]:
    """Block the signals, as the lock does, and restore their handlers."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    yield
    while signal.sigtimedwait(STOP_SIGNALS, 0) is not None:
        pass
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_what_works_at_once_is_not_repeated() -> None:
    """And nothing is logged."""
    work = Work()
    with capture_logs() as logs:
        assert until_it_works(work, SHORT) == "done"
    assert (len(work.called), logs) == (1, [])


@pytest.mark.parametrize("error", NOT_NOW, ids=repr)
def test_a_shortage_is_waited_for_and_named(error: BaseException) -> None:
    """By its text, or by its kind where it has none."""
    work = Work(error, error)
    with capture_logs() as logs:
        assert until_it_works(work, SHORT) == "done"
    assert len(work.called) == 3
    expected = {
        "event": "could not check or change the kernel",
        "log_level": "warning",
        "problem": str(error) or "MemoryError",
    }
    assert logs == [expected, expected]


def test_the_waits_grow() -> None:
    """As after a shortage in the loop."""
    work = Work(*(MemoryError() for _ in range(3)))
    timing = Timing(retry_first=0.05, retry_last=0.1)
    until_it_works(work, timing)
    waits = [after - before for before, after in zip(work.called, work.called[1:], strict=False)]
    assert [wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.1), strict=True)] == [
        True
    ] * 3
    assert waits[0] < 0.1


@pytest.mark.parametrize(
    "error",
    [FirewallError("no such table", "", errno.ENOENT), OSError(errno.EPERM, ""), RuntimeError()],
    ids=repr,
)
def test_any_other_error_is_raised_at_once(error: BaseException) -> None:
    """To try again would not help."""
    work = Work(error)
    with pytest.raises(type(error)) as caught:
        until_it_works(work, SHORT)
    assert caught.value is error
    assert len(work.called) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_the_waiting(number: signal.Signals) -> None:
    """The namespace is closed, and nothing has begun."""
    signal.raise_signal(number)
    work = Work(*(MemoryError() for _ in range(100)))
    with pytest.raises(StoppedError):
        until_it_works(work, Timing())
    assert len(work.called) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_loop_also_if_it_came_before(number: signal.Signals) -> None:
    """It is blocked until the loop can answer; a second one after the end is ignored."""
    stops: list[str] = []

    async def run() -> None:
        done = asyncio.Event()

        def stop() -> None:
            stops.append("stop")
            done.set()

        signal.raise_signal(number)
        assert not stops
        at_signals(STOP_SIGNALS, stop)
        async with asyncio.timeout(5):
            await done.wait()

    asyncio.run(run())
    assert stops == ["stop"]
    signal.raise_signal(number)
    assert stops == ["stop"]


def test_the_lock_blocks_every_signal_that_the_loop_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before that, the request to reload would end any process but process 1."""
    blocked: set[int] = set()
    monkeypatch.setattr(signal, "pthread_sigmask", lambda _how, numbers: blocked.update(numbers))
    __main__._block_stop_signals()  # noqa: SLF001 - the lock calls it with everything else
    assert blocked == {*STOP_SIGNALS, RELOAD_SIGNAL, *SIGNALS.values()}
