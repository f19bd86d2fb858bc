"""What is due in a situation, and when to look again; pure, like all of the policy."""

from collections.abc import Iterator
from dataclasses import replace

from gateway.policy.actions import (
    Action,
    Ask,
    AskResolvers,
    Build,
    Fetch,
    LookAround,
    LookUp,
    Measure,
    Open,
    Remove,
    Sample,
    SendProbe,
    Verify,
    Work,
    WriteNames,
)
from gateway.policy.evidence import LITTLE
from gateway.policy.leases import next_end
from gateway.policy.probing import ProbeProtocol, echoes_for, probe_for, to_the_server
from gateway.policy.resolvers import to_ask
from gateway.policy.situation import LONG_AGO, Situation
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Resolving,
    Stopping,
)
from gateway.policy.timing import Moment


def due(
    situation: Situation, moment: Moment, *, has_verified: bool = False
) -> tuple[Situation, tuple[Action, ...]]:
    """Return what is due in `situation`, and the situation in which it has been begun.

    Each waking has a price. So a calm tunnel wakes the loop only when the kernel is compared, and
    after that (`has_verified`) everything is done that is due before the next time. Where nothing
    is, the kernel is compared without a turn of the loop: see `rests`.
    """
    now, state = moment.now, situation.state
    if isinstance(state, Stopping):
        return situation, ()
    begins = isinstance(state, Locked) and now >= state.retry_at
    verifies = now >= situation.verify_at
    looks = (verifies or begins or situation.changed) and not situation.is_connecting
    checks: list[Action] = [LookAround()] if looks else []
    checks += [Verify()] if verifies else []
    if looks:
        situation = replace(situation, changed=False)
    if verifies:
        # Until it has succeeded, it is tried again as if there had been drift.
        situation = replace(situation, verify_at=now + moment.timing.verify_again)
    if looks:
        return situation, tuple(checks)  # the rest follows from what is found
    match state:
        case Resolving() | Connecting(built=False):
            situation, work = _connecting(situation, state, moment)
        case Fetching():
            situation, work = _fetching(situation, state, moment)
        case Connecting() | Connected():
            early = has_verified and is_calm(situation)
            situation, work = _watching(situation, state, moment, early=early)
        case Paused() if _removes(situation, state) and now >= state.retry_at:
            situation, work = _begun(situation, Work.CONNECT), (Remove(),)
        case _:
            work = ()
    return situation, (*checks, *work)


def _removes(situation: Situation, state: Paused) -> bool:
    """Return whether the interface of a paused gateway has yet to be removed."""
    return not state.removed and not situation.is_connecting


def _of_pause(situation: Situation, state: Paused) -> Iterator[float]:
    """Yield when something is due in a paused gateway."""
    if state.refused:
        yield state.open_at
    if _removes(situation, state):
        yield state.retry_at


def _connecting(
    situation: Situation, state: Resolving | Connecting, moment: Moment
) -> tuple[Situation, tuple[Action, ...]]:
    """Return what is due on the way to the interface."""
    if situation.is_connecting or moment.now < state.retry_at:
        return situation, ()
    situation = _begun(replace(situation, tried=situation.facts), Work.CONNECT)
    if isinstance(state, Connecting):
        return situation, (Build(state.tunnel, timed=state.turn.trial is not None),)
    candidate = state.turn.candidate
    return situation, (LookUp(candidate) if state.query is None else Ask(candidate),)


def _fetching(
    situation: Situation, state: Fetching, moment: Moment
) -> tuple[Situation, tuple[Action, ...]]:
    """Return what is due on the way to servers; meanwhile the kernel is compared as ever."""
    busy = situation.is_connecting or Work.FETCH in situation.under_way
    if busy or moment.now < state.retry_at:
        return situation, ()
    candidate, errand = state.wanted, state.errand
    situation = replace(situation, tried=situation.facts)
    if state.transfer is not None:
        return _begun(situation, Work.FETCH), (Fetch(errand, state.transfer),)
    if state.addresses:
        return _begun(situation, Work.FETCH), (Open(errand, state.addresses[0]),)
    asked = LookUp(candidate) if state.query is None else Ask(candidate)
    return _begun(situation, Work.CONNECT), (asked,)


def _watching(
    situation: Situation, state: Connecting | Connected, moment: Moment, *, early: bool
) -> tuple[Situation, tuple[Action, ...]]:
    """Return what is due while there is an interface; a sample in any case where it is `early`."""
    now, timing = moment.now, moment.timing
    until = now + (timing.verify_every if early else 0.0)
    actions: list[Action] = []
    if (early or now >= situation.sample_at) and Work.SAMPLE not in situation.under_way:
        is_new = isinstance(state, Connecting) and now - state.turn.tried_at < timing.eager_for
        pause = timing.eager if is_new else timing.heartbeat
        situation = replace(_begun(situation, Work.SAMPLE), sample_at=now + pause)
        listens = isinstance(state, Connecting) and state.turn.attempt > 0
        actions.append(Sample(state.tunnel, listens))
    if not isinstance(state, Connected):
        return situation, tuple(actions)
    if Work.PROBE not in situation.under_way and until >= _probe_at(situation, state, moment):
        situation, probes = _probing(situation, state, moment)
        actions += probes
    if Work.MEASURE not in situation.under_way and now >= _measure_at(situation, state, moment):
        situation, measures = _measuring(replace(situation, measured_at=now), state)
        actions += measures
    is_due = now >= situation.names_tried_at + timing.names_again
    if situation.names_problem and is_due and Work.NAMES not in situation.under_way:
        situation = replace(_begun(situation, Work.NAMES), names_tried_at=now)
        actions.append(WriteNames(state.tunnel))
    return situation, tuple(actions)


