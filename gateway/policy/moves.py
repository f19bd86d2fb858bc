"""The states of the gateway and what moves it from one to another.

Everything that affects the state lives in this file; nothing here does I/O, reads a clock or draws
a random number.

    Locked ──► Resolving ──► Connecting ──► Connected
      ▲  └──────────────────────▲               │
      │         ▲               │               │
      │         └───────────────┴───────────────┘
      │            lost, silent, or out of patience
      └── from everywhere, when the kernel refuses the rules of a state

`Stopping` is reached from everywhere by `Stop` and never left, `Paused` by an order, and left by
another one (`gateway.policy.orders`). A state says what the firewall
allows (`gateway.policy.firewall`): Locked, Paused and Stopping nothing, Resolving one query for the
endpoint's name, Connecting the encrypted flow, and Connected the tunnel and the listed holes too.
So each arrow to the right opens only what the state before has earned, and each arrow to the left
closes before anything is repaired.

Candidates. The configuration lists one or more tunnels. They are tried in order, each for
`patience` seconds. After the last one the gateway waits, longer each time, while WireGuard itself
keeps trying, and starts again with the first. A name is looked up each time its turn comes, and
its addresses take turns, one in each round. A candidate other than the first stays connected for
`return_after` seconds; then the first gets another chance. Their order may be that of their
handshakes' times, which are found out first (`gateway.policy.latency`). A configuration that is
read again may list others: the candidate in use continues where it is among them, and the first
begins where not.

Politeness. An interface that is lost is built again at once, but never twice in `rebuild_pause`,
whatever happens to it and to the way to the server. Failures are forgotten only when a connection
has lasted `stable_after` seconds, so that rules which are refused again and again do not cause a
flood of handshakes. When the way to a server changes, a longer wait is pointless.
"""

from dataclasses import replace

from gateway.model import Candidate
from gateway.policy.diagnosis import Heard, diagnose
from gateway.policy.dns import with_addresses
from gateway.policy.events import (
    Asking,
    Begin,
    Built,
    Event,
    Failed,
    Leased,
    Lost,
    Moved,
    Refused,
    Resolved,
    Sampled,
    Stop,
    Verified,
)
from gateway.policy.evidence import Pulse, foreign_change, keepalive_of
from gateway.policy.fetching import backoff, from_fetching, is_to_register, with_logins_of
from gateway.policy.latency import after_failure, after_handshake, seconds_of
from gateway.policy.leases import lasting, leased
from gateway.policy.liveness import from_connected
from gateway.policy.orders import Ordered, from_paused, ordered
from gateway.policy.states import (
    EXPLAINED,
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Reason,
    Resolving,
    State,
    Stopping,
    Trial,
    Turn,
)
from gateway.policy.timing import Moment

Running = Locked | Resolving | Fetching | Connecting | Connected | Paused


def move(state: State, event: Event, moment: Moment) -> State:
    """Return the state that `event` leads to; the same state where it means nothing."""
    now = moment.now
    if isinstance(event, Stop) or isinstance(state, Stopping):
        return state if isinstance(state, Stopping) else Stopping(since=now)
    if isinstance(event, Refused):
        return _refused(state, event, moment)
    if isinstance(event, Ordered):
        return ordered(state, event.order, moment, _take)
    moved = _moved(state, event, moment)
    return lasting(moved, moment) if isinstance(moved, Connected) else moved


def _moved(state: Running, event: Event, moment: Moment) -> State:
    match state:
        case Locked():
            return _from_locked(state, event, moment)
        case Paused():
            return from_paused(state, event, moment, has_lasted=isinstance(event, Verified))
        case Resolving():
            return _from_resolving(state, event, moment)
        case Fetching():
            return from_fetching(state, event, moment, _take)
        case Connecting():
            return _from_connecting(state, event, moment)
        case Connected():
            return _from_connected(state, event, moment)


