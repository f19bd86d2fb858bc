"""What becomes of a connection, judged by WireGuard's counters and by probes."""

from collections.abc import Callable
from dataclasses import replace

from gateway.policy.events import Event, Probed, Sampled
from gateway.policy.evidence import keepalive_of
from gateway.policy.facts import TunnelStatus
from gateway.policy.latency import after_failure
from gateway.policy.states import Connected, Reason, State, Turn
from gateway.policy.timing import Moment

ONE_WAY = (
    "packets of the server arrive, and for {seconds:.0f} s nothing has answered ours: something on "
    "the way, often a router that translates addresses, has lost the connection; another source "
    "port is used where the same server is tried again"
)

Take = Callable[[Turn, Reason, float, float, str], State]


def from_connected(state: Connected, event: Event, moment: Moment, take: Take) -> State:
    """Return the state that `event` leads to; the same state where it means nothing.

    `take` returns the state in which the candidate of a turn is tried.
    """
    match event:
        case Sampled():
            return _sampled(state, event.status, moment, take)
        case Probed():
            return _probed(state, event, moment, take)
        case _:
            return state


def _sampled(state: Connected, status: TunnelStatus, moment: Moment, take: Take) -> State:
    now = moment.now
    keepalive = keepalive_of(state.tunnel)
    pulse = state.pulse.after(status, now, keepalive)
    turn = state.turn
    if now - state.since >= moment.timing.stable_after:
        turn = replace(turn, attempt=0, registered=0)
    if pulse.is_silent(moment, keepalive=keepalive > 0):
        return take(after_failure(turn, was_sent=True), Reason.SILENT, now, now, "")
    if turn.position and now - state.since >= moment.timing.return_after:
        return take(replace(turn, position=0), Reason.RETURNING, now, now, "")
    return replace(state, turn=turn, pulse=pulse)


def _probed(state: Connected, event: Probed, moment: Moment, take: Take) -> State:
    now, outcome = moment.now, event.outcome
    if event.answered is not None:
        weight = 2 if event.is_thorough and not outcome.reached else 1
        failures = 0 if event.answered else state.resolver_failures + weight
        since = state.resolver_failing_at if failures > weight else now * bool(failures)
        state = replace(state, resolver_failures=failures, resolver_failing_at=since)
    proof = state.proof.after(outcome, event.begun_at)
    missed_at = proof.missed_at
    if missed_at is not None and event.is_thorough and outcome.reached is False:
        remaining = proof.judged(state.pulse, event.begun_at)
        if remaining is None:
            text = ONE_WAY.format(seconds=now - missed_at)
            return take(after_failure(state.turn, was_sent=True), Reason.ONE_WAY, now, now, text)
        proof = remaining
    return replace(state, proof=proof)
