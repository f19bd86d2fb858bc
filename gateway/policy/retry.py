"""A shortage: the kernel can be neither asked nor changed for now.

It leads to no other state, because the kernel has refused nothing: what was read back last stays in
force. The same is tried again, after waits that grow; health is red meanwhile.
"""

from collections.abc import Collection

from gateway.model.frozen import frozen
from gateway.policy.actions import Work
from gateway.policy.events import REPORTS, Asked, Event, Tick
from gateway.policy.timing import Moment, Timing


@frozen
class Setback:
    """The `attempt`th failure in a row, for `problem`; the next attempt is due at `retry_at`.

    It is over when an attempt succeeds. Where `work` failed, that takes its result.
    """

    problem: str
    attempt: int
    retry_at: float
    work: Work | None = None

    def lets_pass(self, event: Event, now: float) -> bool:
        """Return whether `event` is followed at `now`: clock and questions wait until `retry_at`.

        A question because a workload may ask as often as it likes, and what is followed is a new
        attempt. A stop is followed, and so is a change: a new link has to have a guard, or be down.
        What a change has started reports once, and nothing repeats that.
        """
        return now >= self.retry_at or not isinstance(event, Tick | Asked)

    def is_over(self, event: Event, under_way: Collection[Work]) -> bool:
        """Return whether an attempt has succeeded: `event` was followed, and nothing raised.

        `under_way` is the work in progress. It may be the next of the kind that `event` reports.
        """
        return self.work not in under_way or REPORTS.get(type(event)) is self.work


def setback_after(
    former: Setback | None, problem: str, moment: Moment, work: Work | None = None
) -> Setback:
    """Return the setback that `problem` is, after `former`; `work` is what failed, if any."""
    attempt = former.attempt + 1 if former else 1
    return Setback(problem, attempt, moment.now + wait_after(attempt, moment.timing), work)


def wait_after(attempt: int, timing: Timing) -> float:
    """Return the seconds from the `attempt`th failure in a row to the next attempt."""
    return min(timing.retry_last, timing.retry_first * 2.0 ** min(attempt - 1, 10))
