"""What happens next: an event leads to a situation, and to actions as data.

`step` is pure, like everything here: no I/O, no clock, no chance. It lets the connection move
(`gateway.policy.moves`) and then says what is due: comparing the kernel with what was put there,
looking a name up, building the interface, reading its counters, sending a probe. The loop
(`gateway.daemon.loop`) puts the rules of the new state into force before it does any of it.

Work that takes time reports by an event. It never runs twice at once, and it is cut off when the
state that it belongs to is left, so that no result of a former state counts for the present one.
While a name is looked up or the interface is built, the namespace is not looked at: its routes are
between two states. What the kernel reports meanwhile is looked at afterwards.
"""

from dataclasses import replace

from gateway.model import Address, Candidate, Config
from gateway.policy.actions import Abandon, Action, Count, ReadAgain, Work
from gateway.policy.agenda import due, is_calm
from gateway.policy.events import (
    REPORTS,
    Asked,
    Begin,
    Built,
    Changed,
    Event,
    Failed,
    Looked,
    Lost,
    Measured,
    Moved,
    NotFetched,
    NotReloaded,
    Refused,
    Reloaded,
    ResolversAsked,
    Sampled,
    Verified,
    Wrote,
)
from gateway.policy.fetching import begun_again, reads_again
from gateway.policy.latency import in_order, results, trial_for
from gateway.policy.link import fitted
from gateway.policy.moves import move, with_candidates
from gateway.policy.orders import with_other_configuration
from gateway.policy.reload import position_of, taken_over
from gateway.policy.routing import IPV4
from gateway.policy.situation import LONG_AGO, Situation
from gateway.policy.source_port import from_another_port
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Resolving,
    State,
    Stopping,
)
from gateway.policy.timing import Moment
from gateway.policy.ways import has_moved, shared_addresses, ways

NEW_NAMES = "the configuration has other resolvers, which are about to be written"
"""Why names do not resolve until the resolver file has been written again."""


def step(
    situation: Situation, event: Event, moment: Moment
) -> tuple[Situation, tuple[Action, ...]]:
    """Return the situation that `event` leads to, and what is to be done in it, in order."""
    noted = _noted(situation, event, moment)
    state = _next_state(noted, situation.config, event, moment)
    state = from_another_port(situation.state, state, noted.config, moment)
    if isinstance(event, Looked) and state is not noted.state:
        noted = replace(noted, tried=noted.facts)
    after = noted if state is noted.state else replace(noted, state=state)
    after = _entered(after, situation.state, moment)
    if isinstance(state, Connected):
        after = replace(after, sample_at=_next_sample(after, event, moment))
    abandoned: tuple[Action, ...] = ()
    # A failure may be one of the loop's own, while the work that would report it still runs.
    still = (
        situation.under_way if isinstance(event, Failed | NotFetched | Lost) else noted.under_way
    )
    if still and not _is_same_work(situation.state, state):
        after, abandoned = replace(after, under_way=frozenset()), (Abandon(),)
    if times := results(situation.state, state):
        after = replace(after, times=times)
    after, actions = due(after, moment, has_verified=isinstance(event, Verified))
    counts = (Count(),) if isinstance(event, Asked) else ()
    reads = (ReadAgain(),) if reads_again(state) and not reads_again(situation.state) else ()
    return after, (*abandoned, *actions, *counts, *reads)


def interrupted(situation: Situation) -> Situation:
    """Return the situation after a shortage: all work was cut off and starts again later.

    What the kernel holds is uncertain, so it is compared first. A question that was cut off has no
    answer to wait for: its hole closes.
    """
    state = situation.state
    if isinstance(state, Resolving):
        state = replace(state, query=None)
    if isinstance(state, Fetching):
        state = begun_again(state)
    if Work.MEASURE in situation.under_way:
        situation = replace(situation, measured_at=LONG_AGO)
    if Work.PROBE in situation.under_way:
        situation = replace(situation, probed_at=LONG_AGO)
    return replace(
        situation, state=state, under_way=frozenset(), verify_at=LONG_AGO, sample_at=LONG_AGO
    )


def stricter(state: State, problem: str) -> Event:
    """Return the event for `problem`: something that `state` needs could not be done."""
    match state:
        case Locked() | Paused() | Stopping():
            return Refused(problem)
        case Resolving() | Connecting():
            return Failed(problem)
        case Fetching():
            return NotFetched(problem)
        case Connected():
            return Lost(problem)


def _noted(situation: Situation, event: Event, moment: Moment) -> Situation:
    """Return `situation` with what `event` says of the gateway's own work."""
    now, timing = moment.now, moment.timing
    if reported := REPORTS.get(type(event)):
        situation = replace(situation, under_way=situation.under_way - {reported})
    match event:
        case Changed():
            verify_at = min(situation.verify_at, situation.verified_at + timing.verify_again)
            situation = replace(situation, changed=True, verify_at=verify_at, sample_at=now)
        case Looked():
            tried = event.facts if situation.is_connecting else situation.tried
            situation = replace(situation, facts=event.facts, tried=tried)
        case Verified():
            pause = timing.verify_again if event.drifted else timing.verify_every
            situation = replace(situation, verified_at=now, verify_at=now + pause)
        case Built():
            situation = replace(situation, mtu=event.mtu, path_mtu=None)
            problem = event.names_problem
            situation = replace(situation, names_problem=problem, names_tried_at=now)
        case Measured():
            path = situation.path_mtu if event.path is None else event.path
            situation = replace(situation, mtu=event.mtu, path_mtu=path)
        case Wrote() | ResolversAsked():
            situation = _with_names(situation, event)
        case Reloaded():
            config, answer = taken_over(situation.config, event.config, event.begun_at)
            is_new = config is not situation.config  # then the rules have to follow
            changed = situation.changed or is_new
            situation = replace(situation, config=config, reload=answer, changed=changed)
        case NotReloaded():
            situation = replace(situation, reload=event.answer)
        case _:
            pass
    return situation


