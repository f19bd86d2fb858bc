"""The answers to errors of the kernel: a stricter state, or another attempt after a shortage."""

import structlog

from gateway.errors import FirewallError, KernelError, explained, is_shortage
from gateway.policy.actions import Work
from gateway.policy.events import Event, Refused
from gateway.policy.machine import stricter
from gateway.policy.retry import Setback, setback_after
from gateway.policy.states import State
from gateway.policy.timing import Moment


class Setbacks:
    """The failures in a row; `current` is the last of them, None when the kernel answers."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self.current: Setback | None = None

    def add(self, error: Exception, moment: Moment, work: Work | None) -> None:
        """Count one more failure, of `work` if any, and log it unless it repeats the last."""
        problem = explained(error)
        former = self.current
        self.current = setback_after(former, problem, moment, work)
        if former is None or former.problem != problem:
            self._log.warning("could not check or change the kernel", problem=problem)

    def end(self) -> None:
        """Note that everything worked again."""
        if self.current is not None:
            self._log.info("kernel calls succeed again", attempts=self.current.attempt)
        self.current = None


def answer_to(
    error: KernelError | OSError | MemoryError, state: State, falling: Event | None
) -> Event | None:
    """Return the event that `error` leads to; None where the same is tried again later.

    The one place where errors of the kernel are judged. A shortage changes no state. Rules that
    the kernel refused close the namespace; what else failed leads to the state before. `falling`
    is the event of an earlier error, until the state that it led to is in force: where that state
    fails too, closing is tried, and then only repeated. Raises an OSError of our own.
    """
    if is_shortage(error):
        return None
    if falling is None and not isinstance(error, KernelError):
        raise error
    is_refusal = isinstance(error, FirewallError)
    if falling is None or (is_refusal and not isinstance(falling, Refused)):
        return Refused(explained(error)) if is_refusal else stricter(state, explained(error))
    return None
