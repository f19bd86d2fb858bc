"""How servers are obtained from a provider: the moves within the state `Fetching`.

The name of the list's host is looked up, then its addresses are tried one after the other. Once the
list is kept in a file, the configuration is read again, which has candidates then. Where it does
not, because no server fits the configuration, the list is not fetched again for an hour: it is
the API of another company.

Where a provider's servers answer only a key that they know, a login comes next, in the same way,
and then one request to each of some servers, until enough have taken the key. After that, too, the
configuration is read again. Such servers may forget the key: after a round in which none of them
answers, it is registered again, and if that fails, the next round begins. A login is not repeated
at once, even if links change, and one that was refused not for an hour.
"""

from collections.abc import Callable
from dataclasses import replace

from gateway.model import KeyRequest, Login
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
from gateway.policy.states import Fetching, Reason, State, Turn
from gateway.policy.timing import Moment

READ_AGAIN = "the provider has answered, and the configuration is read again"

ENOUGH_SERVERS = 3
"""How many servers are given the key: the next one is there when one fails, without another login.

A key that more servers know is known to more operators, and is of no more use.
"""


Take = Callable[[Turn, Reason, float, float, str], State]


def backoff(rounds: int, moment: Moment, first: float = 0.0, last: float = 0.0) -> float:
    """Return the seconds to wait after `rounds` rounds failed: `first`, then twice that, to `last`.

    Without `first` and `last`, those of the candidates. Chance spreads them by a quarter to either
    side, so that gateways which lost the same server do not come back in step.
    """
    timing = moment.timing
    first, last = first or timing.backoff_first, last or timing.backoff_last
    return min(last, first * 2.0 ** min(rounds - 1, 10)) * (0.75 + moment.chance / 2)


def from_fetching(state: Fetching, event: Event, moment: Moment, take: Take) -> State:
    """Return the state that `event` leads to; the same state where it means nothing.

    `take` returns the state in which the candidate of a turn is tried.
    """
    now = moment.now
    after = state
    match event:
        case Asking():
            after = replace(state, query=event.query, detail=_without_success(state))
        case Located():
            after = replace(state, query=None, addresses=event.addresses, retry_at=now)
        case Opened():
            is_login = isinstance(state.errand, Login)
            turn = _registered(state.turn, moment) if is_login else state.turn
            after = replace(state, transfer=event.transfer, turn=turn)
        case Fetched():
            after = _after_success(state, moment)
        case NotFetched() | Failed():
            refused = isinstance(event, NotFetched) and event.refused
            after = _after_failure(state, event.detail, moment, refused=refused)
        case Moved() if state.reason is not Reason.LOGIN_REFUSED:
            soonest = max(now, state.turn.tried_at + moment.timing.rebuild_pause)
            retry_at = max(min(state.retry_at, soonest), state.turn.register_at)
            after = replace(begun_again(state), retry_at=retry_at)
        case NotReloaded() if reads_again(state):
            faults = "; ".join(f"{it.variable} {it.problem}" for it in event.answer.faults)
            after = replace(state, reason=_reason(state), detail=faults)
            if state.turn.candidate.peers:
                after = _given_up(after, faults, moment)
        case _:
            pass
    if after.turn.attempt == state.turn.attempt:
        return after
    return take(after.turn, after.reason, after.since, after.retry_at, after.detail)


def is_to_register(turn: Turn, at: float) -> bool:
    """Return whether a key is registered again at a time, before the candidate of `turn` is tried.

    That is so when a whole round has failed.
    """
    is_round_over = turn.position == 0 and turn.attempt >= len(turn.candidates)
    return is_round_over and turn.candidate.registration is not None and at >= turn.register_at


def with_logins_of(former: Turn, turn: Turn) -> Turn:
    """Return `turn` with its next login as late as in `former`, if the user is the same."""
    registrations = (former.candidate.registration, turn.candidate.registration)
    before, after = (it.login if it else None for it in registrations)
    is_same = before == after
    return replace(
        turn,
        registered=former.registered if is_same else 0,
        register_at=former.register_at if is_same else float("-inf"),
    )


def begun_again(state: Fetching) -> Fetching:
    """Return `state` with everything still to be requested."""
    return state.begun_again


def reads_again(state: State) -> bool:
    """Return whether all was obtained, and a configuration with candidates is waited for."""
    return isinstance(state, Fetching) and state.detail == READ_AGAIN


def _ended(state: Fetching) -> Fetching:
    """Return `state` without anything that passes."""
    return replace(state, query=None, addresses=(), transfer=None)


def _without_success(state: Fetching) -> str:
    return "" if reads_again(state) else state.detail


def _reason(state: Fetching) -> Reason:
    return Reason.NO_LIST if state.wanted.listed else Reason.NOT_REGISTERED


def _after_success(state: Fetching, moment: Moment) -> Fetching:
    if isinstance(state.errand, KeyRequest):
        state = replace(state, obtained=state.obtained + 1)
    is_last = state.step == len(state.wanted.errands) - 1
    if is_last or state.obtained == ENOUGH_SERVERS:
        return _complete(state, moment)
    return _at_step(state, state.step + 1, moment)


def _registered(turn: Turn, moment: Moment) -> Turn:
    """Return `turn` after one more login."""
    timing, number = moment.timing, turn.registered + 1
    first, last = timing.register_first, timing.register_last
    wait = min(last, max(first, backoff(number, moment, first, last)))
    return replace(turn, registered=number, register_at=moment.now + wait)


def _complete(state: Fetching, moment: Moment) -> Fetching:
    retry_at = moment.now + moment.timing.fetch_useless
    return replace(begun_again(state), retry_at=retry_at, detail=READ_AGAIN)


def _at_step(state: Fetching, step: int, moment: Moment) -> Fetching:
    state = replace(_ended(state), step=step, retry_at=moment.now)
    errand = state.errand
    return replace(state, addresses=(errand.address,)) if isinstance(errand, KeyRequest) else state


def _after_failure(
    state: Fetching, detail: str, moment: Moment, *, refused: bool = False
) -> Fetching:
    if refused:
        return _given_up(state, detail, moment, refused=True)
    if others := state.addresses[1:]:
        return replace(_ended(state), addresses=others, retry_at=moment.now, detail=detail)
    if isinstance(state.errand, KeyRequest) and state.step < len(state.wanted.errands) - 1:
        return replace(_at_step(state, state.step + 1, moment), detail=detail)
    return _complete(state, moment) if state.obtained else _given_up(state, detail, moment)


def _given_up(state: Fetching, detail: str, moment: Moment, *, refused: bool = False) -> Fetching:
    """Return the state after all that could be requested was: it waits, or the turn is over.

    Servers that have known the key get another chance meanwhile.
    """
    now, timing, turn = moment.now, moment.timing, state.turn
    turn = replace(turn, attempt=turn.attempt + 1, tried_at=now)
    wait = backoff(turn.attempt, moment, timing.fetch_first, timing.fetch_last)
    soonest = max(turn.register_at, now + (timing.login_again if refused else wait))
    if turn.candidate.peers:
        turn, retry_at = replace(turn, register_at=soonest), now
    else:
        retry_at = soonest
    reason = Reason.LOGIN_REFUSED if refused else _reason(state)
    failed = replace(begun_again(state), turn=turn, reason=reason, detail=detail)
    return replace(failed, retry_at=retry_at)
