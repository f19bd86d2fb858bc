"""What a person or a program may ask of the gateway while it runs, and what comes of it; pure.

Nothing here opens anything. A pause closes, and lasts until it is taken back or the gateway is
restarted, whatever else happens. A resumed gateway begins as after a start. A reconnect, and the
next server, lead to the state in which the tunnel has yet to prove itself.

Politeness. However often it is asked, the tunnel is not built twice in `rebuild_pause`, and what a
provider is asked for keeps its pauses.
"""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from gateway.model.frozen import frozen
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Reason,
    Resolving,
    State,
    Turn,
)
from gateway.policy.timing import Moment


class Order(StrEnum):
    """What may be asked: stable codes."""

    PAUSE = "pause"
    """Close, and remove the interface, until RESUME."""

    RESUME = "resume"
    RECONNECT = "reconnect"
    """Build the tunnel to the same server again."""

    NEXT = "next"
    """The same to the server that comes next in the configuration; the first one after the last."""


@frozen
class Ordered:
    """Someone who may do so has asked for `order`."""

    order: Order


@frozen
class Removed:
    """The interface of a paused gateway was removed, or `problem` says why not."""

    problem: str = ""


class Effect(StrEnum):
    """What comes of an order: stable codes."""

    PAUSED = "paused"
    RESUMED = "resumed"
    RECONNECTING = "reconnecting"
    NEXT_SERVER = "next_server"
    ONLY_SERVER = "only_server"
    """The configuration has one server, so its tunnel is built again."""

    ALREADY_PAUSED = "already_paused"
    ALREADY_RUNNING = "already_running"
    IS_PAUSED = "is_paused"
    """A paused gateway has no tunnel to build again."""

    IS_CLOSED = "is_closed"
    """The rules cannot be put into force, or the gateway has just started."""

    IS_STOPPING = "is_stopping"
    MEASURING = "measuring"
    """The servers' handshakes are timed; the fastest follows."""

    AWAITS_PROVIDER = "awaits_provider"
    """Something has to be requested from the provider first."""

    @property
    def is_refused(self) -> bool:
        """Whether the order changes nothing because it cannot be followed now."""
        return self in _REFUSED


_REFUSED = {
    *(Effect.IS_PAUSED, Effect.IS_CLOSED, Effect.IS_STOPPING),
    *(Effect.MEASURING, Effect.AWAITS_PROVIDER),
}

EFFECTS: dict[Effect, str] = {
    Effect.PAUSED: "paused: the tunnel is closed until it is resumed",
    Effect.RESUMED: "resumed: connecting as after a start",
    Effect.RECONNECTING: "the tunnel is built again",
    Effect.NEXT_SERVER: "the next server of the configuration is tried",
    Effect.ONLY_SERVER: "the configuration has one server, so its tunnel is built again",
    Effect.ALREADY_PAUSED: "it was paused already",
    Effect.ALREADY_RUNNING: "it was not paused",
    Effect.IS_PAUSED: "the gateway is paused; resume it first",
    Effect.IS_CLOSED: "the gateway is closed; its health says why",
    Effect.IS_STOPPING: "the gateway is stopping",
    Effect.MEASURING: "the gateway is measuring which server answers first; ask again later",
    Effect.AWAITS_PROVIDER: (
        "the gateway requests something from the provider first; its health says what"
    ),
}
"""The text of each effect, for people."""

_WITHOUT_TUNNEL = {
    "paused": Effect.IS_PAUSED,
    "locked": Effect.IS_CLOSED,
    "starting": Effect.IS_CLOSED,
    "fetching": Effect.AWAITS_PROVIDER,
}
"""Why the tunnel is not built again in a state."""

Take = Callable[[Turn, Reason, float, float, str], State]


def effect_of(order: Order, state: str, reason: Reason, candidates: int) -> Effect:
    """Return what comes of `order` in a state that is reported so, see `report.Status`.

    `candidates` is how many servers the configuration has.
    """
    if state == "stopping":
        return Effect.IS_STOPPING
    if order in {Order.PAUSE, Order.RESUME}:
        is_pause, is_paused = order is Order.PAUSE, state == "paused"
        if is_pause == is_paused:
            return Effect.ALREADY_PAUSED if is_pause else Effect.ALREADY_RUNNING
        return Effect.PAUSED if is_pause else Effect.RESUMED
    if (why_not := _WITHOUT_TUNNEL.get(state)) is not None:
        return why_not
    if reason is Reason.MEASURING:
        return Effect.MEASURING
    again = Effect.ONLY_SERVER if candidates == 1 else Effect.NEXT_SERVER
    return Effect.RECONNECTING if order is Order.RECONNECT else again


