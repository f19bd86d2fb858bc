"""How a provider's list of servers is obtained: the moves within the state `Fetching`.

The name of the list's host is looked up, then its addresses are tried one after the other. Once the
list is kept in a file, the configuration is read again, which has candidates then. Where it does
not, because no server fits the configuration, the list is not fetched again for an hour: it is
the API of another company.
"""

from dataclasses import replace

from gateway.policy.events import (
    Asking,
    Event,
    Failed,
    Fetched,
    Located,
    Moved,
    NotFetched,
    NotReloaded,
    Opened,
)
from gateway.policy.states import Fetching, Reason, State
from gateway.policy.timing import Moment

READ_AGAIN = "the list has been fetched, and the configuration is read again"


def backoff(rounds: int, moment: Moment, first: float = 0.0, last: float = 0.0) -> float:
    """Return the seconds to wait after `rounds` rounds failed: `first`, then twice that, to `last`.

    Without `first` and `last`, those of the candidates. Chance spreads them by a quarter to either
    side, so that gateways which lost the same server do not come back in step.
    """
    timing = moment.timing
    first, last = first or timing.backoff_first, last or timing.backoff_last
    return min(last, first * 2.0 ** min(rounds - 1, 10)) * (0.75 + moment.chance / 2)


def from_fetching(state: Fetching, event: Event, moment: Moment) -> State:
    """Return the state that `event` leads to; the same state where it means nothing."""
    now = moment.now
    after = state
    match event:
        case Asking():
            after = replace(state, query=event.query)
        case Located():
            after = replace(state, query=None, addresses=event.addresses, retry_at=now)
        case Opened():
            after = replace(state, transfer=event.transfer)
        case Fetched():
            retry_at = now + moment.timing.fetch_useless
            after = replace(_ended(state), retry_at=retry_at, detail=READ_AGAIN)
        case NotFetched() | Failed():
            after = _after_failure(state, event.detail, moment)
        case Moved():
            soonest = max(now, state.turn.tried_at + moment.timing.rebuild_pause)
            after = replace(_ended(state), retry_at=min(state.retry_at, soonest))
        case NotReloaded() if state.detail == READ_AGAIN:
            faults = "; ".join(f"{it.variable} {it.problem}" for it in event.answer.faults)
            after = replace(state, reason=Reason.NO_LIST, detail=faults)
        case _:
            pass
    return after


def _ended(state: Fetching) -> Fetching:
    """Return `state` without anything that passes."""
    return replace(state, query=None, addresses=(), transfer=None)


def _after_failure(state: Fetching, detail: str, moment: Moment) -> Fetching:
    timing, others = moment.timing, state.addresses[1:]
    if others:
        return replace(_ended(state), addresses=others, retry_at=moment.now, detail=detail)
    turn = replace(state.turn, attempt=state.turn.attempt + 1, tried_at=moment.now)
    wait = backoff(turn.attempt, moment, timing.fetch_first, timing.fetch_last)
    failed = replace(_ended(state), turn=turn, reason=Reason.NO_LIST, detail=detail)
    return replace(failed, retry_at=moment.now + wait)