def _probing(
    situation: Situation, state: Connected, moment: Moment
) -> tuple[Situation, tuple[Action, ...]]:
    """Return what finds out whether the server and the resolvers answer."""
    now, timing = moment.now, moment.timing
    sent: list[Action] = []
    situation = replace(situation, probed_at=now, carried=state.pulse.carried)
    if probe := probe_for(state.tunnel, situation.config):
        thorough = state.proof.missed_at is not None
        says_little = probe.protocol is ProbeProtocol.NAME and not state.pulse.is_calm
        with_echo = thorough or says_little
        echo = to_the_server(state.tunnel, situation.config) if with_echo else None
        situation = _begun(situation, Work.PROBE)
        sent.append(SendProbe(probe, echo, thorough))
    is_extra = now < situation.asked_at + timing.probe_every - timing.verify_every
    if is_extra and not _in_doubt(state, moment):
        return situation, tuple(sent)
    situation, asks = _asking(replace(situation, asked_at=now), state)
    return situation, (*sent, *asks)


def _asking(situation: Situation, state: Connected) -> tuple[Situation, tuple[Action, ...]]:
    """Return what finds out why names may not resolve; nothing where the probe is enough."""
    resolvers = to_ask(state.tunnel, situation.config, failing=state.resolver_is_silent)
    if Work.ASK in situation.under_way:
        return situation, ()
    if not resolvers:
        return replace(situation, not_answering=()), ()
    return _begun(situation, Work.ASK), (AskResolvers(resolvers),)


def _measuring(situation: Situation, state: Connected) -> tuple[Situation, tuple[Action, ...]]:
    """Return what finds out which packets fit; nothing where no probe is wanted or possible."""
    echoes, mtu = echoes_for(state.tunnel, situation.config), situation.mtu
    if not echoes or mtu is None:
        return situation, ()
    is_chosen = state.tunnel.mtu is not None
    return _begun(situation, Work.MEASURE), (Measure(echoes, mtu, is_chosen),)


def rests(situation: Situation, moment: Moment) -> bool:
    """Return whether a comparison of the kernel is all that is due before the one after it.

    If it finds nothing, and nothing has moved in the tunnel, no event is needed.
    """
    state = situation.state
    if not isinstance(state, Connected) or not is_calm(situation):
        return False
    if situation.under_way or situation.changed or situation.names_problem:
        return False
    probe_at = _probe_at(situation, state, moment)
    measure_at = _measure_at(situation, state, moment)
    at = min(situation.sample_at, probe_at, measure_at, next_end(state))
    return at > moment.now + moment.timing.verify_every


def is_calm(situation: Situation) -> bool:
    """Return whether hardly anything moves in the tunnel, and no answer is waited for."""
    state = situation.state
    return isinstance(state, Connected) and state.pulse.is_calm and not _is_missed(state)


def _probe_at(situation: Situation, state: Connected, moment: Moment) -> float:
    timing, pulse, probed_at = moment.timing, state.pulse, situation.probed_at
    if _in_doubt(state, moment):
        return probed_at + timing.probe_in_doubt
    has_moved = pulse.carried - situation.carried > 2 * LITTLE
    return probed_at + (timing.probe_moving if has_moved else timing.probe_every)


def _in_doubt(state: Connected, moment: Moment) -> bool:
    return _is_missed(state) or state.pulse.is_in_doubt(moment)


def _is_missed(state: Connected) -> bool:
    """Return whether the last probe was not answered, although it should have been."""
    return bool(state.resolver_failures) or state.proof.missed_at is not None


def _measure_at(situation: Situation, state: Connected, moment: Moment) -> float:
    """Return when to find out which packets fit: once, and again while data moves.

    A path that becomes narrow hides that from everything small.
    """
    if situation.measured_at == LONG_AGO:
        return LONG_AGO
    again = situation.measured_at + moment.timing.measure_again
    return again if state.pulse.moves or state.pulse.is_in_doubt(moment) else float("inf")


def _begun(situation: Situation, work: Work) -> Situation:
    return replace(situation, under_way=situation.under_way | {work})


def wake_at(situation: Situation, moment: Moment) -> float:
    """Return when the next Tick is needed, if nothing else happens.

    A heartbeat from now at most; while connected or paused, when the kernel is compared again.
    Never sooner than `eager` from now, whatever is due: the loop does not spin.
    """
    now, timing = moment.now, moment.timing
    is_calm_state = isinstance(situation.state, Connected | Paused)
    latest = timing.verify_every if is_calm_state else timing.heartbeat
    at = min(now + latest, situation.verify_at, *_other_times(situation, moment))
    return max(at, now + timing.eager)


def _other_times(situation: Situation, moment: Moment) -> Iterator[float]:
    """Yield when something is due in the state itself."""
    state, under_way = situation.state, situation.under_way
    match state:
        case Locked():
            yield state.retry_at
        case Paused():
            yield from _of_pause(situation, state)
        case Resolving() | Connecting(built=False) if not situation.is_connecting:
            yield state.retry_at
        case Fetching() if not situation.is_connecting and Work.FETCH not in under_way:
            yield state.retry_at
        case Connecting(built=True) if Work.SAMPLE not in under_way:
            yield situation.sample_at
        case Connected():
            yield from _while_connected(situation, state, moment)
        case _:
            return


def _while_connected(situation: Situation, state: Connected, moment: Moment) -> Iterator[float]:
    """Yield when something is due in a connected gateway."""
    yield next_end(state)
    if situation.names_problem and Work.NAMES not in situation.under_way:
        yield situation.names_tried_at + moment.timing.names_again
    if is_calm(situation):
        return
    if Work.SAMPLE not in situation.under_way:
        yield situation.sample_at
    if Work.PROBE not in situation.under_way:
        yield _probe_at(situation, state, moment)