def ordered(
    state: Locked | Resolving | Fetching | Connecting | Connected | Paused,
    order: Order,
    moment: Moment,
    take: Take,
) -> State:
    """Return the state that `order` leads to; the same state where it means nothing.

    `take` returns the state in which the candidate of a turn is tried.
    """
    match order:
        case Order.PAUSE:
            return _paused(state, moment)
        case Order.RESUME:
            return _resumed(state, moment) if isinstance(state, Paused) else state
        case Order.RECONNECT:
            return _built_again(state, moment, take)
        case Order.NEXT:
            return _at_next(state, moment, take)


def from_paused(state: Paused, event: object, moment: Moment, *, has_lasted: bool) -> Paused:
    """Return the paused state that `event` leads to; none leads out of it.

    `has_lasted`: its rules were in force when the kernel was compared.
    """
    if state.refused and moment.now >= state.open_at:
        state = replace(state, refused=False, detail="" if state.removed else state.detail)
    elif has_lasted and state.attempt and not state.refused:
        state = replace(state, attempt=0)
    if not isinstance(event, Removed):
        return state
    if event.problem:
        retry_at = moment.now + moment.timing.rebuild_pause
        return replace(state, retry_at=retry_at, detail=event.problem)
    return replace(state, removed=True, detail="")


def with_other_configuration(state: Paused) -> Paused:
    """Return `state` with another configuration, which may have what was refused."""
    state = replace(state, open_at=state.since)
    if not isinstance(state.before, Fetching):
        return state
    return replace(state, before=replace(state.before, retry_at=state.since))


def _paused(
    state: Locked | Resolving | Fetching | Connecting | Connected | Paused, moment: Moment
) -> Paused:
    match state:
        case Paused():
            return state
        case Locked():
            return Paused(moment.now, state.before)
        case Fetching():
            return Paused(moment.now, _cut_off(state, moment))
        case _:
            return Paused(moment.now, state)


def _cut_off(state: Fetching, moment: Moment) -> Fetching:
    """Return `state` after a pause has ended its requests, which count as a failed attempt."""
    ended = state.begun_again
    if ended == state:
        return state
    spared_until = max(moment.now + moment.timing.fetch_first, state.turn.register_at)
    return replace(ended, retry_at=max(state.retry_at, spared_until))


def _resumed(state: Paused, moment: Moment) -> Locked:
    """Return the state of a start, but for what the provider was to be asked later."""
    before, now = state.before, moment.now
    if isinstance(before, Fetching) and before.retry_at > now:
        return Locked(before.reason, now, before.retry_at, detail=before.detail, before=before)
    return Locked(since=now, retry_at=now, before=before)


def _built_again(state: State, moment: Moment, take: Take) -> State:
    """Return the state in which the tunnel to the same server is built again.

    What is under way to it already is not begun again: that would never end.
    """
    if not isinstance(state, Resolving | Connecting | Connected) or state.turn.trial:
        return state
    soonest = _soonest(state.turn, moment)
    if isinstance(state, Resolving) or (isinstance(state, Connecting) and not state.built):
        return replace(state, retry_at=min(state.retry_at, soonest))
    return take(state.turn, Reason.REQUESTED, _since(state, moment), soonest, "")


def _at_next(state: State, moment: Moment, take: Take) -> State:
    """Return the state in which the next server is tried; it is not one that has failed."""
    if not isinstance(state, Resolving | Connecting | Connected) or state.turn.trial:
        return state
    turn = state.turn
    if len(turn.candidates) == 1:
        return _built_again(state, moment, take)
    # Where an attempt may be under way, it counts as one: it is cut off.
    tried_at = turn.tried_at if isinstance(state, Connected) else moment.now
    position = turn.next().position
    turn = replace(turn, position=position, attempt=0, tried_at=tried_at, diagnosis=None)
    return take(turn, Reason.REQUESTED, _since(state, moment), _soonest(turn, moment), "")


def _since(state: Resolving | Connecting | Connected, moment: Moment) -> float:
    return moment.now if isinstance(state, Connected) else state.since


def _soonest(turn: Turn, moment: Moment) -> float:
    return max(moment.now, turn.tried_at + moment.timing.rebuild_pause)
