"""The log of shortages: the first of each kind, and their end."""

import structlog

from gateway.policy.actions import Work
from gateway.policy.retry import Setback, setback_after
from gateway.policy.timing import Moment


class Setbacks:
    """The failures in a row; `current` is the last of them, None when the kernel answers."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self.current: Setback | None = None

    def add(self, error: Exception, moment: Moment, work: Work | None) -> None:
        """Count one more failure, of `work` if any, and log it unless it repeats the last."""
        problem = str(error) or type(error).__name__
        former = self.current
        self.current = setback_after(former, problem, moment, work)
        if former is None or former.problem != problem:
            self._log.warning("could not check or change the kernel", problem=problem)

    def end(self) -> None:
        """Note that everything worked again."""
        if self.current is not None:
            self._log.info("kernel calls succeed again", attempts=self.current.attempt)
        self.current = None
