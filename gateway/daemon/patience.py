"""Waiting before there is a loop, and the signals that end the waiting and the loop."""

import asyncio
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

import structlog

from gateway.errors import KernelError, ProcessError, StoppedError, is_shortage
from gateway.policy.retry import wait_after
from gateway.policy.timing import Timing

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""They are blocked since the lock (gateway.__main__) and wait until the loop can answer them."""

RELOAD_SIGNAL = signal.SIGHUP
"""It is blocked like them, so that it ends no gateway that has no loop yet."""

T = TypeVar("T")


def until_it_works(work: Callable[[], T], timing: Timing) -> T:
    """Return what `work` returns, however often a shortage makes it fail.

    For use while STOP_SIGNALS are blocked. Raises StoppedError when one of them arrives between two
    attempts, and what `work` raises for any other reason.
    """
    attempt = 0
    while True:
        try:
            return work()
        except (KernelError, ProcessError, OSError, MemoryError) as err:
            if not is_shortage(err):
                raise
            structlog.get_logger().warning(
                "could not check or change the kernel", problem=str(err) or type(err).__name__
            )
        attempt += 1
        if signal.sigtimedwait(STOP_SIGNALS, wait_after(attempt, timing)) is not None:
            raise StoppedError("asked to stop during a shortage")


def is_asked_to_stop() -> bool:
    """Return whether one of STOP_SIGNALS waits; for use while they are blocked."""
    return not signal.sigpending().isdisjoint(STOP_SIGNALS)


def at_signals(numbers: Collection[int], work: Callable[[], None]) -> None:
    """Call `work` on the running loop at each of the signals `numbers`, and unblock them.

    By Python's own handler too, and not only by the byte through which asyncio learns of a signal:
    a pipe that does not take it would leave the gateway deaf to `docker stop`.
    """
    loop = asyncio.get_running_loop()

    def soon(*_: object) -> None:
        with suppress(RuntimeError):  # a loop that has ended needs no second signal
            loop.call_soon_threadsafe(work)

    for number in numbers:
        signal.signal(number, soon)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
