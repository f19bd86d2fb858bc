"""A limit on how long work takes in all: a host could send an octet from time to time, for ever."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_time(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise what `error` returns in what takes longer than that; only for the main thread."""

    def late(_number: int, _frame: object) -> None:
        raise error()

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