def _with_names(situation: Situation, event: Wrote | ResolversAsked) -> Situation:
    """Return `situation` with what is known of the workloads' names."""
    if isinstance(event, Wrote):
        return replace(situation, names_problem=event.problem)
    return replace(situation, not_answering=event.found)


def _next_state(situation: Situation, former: Config, event: Event, moment: Moment) -> State:
    """Return the state that `event` leads to, where `former` was the configuration before it."""
    state, facts = situation.state, situation.facts
    match event:
        case Reloaded():
            return state if situation.config is former else _reloaded(situation, former, moment)
        case Looked():
            return _looked(situation, moment)
        case Sampled() if isinstance(state, Connecting | Connected):
            if shared := shared_addresses(state.tunnel, facts):
                problem = f"the tunnel's address is an uplink's too: {shared}"
                return move(state, Lost(problem), moment)
    return move(state, event, moment)


def _reloaded(situation: Situation, former: Config, moment: Moment) -> State:
    """Return the state that a configuration other than `former` leads to.

    A locked gateway tries it at once, and a paused one later. A listen port that was given up stays
    given up.
    """
    state, config = situation.state, situation.config
    if isinstance(state, Stopping):
        return state
    if isinstance(state, Locked):
        return replace(state, retry_at=min(state.retry_at, moment.now))
    if isinstance(state, Paused):
        return with_other_configuration(state)
    asks = (
        isinstance(state, Resolving | Fetching)
        and config.endpoint_resolver != former.endpoint_resolver
    )
    if config.tunnels == former.tunnels and not asks:
        return state
    times = situation.known_times
    wanted, port = in_order(config.tunnels, times), state.turn.candidate.listen_port
    before = _configured(state.turn.candidate, former)
    candidates = (fitted(tunnel, situation.facts) for tunnel in wanted)
    kept = tuple(
        replace(it, listen_port=port) if it.listen_port == before.listen_port else it
        for it in candidates
    )
    trial = trial_for(kept, config, times)
    return with_candidates(state, kept, position_of(before, wanted), moment, trial)


def _configured(candidate: Candidate, config: Config) -> Candidate:
    """Return `candidate` as `config` has it: with its own listen port, and with all addresses."""

    def identity(it: Candidate) -> Candidate:
        always = tuple(address for address in it.addresses if address.version == IPV4)
        return replace(it, addresses=always, listen_port=0)

    matching = (it for it in config.tunnels if identity(it) == identity(candidate))
    return next(matching, candidate)


def _looked(situation: Situation, moment: Moment) -> State:
    """Return the state after the namespace was looked at: a way may have changed, or be there."""
    state, facts, former = situation.state, situation.facts, situation.tried
    match state:
        case Locked() if moment.now >= state.retry_at:
            config, times = situation.config, situation.known_times
            candidates = tuple(fitted(it, facts) for it in in_order(config.tunnels, times))
            trial = trial_for(candidates, config, times)
            begin = Begin(candidates, by_latency=config.latency is not None, trial=trial)
            return move(state, begin, moment)
        case Resolving() | Fetching() if not situation.is_connecting and former != facts:
            return move(state, Moved(""), moment)
        case Connecting() | Connected():
            if not situation.is_connecting and has_moved(state.tunnel, former, facts):
                return move(state, Moved(ways(state.tunnel, facts)), moment)
        case _:
            pass
    return state


def _entered(situation: Situation, former: State, moment: Moment) -> Situation:
    """Return `situation` with what begins with its state, if that is not `former`."""
    state, now, timing = situation.state, moment.now, moment.timing
    if isinstance(state, Connected) and not isinstance(former, Connected):
        situation = replace(situation, probed_at=LONG_AGO, measured_at=LONG_AGO, asked_at=LONG_AGO)
        return replace(situation, sample_at=now + timing.heartbeat)
    is_new = isinstance(former, Connecting) and not former.built
    if isinstance(state, Connecting) and state.built and is_new:
        return replace(situation, sample_at=now + timing.eager)
    before, after = _resolvers(former), _resolvers(state)
    if before is not None and after is not None and before != after:
        return replace(situation, names_problem=NEW_NAMES, names_tried_at=LONG_AGO)
    return situation


def _resolvers(state: State) -> tuple[Address, ...] | None:
    """Return the resolvers that workloads have in `state`; None before the interface is built."""
    match state:
        case Connected() | Connecting(built=True):
            return state.tunnel.dns
        case _:
            return None


def _next_sample(situation: Situation, event: Event, moment: Moment) -> float:
    """Return when a connected tunnel is sampled again: soon, unless the last sample found calm."""
    if not is_calm(situation):
        return min(situation.sample_at, moment.now + moment.timing.heartbeat)
    found_calm = isinstance(event, Sampled)
    return moment.now + moment.timing.sample_calm if found_calm else situation.sample_at


def _is_same_work(former: State, state: State) -> bool:
    """Return whether work for `former` counts in `state` too."""
    match former, state:
        case (Resolving(), Resolving()):
            return former.turn == state.turn and former.query == state.query
        case (Fetching(), Fetching()):
            return former.query == state.query and former.transfer == state.transfer
        case (Connecting(), Connecting()):
            return former.turn == state.turn and former.built == state.built
        case (Connected(), Connected()):
            return former.tunnel == state.tunnel
        case (Paused(), Paused()):
            return True
        case _:
            return False