def _take(turn: Turn, reason: Reason, since: float, retry_at: float, detail: str = "") -> State:
    """Return the state in which the candidate of `turn` is tried, from `retry_at` on."""
    if turn.candidate.errands or is_to_register(turn, retry_at):
        return Fetching(turn, reason, since, retry_at, detail)
    if turn.candidate.names:
        return Resolving(turn, reason, since, retry_at, detail)
    return Connecting(
        turn, with_addresses(turn.candidate, {}), reason, since, retry_at, detail=detail
    )


def _refused(state: Running, event: Refused, moment: Moment) -> State:
    now = moment.now
    if isinstance(state, Paused):
        attempt = state.attempt + 1
        open_at = now + backoff(attempt, moment)
        return replace(state, refused=True, open_at=open_at, attempt=attempt, detail=event.detail)
    attempt = 1 + (state.attempt if isinstance(state, Locked) else state.turn.attempt)
    return Locked(Reason.FIREWALL, now, now + backoff(attempt, moment), attempt, event.detail)


def with_candidates(
    state: Resolving | Fetching | Connecting | Connected,
    candidates: tuple[Candidate, ...],
    position: int | None,
    moment: Moment,
    trial: Trial | None = None,
) -> State:
    """Return what follows on `state` where the configuration has other `candidates`.

    The one in use is now at `position`, None if nowhere. Only a tunnel that is built stays; any
    other choice begins with `trial`.
    """
    before = state.turn
    match state:
        case Connecting(built=True) | Connected() if position is not None and not before.trial:
            turn = replace(state.turn, candidates=candidates, position=position)
            return replace(state, turn=turn, tunnel=replace(state.tunnel, dns=turn.candidate.dns))
        case _:
            first = 0 if trial else position or 0
            turn = Turn(candidates, first, 0, before.tried_at, before.by_latency, trial)
    since = moment.now if isinstance(state, Connected) else state.since
    return _take(with_logins_of(before, turn), Reason.RECONFIGURED, since, _soonest(turn, moment))


def _from_locked(state: Locked, event: Event, moment: Moment) -> State:
    if not isinstance(event, Begin):
        return state
    turn = Turn(event.candidates, 0, state.attempt, by_latency=event.by_latency, trial=event.trial)
    if state.before is not None:
        former = state.before.turn
        turn = with_logins_of(former, replace(turn, tried_at=former.tried_at))
    return _take(turn, state.reason, moment.now, _soonest(turn, moment))


def _from_resolving(state: Resolving, event: Event, moment: Moment) -> State:
    now = moment.now
    match event:
        case Asking():
            return replace(state, query=event.query)
        case Resolved():
            tunnel = event.tunnels[(state.turn.rounds - 1) % len(event.tunnels)]
            return Connecting(state.turn, tunnel, state.reason, state.since, retry_at=now)
        case Failed():
            retry_at = now + _wait(state.turn, moment)
            return _after_failure(state, Reason.NOT_RESOLVED, event, now, retry_at)
        case Moved() if state.query is None:
            return replace(state, retry_at=min(state.retry_at, _soonest(state.turn, moment)))
        case _:
            return state


def _from_connecting(state: Connecting, event: Event, moment: Moment) -> State:
    now = moment.now
    match event:
        case Built() if not state.built:
            reason, patience = _expected(state, moment)
            return replace(
                state,
                turn=replace(state.turn, tried_at=now),
                built=True,
                reason=reason,
                give_up_at=now + patience,
                detail=state.turn.explanation,
                pulse=Pulse(),
                begun_at=event.begun_at,
                heard=Heard(),
            )
        case Failed():
            retry_at = now + _wait(state.turn, moment)
            return _after_failure(state, Reason.NOT_BUILT, event, now, retry_at)
        case Lost():
            return _rebuilding(state, event, moment)
        case Moved():
            soonest = _soonest(state.turn, moment)
            retry_at = soonest if state.built else min(state.retry_at, soonest)
            return replace(state, built=False, retry_at=retry_at, detail=event.detail)
        case Sampled() if state.built:
            return _sampled_while_connecting(state, event, moment)
        case _:
            return state


