"""What the supervisor does when the kernel can be neither asked nor changed for now.

A setback changes no state: what is in force is what was read back last. It is retried with growing
pauses, and health is red meanwhile.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.daemon.enforcement import Enforcement
from gateway.errors import NotClosedError, is_shortage
from gateway.policy.timing import Timing


@dataclass(frozen=True)
class Setback:
    """The `attempt`th failure in a row, for `problem`; the next attempt is due at `retry_at`."""

    problem: str
    attempt: int
    retry_at: float


class Setbacks:
    """The failures in a row; `current` is the last of them, None when all is well."""

    def __init__(self, clock: Callable[[], float], timing: Timing) -> None:
        self._timing = timing
        self._clock = clock
        self._log = structlog.get_logger()
        self.current: Setback | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds until the next attempt is due; 0 or less when it is."""
        return self.current.retry_at - self._clock() if self.current else 0.0

    def add(self, error: Exception) -> None:
        """Count one more failure, and log it when it is another one than the last."""
        problem = str(error) or type(error).__name__
        former = self.current
        attempt = former.attempt + 1 if former else 1
        first, last = self._timing.retry_first, self._timing.retry_last
        pause = min(last, first * 2.0 ** min(attempt - 1, 10))
        self.current = Setback(problem, attempt, self._clock() + pause)
        if former is None or former.problem != problem:
            self._log.warning("could not check or change the kernel", problem=problem)

    def end(self) -> None:
        """Note that everything worked again."""
        if self.current is not None:
            self._log.info("the kernel answers again", attempts=self.current.attempt)
        self.current = None


async def end_closed(kernel: Enforcement, clock: Callable[[], float], timing: Timing) -> None:
    """Put the closed rules into force for the end, again and again while there is a shortage.

    After `Timing.closing_time` the links are set down instead, because nobody is left to try again.
    Raises NotClosedError, whose message says what holds the namespace closed, or that nothing does.
    """
    deadline = clock() + timing.closing_time
    while True:
        try:
            kernel.close()
        except Exception as err:
            if is_shortage(err) and clock() < deadline:
                await asyncio.sleep(timing.closing_pause)
                continue
            problem = str(err) or type(err).__name__
            raise NotClosedError(f"{problem}; {_links(kernel.shut())}") from err
        return


def _links(still_up: tuple[str, ...] | None) -> str:
    if still_up is None:
        return "the links are as they were, and so are the rules"
    return f"still up: {', '.join(still_up)}" if still_up else "every link is down"
