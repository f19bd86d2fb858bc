"""The order of servers by the time that their handshakes take: `SERVER_ORDER=latency`.

Before the first choice, and again when all servers have failed, the first MOST_TIMED candidates
have one handshake each, one after the other: the gateway connects with each as ever, and the tunnel
stays closed. Then it connects with the fastest. The others follow in the order of their times, and
those without one keep their order. Where no handshake comes, the ordinary round follows, in which a
server has more time.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from gateway.model import Candidate, Config, Times
from gateway.policy.states import Connecting, State, Trial, Turn
from gateway.policy.timing import Moment

C = TypeVar("C", bound=Candidate)

MOST_TIMED = 8
"""How many servers are timed before one is chosen: a second where they answer, 16 s where not."""


def in_order(candidates: Iterable[C], times: Times) -> tuple[C, ...]:
    """Return `candidates`, the fastest first and those without a time last, in their order."""
    known = dict(times)
    return tuple(sorted(candidates, key=lambda it: known.get(it.endpoint_text, float("inf"))))


def trial_for(candidates: tuple[Candidate, ...], config: Config, times: Times) -> Trial | None:
    """Return the trial that comes before a choice among `candidates`; None where none is needed."""
    known = dict(times)
    is_known = any(it.endpoint_text in known for it in candidates)
    return Trial() if config.latency and len(candidates) > 1 and not is_known else None


def after_failure(turn: Turn, *, was_sent: bool) -> Turn:
    """Return the turn after that of a candidate which failed; `was_sent`: it did not answer."""
    following = turn.next()
    if turn.trial is not None:
        trial = replace(turn.trial, tried=turn.trial.tried + was_sent)
        return _continued(turn, following, trial)
    again = turn.is_last and turn.by_latency and len(turn.candidates) > 1
    return replace(following, trial=Trial()) if again else following


def after_handshake(turn: Turn, trial: Trial, seconds: float) -> Turn:
    """Return the turn after that of a candidate whose handshake took `seconds` in `trial`."""
    times = (*trial.times, (turn.candidate.endpoint_text, seconds))
    following = replace(turn.next(), attempt=turn.attempt)
    return _continued(turn, following, Trial(times, trial.tried + 1))


def _continued(turn: Turn, following: Turn, trial: Trial) -> Turn:
    is_over = trial.tried >= MOST_TIMED or (turn.is_last and trial.tried > 0)
    if not is_over:
        return replace(following, trial=trial)
    candidates = in_order(turn.candidates, trial.times)
    attempt = 0 if trial.times else following.attempt  # else no round has failed
    chosen = replace(following, candidates=candidates, position=0, attempt=attempt)
    return replace(chosen, trial=None, times=trial.times)


def seconds_of(state: Connecting, handshake: float | None, moment: Moment) -> float:
    """Return how long the handshake of `state` took, which ended at `handshake` by the wall clock.

    That clock may jump; then it is the time since the interface was built.
    """
    seen = moment.now - state.turn.tried_at
    if handshake is None or state.begun_at is None:
        return seen
    taken = handshake - state.begun_at
    return taken if 0 < taken <= moment.timing.trial_limit else seen


def results(before: State, after: State) -> Times:
    """Return the times of a trial that has ended between `before` and `after`, empty if none."""
    former: Turn | None = getattr(before, "turn", None)
    turn: Turn | None = getattr(after, "turn", None)
    if turn is None or former is None or turn.times == former.times:
        return ()
    return turn.times
