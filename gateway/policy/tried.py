"""What came of the last attempt with each candidate, as far as it is reported; pure."""

from dataclasses import replace

from gateway.model import Times
from gateway.model.frozen import frozen
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Reason,
    Resolving,
    State,
    Turn,
)

MOST_TRIED = 20
"""How many candidates are reported, those that were tried last: a list may have hundreds."""
LONGEST = 100
"""Characters of an endpoint: a candidate may have many peers."""
LONGEST_NAME = 40
"""Characters of a name, which a provider may have chosen; others than ASCII become `?`."""

Trying = Resolving | Fetching | Connecting | Connected
"""States in which it is the turn of a candidate."""
NOT_ITS_FAULT = frozenset({Reason.RECONFIGURED, Reason.RETURNING, Reason.REQUESTED})
"""Reasons for which another candidate is tried although this one has not failed."""


@frozen
class Tried:
    """How the last attempt with a candidate ended, at `at`.

    `result` is Reason.ANSWERS, or why it failed. `handshake_seconds` is how long its handshake
    took, None without one; `latency` is the same where handshakes are compared (`policy.latency`).
    """

    endpoint: str
    name: str
    at: float
    result: Reason
    handshake_seconds: float | None = None
    latency: float | None = None


def tried_after(
    known: tuple[Tried, ...], before: State, after: State, now: float
) -> tuple[Tried, ...]:
    """Return what is `known` and what came of the change from `before` to `after`, newest first."""
    ended = _ended(before, after, now)
    if ended is None:
        return known
    others = (it for it in known if it.endpoint != ended.endpoint)
    return (ended, *others)[:MOST_TRIED]


def with_latency(known: tuple[Tried, ...], times: Times) -> tuple[Tried, ...]:
    """Return what is `known`, with the `times` of those candidates whose handshakes were timed."""
    if not times:
        return known
    seconds = {endpoint[:LONGEST]: it for endpoint, it in times}
    return tuple(replace(it, latency=seconds.get(it.endpoint)) for it in known)


def _ended(before: State, after: State, now: float) -> Tried | None:
    """Return how an attempt ended between two states, None if none did."""
    if not isinstance(before, Trying) or not isinstance(after, Trying):
        return None
    candidate, found = before.turn.candidate, _result(before, after)
    if found is None or not candidate.peers:
        return None
    name = candidate.name[:LONGEST_NAME].encode("ascii", "replace").decode()
    return Tried(candidate.endpoint_text[:LONGEST], name, now, *found)


def _result(before: Trying, after: Trying) -> tuple[Reason, float | None] | None:
    """Return the result of an attempt, and the seconds that its handshake took."""
    if isinstance(after, Connected):
        took = after.since - after.turn.tried_at
        return None if isinstance(before, Connected) else (Reason.ANSWERS, took)
    if after.reason in NOT_ITS_FAULT:
        return None
    if (seconds := _timed(before.turn, after.turn)) is not None:
        return Reason.ANSWERS, seconds
    if not _failed(before.turn, after.turn):
        return None
    return Reason.NO_HANDSHAKE if after.reason is Reason.MEASURING else after.reason, None


def _timed(before: Turn, after: Turn) -> float | None:
    """Return the seconds of the handshake that a trial has gained, None if it has gained none."""
    if before.trial is None:
        return None
    times = after.trial.times if after.trial else after.times
    return times[-1][1] if len(times) > len(before.trial.times) else None


def _failed(before: Turn, after: Turn) -> bool:
    """Return whether the candidate of `before` has failed; a trial may reset the count."""
    return after.attempt > before.attempt or after.trial != before.trial
