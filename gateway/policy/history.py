"""What the gateway remembers of its own past: transitions, samples and sums; pure.

A transition is a change of health or of its reason, or of the state. States that only take turns
while a connection is sought count as one: otherwise a long outage would be all that is remembered.
"""

from collections import Counter
from dataclasses import replace

from gateway.model.frozen import frozen
from gateway.policy.report import Status
from gateway.policy.states import Reason

MOST_TRANSITIONS = 100
MOST_SAMPLES = 60
SAMPLE_EVERY = 60.0
"""Seconds from one sample to the next: the samples are of the last hour."""
LONGEST_DETAIL = 200
"""Characters of a detail: other programs can make it long."""
LARGEST_ANSWER = 262144
"""Bytes of the answer, if each letter of each detail takes twelve of them as JSON."""

SEEKING = frozenset({"resolving", "fetching", "connecting"})
"""States that take turns while a connection is sought."""


@frozen
class Transition:
    """The gateway was in `state` from `at` on, for `reason`; `detail` is the last one known.

    The condition before it had lasted for `seconds`.
    """

    at: float
    state: str
    healthy: bool
    reason: Reason
    detail: str = ""
    seconds: float = 0.0


@frozen
class Sample:
    """The tunnel at `at`: seconds since the handshake, None without one, and bytes.

    The bytes are those of the interface: they begin at zero whenever it is built.
    """

    at: float
    handshake_age: float | None
    received: int
    sent: int


@frozen
class History:
    """The last MOST_TRANSITIONS transitions and MOST_SAMPLES samples, the oldest first.

    Times are seconds on the clock of the statuses. `counts` are all transitions by their reason,
    and `red_before` the seconds without health until the last transition.
    """

    transitions: tuple[Transition, ...] = ()
    samples: tuple[Sample, ...] = ()
    counts: tuple[tuple[Reason, int], ...] = ()
    red_before: float = 0.0

    def noted(self, status: Status) -> "History":
        """Return the history with `status`, which may be the same as before."""
        history, samples = self._with_transition(status), _sampled(self.samples, status)
        return history if samples is self.samples else replace(history, samples=samples)

    def red_seconds(self, now: float) -> float:
        """Return for how many seconds workloads could not use the network, until `now`."""
        last = self.transitions[-1] if self.transitions else None
        is_red = last is not None and not last.healthy
        return self.red_before + (max(0.0, now - last.at) if last and is_red else 0.0)

    def _with_transition(self, status: Status) -> "History":
        last = self.transitions[-1] if self.transitions else None
        if last is None or _condition(last) != _condition(status):
            return self._changed(last, status)
        detail = status.detail[:LONGEST_DETAIL] or last.detail
        if (last.state, last.detail) == (status.state, detail):
            return self
        last = replace(last, state=status.state, detail=detail)
        return replace(self, transitions=(*self.transitions[:-1], last))

    def _changed(self, last: Transition | None, status: Status) -> "History":
        since = status.at if last is None else last.at
        now = Transition(
            status.at,
            status.state,
            status.healthy,
            status.reason,
            status.detail[:LONGEST_DETAIL],
            status.at - since,
        )
        counts = Counter(dict(self.counts)) + Counter([status.reason])
        return replace(
            self,
            transitions=(*self.transitions, now)[-MOST_TRANSITIONS:],
            counts=tuple(counts.items()),
            red_before=self.red_seconds(status.at),
        )


def _sampled(before: tuple[Sample, ...], status: Status) -> tuple[Sample, ...]:
    """Return the samples with one of `status`, if it is time for one."""
    if before and status.at < before[-1].at + SAMPLE_EVERY:
        return before
    now = Sample(status.at, status.handshake_age, status.received, status.sent)
    return (*before, now)[-MOST_SAMPLES:]


def _condition(it: Status | Transition) -> tuple[str, bool, Reason]:
    """Return what makes a difference that is a transition."""
    return "" if it.state in SEEKING else it.state, it.healthy, it.reason