def _expected(state: Connecting, moment: Moment) -> tuple[Reason, float]:
    """Return why a tunnel that was just built is not open, and how long it has."""
    if state.turn.trial:
        return Reason.MEASURING, moment.timing.trial_limit
    reason = state.reason if state.reason in EXPLAINED else Reason.NO_HANDSHAKE
    return reason, moment.timing.patience + _wait(state.turn, moment)


def _wait(turn: Turn, moment: Moment) -> float:
    """Return the seconds to wait when the candidate of `turn` fails: none within a round."""
    is_chosen_next = turn.trial is not None and turn.trial.tried > 0
    return backoff(turn.rounds, moment) if turn.is_last and not is_chosen_next else 0.0


def _soonest(turn: Turn, moment: Moment) -> float:
    """Return when the next attempt may begin, however much there is to try."""
    return max(moment.now, turn.tried_at + moment.timing.rebuild_pause)


def _after_failure(
    state: Resolving | Connecting, reason: Reason, event: Failed, now: float, retry_at: float
) -> State:
    turn = replace(state.turn, tried_at=now)
    if event.port is not None:
        tunnels = tuple(replace(tunnel, listen_port=event.port) for tunnel in turn.candidates)
        turn = replace(turn, candidates=tunnels)
    following = after_failure(turn, was_sent=False)
    return _take(following, reason, state.since, retry_at, event.detail)


def _sampled_while_connecting(state: Connecting, event: Sampled, moment: Moment) -> State:
    now, status = moment.now, event.status
    if change := foreign_change(state.tunnel, status):
        return _rebuilding(state, Lost(change), moment)
    pulse = state.pulse.after(status, now, keepalive_of(state.tunnel))
    if pulse.handshake_at is not None:
        fresh = replace(pulse, unanswered_at=None, moves=True)
        return _answered(state, fresh, moment)
    heard = state.heard.with_more(event.heard)
    if now >= state.give_up_at:
        found = diagnose(heard, status.sent, state.tunnel.endpoints)
        turn = replace(after_failure(state.turn, was_sent=True), diagnosis=found)
        reason = Reason.MEASURING if turn.trial else Reason.NO_HANDSHAKE
        return _take(turn, reason, state.since, now, found.text)
    return replace(state, pulse=pulse, heard=heard)


def _answered(state: Connecting, pulse: Pulse, moment: Moment) -> State:
    """Return what follows on a handshake: a tunnel, or in a trial the next candidate."""
    turn = replace(state.turn, diagnosis=None)
    if turn.trial:
        turn = after_handshake(turn, turn.trial, seconds_of(state, pulse.handshake, moment))
        if turn.trial or turn.candidate != state.turn.candidate:
            return _take(turn, Reason.MEASURING, state.since, moment.now)
    return Connected(turn, state.tunnel, moment.now, pulse)


def _from_connected(state: Connected, event: Event, moment: Moment) -> State:
    now = moment.now
    match event:
        case Lost():
            return _rebuilding(state, event, moment)
        case Moved():
            retry_at = _soonest(state.turn, moment)
            return Connecting(
                state.turn, state.tunnel, Reason.MOVED, now, retry_at, detail=event.detail
            )
        case Sampled() if change := foreign_change(state.tunnel, event.status):
            return _rebuilding(state, Lost(change), moment)
        case Leased():
            return leased(state, event, moment)
        case _:
            return from_connected(state, event, moment, _take)


def _rebuilding(state: Connecting | Connected, lost: Lost, moment: Moment) -> Connecting:
    """Return the state in which the interface for the same tunnel is built again."""
    return Connecting(
        state.turn,
        state.tunnel,
        Reason.INTERFACE_LOST,
        since=moment.now if isinstance(state, Connected) else state.since,
        retry_at=_soonest(state.turn, moment),
        detail=lost.detail,
    )
