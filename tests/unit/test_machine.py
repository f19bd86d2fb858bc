"""What is due when: the actions that an event leads to, without a loop and without a kernel."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.model import EVERYTHING, Config, Endpoint, HealthProbe, NamedEndpoint, Peer, ProbeKind
from gateway.policy.actions import (
    Abandon,
    Action,
    Ask,
    Build,
    LookAround,
    LookUp,
    Sample,
    SendProbe,
    Verify,
    Work,
    WriteNames,
)
from gateway.policy.agenda import rests, wake_at
from gateway.policy.events import (
    Asked,
    Asking,
    Built,
    Changed,
    Event,
    Failed,
    Looked,
    Lost,
    Probed,
    Refused,
    Resolved,
    Sampled,
    Stop,
    Tick,
    Verified,
    Wrote,
)
from gateway.policy.evidence import LITTLE, Pulse
from gateway.policy.facts import Facts, PeerStatus, TunnelStatus
from gateway.policy.machine import interrupted, step, stricter
from gateway.policy.retry import Setback, setback_after
from gateway.policy.situation import Situation
from gateway.policy.states import (
    Connected,
    Connecting,
    Locked,
    Query,
    Reason,
    Resolving,
    State,
    Stopping,
    Turn,
)
from gateway.policy.timing import Moment, Timing
from gateway.policy.ways import TWO_ADDRESSES, obstacle
from tests.fakes.world import other_uplink
from tests.scenarios import IPV4_ONLY, ONE_UPLINK, SERVER6

NOW = 1000.0
TIMING = Timing()
PEER = Peer("key", Endpoint(ip_address("198.51.100.10"), 51820), EVERYTHING)
TUNNEL = replace(IPV4_ONLY, peers=(PEER,), dns=(ip_address("10.2.0.1"),))
NAMED = replace(TUNNEL, peers=(replace(PEER, endpoint=NamedEndpoint("vpn.example", 51820)),))
CONFIG = Config((TUNNEL,))
QUERY = Query(ip_address("172.18.0.53"), 40000, 7)
TURN = Turn((TUNNEL,), tried_at=NOW - 60)
UNBUILT = Connecting(TURN, TUNNEL, Reason.STARTING, NOW, retry_at=NOW)
BUILT = replace(UNBUILT, turn=replace(TURN, tried_at=NOW), built=True, give_up_at=NOW + 8)
RESOLVING = Resolving(Turn((NAMED,)), Reason.STARTING, NOW, retry_at=NOW)
ALIVE = Pulse(handshake=5.0, handshake_at=NOW, received=100, sent=100, heard_at=NOW)
CONNECTED = Connected(TURN, TUNNEL, NOW - 60, ALIVE)
QUIET = replace(CONNECTED, pulse=replace(ALIVE, moves=False))
FAR = NOW + 1000
CALM: dict[str, Any] = {
    "facts": ONE_UPLINK,
    "tried": ONE_UPLINK,
    "verified_at": NOW,
    "verify_at": FAR,
    "sample_at": FAR,
    "probed_at": NOW,
    "measured_at": NOW,
    "names_tried_at": NOW,
}
"""Nothing is due."""


def at(seconds: float) -> Moment:
    """Return the moment `seconds` after NOW."""
    return Moment(NOW + seconds, TIMING)


def calm(state: State, **others: Any) -> Situation:
    """Return a situation in which nothing is due but what `others` say."""
    return Situation(CONFIG, state, **(CALM | others))


def due(situation: Situation, seconds: float = 0.0, event: Event | None = None) -> list[Action]:
    """Return the actions that follow from `event`, a Tick if none, `seconds` after NOW."""
    return list(step(situation, event or Tick(), at(seconds))[1])


def sampled(handshake: float | None = 5.0, received: int = 200) -> Sampled:
    """Return a sample of TUNNEL."""
    peer = PeerStatus("key", None, handshake, received, 100)
    return Sampled(TunnelStatus(TUNNEL.listen_port, TUNNEL.fwmark, (peer,)))


def test_the_first_tick_looks_and_compares_and_what_is_found_begins_the_connection() -> None:
    """Nothing is built for a namespace that has not been looked at."""
    situation, actions = step(Situation(CONFIG, Locked(since=NOW)), Tick(), at(0))
    assert actions == (LookAround(), Verify())
    situation, actions = step(situation, Looked(ONE_UPLINK), at(0))
    assert isinstance(situation.state, Connecting)
    assert actions == (Build(situation.state.tunnel),)
    assert due(situation) == [], "it is under way"


def test_a_locked_gateway_waits_for_its_time() -> None:
    """And looks around before it begins."""
    locked = calm(Locked(retry_at=NOW + 5))
    assert due(locked, 4.9) == []
    assert due(locked, 5) == [LookAround()]


def test_a_name_is_asked_for_only_when_its_hole_is_open() -> None:
    """First the socket, then its rules, then the question, then the interface."""
    situation, actions = step(calm(RESOLVING), Tick(), at(0))
    assert actions == (LookUp(NAMED),)
    assert due(situation) == [], "the socket is about to be opened"
    situation, actions = step(situation, Asking(QUERY), at(0))
    assert actions == (Ask(NAMED),)
    assert due(situation, 5) == []
    situation, actions = step(situation, Resolved((TUNNEL,)), at(1))
    assert actions == (Build(TUNNEL),)


@pytest.mark.parametrize(
    "state", [replace(RESOLVING, retry_at=NOW + 5), replace(UNBUILT, retry_at=NOW + 5)]
)
def test_no_attempt_begins_before_its_time(state: State) -> None:
    """The pauses are kept whatever else ticks."""
    assert due(calm(state), 4.9) == []
    assert len(due(calm(state), 5)) == 1


def test_while_the_interface_is_built_only_the_rules_are_compared() -> None:
    """The routes are between two states; what the kernel reports is looked at afterwards."""
    building, _ = step(calm(UNBUILT), Tick(), at(0))
    building, actions = step(building, Changed(), at(0.5))
    assert actions == ()
    assert due(building, 1.0) == [Verify()], "early, because of the change"
    built, actions = step(building, Built(), at(0.9))
    assert actions == (LookAround(),)
    assert step(built, Looked(ONE_UPLINK), at(0.9))[0].state == built.state


def test_a_way_that_changes_while_the_interface_is_built_is_the_one_that_was_tried() -> None:
    """The building begins with a look of its own, which is not news."""
    building, _ = step(calm(UNBUILT), Tick(), at(0))
    building, actions = step(building, Looked(other_uplink(ONE_UPLINK)), at(0))
    assert actions == ()
    assert building.is_connecting


def test_a_new_interface_is_sampled_eagerly_for_two_seconds() -> None:
    """Then once in a heartbeat, and never twice at once."""
    building, _ = step(calm(UNBUILT), Tick(), at(0))
    situation, actions = step(building, Built(), at(0))
    assert actions == ()
    times = []
    for tick in range(1, 2 * 500):
        seconds = tick / 100
        situation, actions = step(situation, Tick(), at(seconds))
        if Sample(TUNNEL) in actions:
            times.append(seconds)
            assert due(situation, seconds + 1) == [], "while one is under way"
            situation, _ = step(situation, sampled(None, 0), at(seconds))
            if not isinstance(situation.state, Connecting) or not situation.state.built:
                break
    eager = [time for time in times if time < TIMING.eager_for]
    assert len(eager) == pytest.approx(TIMING.eager_for / TIMING.eager, abs=2)
    late = [time for time in times if time >= TIMING.eager_for]
    assert 5 <= len(late) <= 8, late


def test_a_change_compares_a_second_after_the_last_time_and_samples_at_once() -> None:
    """The kernel reports no changes of rules, but who changes routes often changes rules too."""
    situation, actions = step(calm(CONNECTED, verified_at=NOW - 0.2), Changed(), at(0))
    assert actions == (LookAround(),)
    situation, actions = step(situation, Looked(ONE_UPLINK), at(0))
    assert actions == (Sample(TUNNEL),)
    assert due(situation, 0.7) == []
    assert due(situation, 0.8) == [LookAround(), Verify()]
    late = calm(CONNECTED, verified_at=NOW - 2)
    assert due(late, 0, Changed()) == [LookAround(), Verify()]


def test_the_kernel_is_compared_every_four_seconds_and_each_second_after_drift() -> None:
    """Counted from the comparison before."""
    for drifted, pause in ((False, 4.0), (True, 1.0)):
        situation, _ = step(calm(CONNECTED), Verified(drifted=drifted), at(0))
        assert Verify() not in due(situation, pause - 0.01)
        assert due(situation, pause) == [LookAround(), Verify()]


def test_a_comparison_that_fails_is_tried_again_a_second_later() -> None:
    """And not at once, whatever it raised."""
    situation, actions = step(calm(CONNECTED, verify_at=NOW), Tick(), at(0))
    assert Verify() in actions
    assert Verify() not in due(situation, 0.99)
    assert Verify() in due(situation, 1.0)


def test_a_probe_is_due_at_once_and_then_every_twenty_seconds() -> None:
    """From each connection on: what was probed before it does not count."""
    situation = calm(replace(BUILT, tunnel=TUNNEL), probed_at=NOW)
    situation, actions = step(situation, sampled(), at(0))
    assert isinstance(situation.state, Connected)
    [probe] = [action for action in actions if isinstance(action, SendProbe)]
    assert probe not in due(situation, 30), "while one is under way"
    situation, _ = step(situation, Probed(answered=True), at(0.1))
    situation = replace(situation, sample_at=FAR)
    assert due(situation, 19.9) == []
    assert due(situation, 20) == [probe]


def test_in_doubt_a_probe_is_due_each_second() -> None:
    """Data that was not answered for three seconds, or a resolver that was silent once."""
    waiting = replace(CONNECTED, pulse=replace(ALIVE, unanswered_at=NOW))
    assert due(calm(waiting), 2.9) == []
    assert len(due(calm(waiting), 3.0)) == 1
    failing = replace(CONNECTED, resolver_failures=1)
    assert due(calm(failing), 0.9) == []
    assert len(due(calm(failing), 1.0)) == 1


def test_where_there_is_no_probe_none_is_sent_and_the_loop_does_not_spin() -> None:
    """HEALTH_PROBE=off."""
    config = replace(CONFIG, health_probe=HealthProbe(ProbeKind.OFF))
    situation, actions = step(replace(calm(QUIET), config=config), Tick(), at(30))
    assert actions == ()
    assert wake_at(situation, at(30)) == NOW + 30 + TIMING.verify_every


def test_the_resolver_file_is_written_again_each_second_while_names_do_not_resolve() -> None:
    """Next to the loop, once at a time, until it succeeds."""
    situation = calm(QUIET, names_problem="read-only")
    assert due(situation, 0.9) == []
    situation, actions = step(situation, Tick(), at(1))
    assert actions == (WriteNames(TUNNEL),)
    assert due(situation, 2.5) == []
    again, _ = step(situation, Wrote("read-only"), at(1.1))
    assert due(again, 2) == [WriteNames(TUNNEL)]
    written, _ = step(situation, Wrote(), at(1.1))
    assert (due(written, 2), written.names_problem) == ([], "")


@pytest.mark.parametrize("event", [Stop(), Lost("gone"), Refused("no")], ids=repr)
def test_a_state_that_is_left_takes_its_work_with_it(event: Event) -> None:
    """No result of a former state counts for the present one."""
    situation = calm(CONNECTED, under_way=frozenset(Work))
    after, actions = step(situation, event, at(0))
    assert actions[0] == Abandon()
    assert after.under_way <= {Work.CONNECT}
    kept, actions = step(situation, sampled(), at(0))
    assert Abandon() not in actions
    assert kept.under_way == set(Work) - {Work.SAMPLE}


def test_a_failure_while_the_interface_is_built_cuts_the_building_off() -> None:
    """It may still be waiting for a process, and the next attempt must not meet it."""
    building, _ = step(calm(UNBUILT), Tick(), at(0))
    after, actions = step(building, Failed("no routes"), at(0.5))
    assert actions == (Abandon(),)
    assert after.under_way == frozenset()


def test_a_stopping_gateway_begins_nothing() -> None:
    """Even if something is due."""
    assert due(Situation(CONFIG, Stopping(NOW)), 100) == []


def test_another_way_to_the_server_is_followed_once() -> None:
    """The facts that led to it are the ones to compare with from then on."""
    moved = other_uplink(ONE_UPLINK)
    after, _ = step(calm(CONNECTED), Looked(moved), at(0))
    assert isinstance(after.state, Connecting)
    assert after.state.reason is Reason.MOVED
    assert after.tried == moved
    same, _ = step(calm(CONNECTED), Looked(ONE_UPLINK), at(0))
    assert same.state is CONNECTED


def test_any_change_ends_the_waiting_for_a_look_up() -> None:
    """The way to a resolver is not known, so every change may be one of it."""
    waiting = calm(replace(RESOLVING, retry_at=NOW + 60))
    after, actions = step(waiting, Looked(other_uplink(ONE_UPLINK)), at(0))
    assert isinstance(after.state, Resolving)
    assert actions == (LookUp(NAMED),)
    assert step(waiting, Looked(ONE_UPLINK), at(0))[1] == ()


def test_a_tunnel_whose_address_an_uplink_has_is_lost() -> None:
    """No rule could distinguish the two (P11)."""
    address = TUNNEL.addresses[0]
    first = replace(ONE_UPLINK.uplinks[0], addresses=(address,))
    shared = replace(ONE_UPLINK, uplinks=(first,))
    situation = calm(CONNECTED, facts=shared, tried=shared)
    after, _ = step(situation, sampled(), at(0))
    assert isinstance(after.state, Connecting)
    assert "an uplink's too" in after.state.detail
    assert "an uplink's too" in obstacle(TUNNEL, shared) or "no uplink" in obstacle(TUNNEL, shared)


def test_no_interface_is_built_without_a_way_to_the_server() -> None:
    """The obstacle names the endpoint."""
    assert obstacle(TUNNEL, Facts()) == f"no uplink has a route to the endpoint: {PEER.endpoint}"
    assert obstacle(TUNNEL, ONE_UPLINK) == ""


def test_after_a_shortage_everything_that_was_under_way_is_due_again() -> None:
    """The comparison first; a question that was cut off has no hole any more."""
    state = replace(RESOLVING, query=QUERY)
    asking = calm(state, under_way=frozenset({Work.CONNECT}))
    after = interrupted(asking)
    assert after.state == RESOLVING
    assert due(after) == [LookAround(), Verify()]
    sampling = interrupted(calm(CONNECTED, under_way=frozenset({Work.SAMPLE})))
    situation, _ = step(sampling, Tick(), at(0.25))
    assert due(situation, 0.25, Looked(ONE_UPLINK)) == [Sample(TUNNEL)]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (Locked(), Refused("no")),
        (Stopping(), Refused("no")),
        (RESOLVING, Failed("no")),
        (UNBUILT, Failed("no")),
        (CONNECTED, Lost("no")),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_could_not_be_done_leads_to_a_stricter_state(state: State, event: Event) -> None:
    """Each state has one event for it."""
    assert stricter(state, "no") == event


def test_the_next_tick_comes_when_something_is_due_and_never_in_a_hurry() -> None:
    """At the latest when the kernel is compared; a heartbeat at most where not connected."""
    assert wake_at(calm(CONNECTED), at(0)) == NOW + 4.0
    assert wake_at(calm(CONNECTED, sample_at=NOW + 0.5), at(0)) == NOW + 0.5
    sampling = calm(CONNECTED, sample_at=NOW, under_way=frozenset({Work.SAMPLE}))
    assert wake_at(sampling, at(0)) == NOW + 4.0
    assert wake_at(calm(CONNECTED, verify_at=NOW + 0.3), at(0)) == NOW + 0.3
    assert wake_at(calm(CONNECTED, probed_at=NOW - 19.5), at(0)) == NOW + 0.5
    probing = calm(CONNECTED, probed_at=NOW - 30, under_way=frozenset({Work.PROBE}))
    assert wake_at(probing, at(0)) == NOW + 4.0
    failing = replace(CONNECTED, resolver_failures=1)
    assert wake_at(calm(failing), at(0)) == NOW + 1.0
    assert wake_at(calm(CONNECTED, names_problem="read-only"), at(0)) == NOW + 1.0
    assert wake_at(calm(Locked(retry_at=NOW + 0.4)), at(0)) == NOW + 0.4
    assert wake_at(calm(Locked(retry_at=NOW + 9)), at(0)) == NOW + 1.0
    assert wake_at(calm(replace(UNBUILT, retry_at=NOW + 0.6)), at(0)) == NOW + 0.6
    assert wake_at(calm(replace(RESOLVING, retry_at=NOW + 0.7)), at(0)) == NOW + 0.7
    for state in (UNBUILT, RESOLVING):
        busy = calm(state, under_way=frozenset({Work.CONNECT}), sample_at=NOW - 5)
        assert wake_at(busy, at(0)) == NOW + 1.0
    assert wake_at(calm(Locked(retry_at=NOW - 5)), at(0)) == NOW + TIMING.eager


def test_a_tunnel_in_which_nothing_moves_is_sampled_seldom() -> None:
    """Once in a heartbeat again when something moves; a probe and keepalives are not much."""

    def next_sample(state: Connected, event: Event, seconds: float = 1.0) -> float:
        """Return how long after `event` the next sample is due."""
        situation, _ = step(calm(state, sample_at=NOW + seconds), Tick(), at(seconds))
        assert Work.SAMPLE in situation.under_way
        situation, _ = step(situation, event, at(seconds))
        return situation.sample_at - NOW - seconds

    same, little = sampled(received=ALIVE.received), sampled(received=ALIVE.received + LITTLE)
    more = sampled(received=ALIVE.received + LITTLE + 1)
    still = replace(CONNECTED, pulse=replace(ALIVE, sent=same.status.sent))
    assert next_sample(still, more) == TIMING.heartbeat
    assert next_sample(still, same) == TIMING.sample_calm
    assert next_sample(still, little) == TIMING.sample_calm
    waiting = replace(still, pulse=replace(still.pulse, unanswered_at=NOW))
    assert next_sample(waiting, same) == TIMING.heartbeat
    quiet = replace(still, pulse=replace(still.pulse, moves=False))
    # It does not wake the loop: what is due before the next comparison is done with this one.
    soon = calm(quiet, sample_at=NOW + 3.9, probed_at=NOW - 16.1, verify_at=NOW + 1)
    assert wake_at(soon, at(0)) == NOW + 1
    assert due(soon) == []
    after, actions = step(replace(soon, verified_at=NOW - 3), Verified(drifted=False), at(0))
    assert [type(action) for action in actions] == [Sample, SendProbe]
    assert wake_at(after, at(0)) == NOW + 4
    late = calm(quiet, probed_at=NOW - 15.9)
    assert due(late, event=Verified(drifted=False)) == [Sample(TUNNEL)]
    failing = replace(soon, state=replace(quiet, resolver_failures=1), probed_at=NOW - 0.5)
    assert wake_at(failing, at(0)) == NOW + 0.5


def test_a_probe_that_fails_in_a_calm_tunnel_ends_the_calm() -> None:
    """The next sample is due as soon as where something moves."""
    situation = calm(QUIET, sample_at=NOW + 19, under_way=frozenset({Work.PROBE}))
    after, _ = step(situation, Probed(answered=False), at(0))
    assert after.sample_at == NOW + TIMING.heartbeat
    later, _ = step(situation, Probed(answered=True), at(0))
    assert later.sample_at == NOW + 19, "control: an answer changes nothing"


def test_a_calm_gateway_only_compares_until_something_else_is_due() -> None:
    """A sample or a probe that is due before the next comparison, or any doubt, needs more."""
    quiet = QUIET
    assert rests(calm(quiet), at(0))
    assert rests(calm(quiet, sample_at=NOW + 4.1, probed_at=NOW - 15.9), at(0))
    assert not rests(calm(quiet, sample_at=NOW + 3.9), at(0))
    assert not rests(calm(quiet, probed_at=NOW - 16.1), at(0))
    assert not rests(calm(quiet, changed=True), at(0))
    assert not rests(calm(quiet, names_problem="read-only"), at(0))
    assert not rests(calm(quiet, under_way=frozenset({Work.PROBE})), at(0))
    assert not rests(calm(replace(quiet, resolver_failures=1)), at(0))
    assert not rests(calm(replace(quiet, pulse=replace(quiet.pulse, unanswered_at=NOW))), at(0))
    assert not rests(calm(CONNECTED), at(0)), "something moves"
    for state in (Locked(), RESOLVING, BUILT):
        assert not rests(calm(state), at(0))


def test_shortages_are_retried_with_growing_waits_up_to_four_seconds() -> None:
    """Less than the 5 s in which P17 promises to detect changes."""
    setback, waits = None, []
    for _ in range(7):
        setback = setback_after(setback, "not now", at(0))
        waits.append(setback.retry_at - NOW)
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert setback is not None
    assert setback.attempt == 7


def test_a_setback_waits_for_its_time_a_change_or_a_stop() -> None:
    """A new link has to have a guard at once, or be down."""
    setback = Setback("not now", 1, NOW + 1)
    assert setback.lets_pass(Stop(), NOW)
    assert setback.lets_pass(Changed(), NOW)
    assert not setback.lets_pass(Tick(), NOW + 0.9)
    assert not setback.lets_pass(Asked(), NOW + 0.9)
    assert setback.lets_pass(Tick(), NOW + 1)
    assert setback.lets_pass(sampled(), NOW), "work that a change has started"


def test_a_setback_of_work_lasts_until_that_work_has_reported() -> None:
    """Health stays red while counters cannot be read, however well the rules can."""
    setback = Setback("not now", 1, NOW, Work.SAMPLE)
    assert not setback.is_over(Tick(), {Work.SAMPLE, Work.PROBE})
    assert setback.is_over(Tick(), {Work.PROBE})
    assert setback.is_over(sampled(), {Work.SAMPLE}), "the next one"
    assert Setback("not now", 1, NOW).is_over(Tick(), {Work.SAMPLE})


def test_a_locked_gateway_begins_at_its_time_and_not_before() -> None:
    """What is found before it only counts as seen."""
    locked = calm(Locked(retry_at=NOW + 5))
    early, _ = step(locked, Looked(ONE_UPLINK), at(4.9))
    assert early.state is locked.state
    begun, actions = step(locked, Looked(ONE_UPLINK), at(5))
    assert isinstance(begun.state, Connecting)
    assert actions == (Build(TUNNEL),)


def test_the_namespace_as_it_was_tried_is_what_the_next_look_is_compared_with() -> None:
    """From the moment that another way is known, and from the beginning of an attempt."""
    moved = other_uplink(ONE_UPLINK)
    recent = replace(CONNECTED, turn=replace(TURN, tried_at=NOW))
    after, actions = step(calm(recent), Looked(moved), at(0))
    assert actions == (), "control: the attempt begins later"
    assert after.tried == moved
    begun, _ = step(calm(UNBUILT, tried=Facts()), Tick(), at(0))
    assert begun.tried == ONE_UPLINK
    kept, _ = step(calm(CONNECTED, tried=ONE_UPLINK), Looked(replace(moved, routes=())), at(0))
    assert kept.facts == replace(moved, routes=())


def test_a_new_connection_is_sampled_a_heartbeat_later() -> None:
    """The sample that has connected it is fresh."""
    situation, _ = step(calm(BUILT, sample_at=NOW - 5), sampled(), at(0))
    assert isinstance(situation.state, Connected)
    probed, _ = step(situation, Probed(answered=True), at(0))
    assert Sample(TUNNEL) not in due(probed, TIMING.heartbeat - 0.01)
    assert Sample(TUNNEL) in due(probed, TIMING.heartbeat)
    again, _ = step(calm(CONNECTED, probed_at=NOW - 5), sampled(), at(0))
    assert again.probed_at == NOW - 5, "only the first sample of a connection counts as new"


def test_a_new_interface_is_sampled_a_moment_later() -> None:
    """Handshakes take milliseconds; nothing else resets the time of the next sample."""
    building, _ = step(calm(UNBUILT), Tick(), at(0))
    built, _ = step(building, Built(), at(0.5))
    assert built.sample_at == NOW + 0.5 + TIMING.eager
    kept, _ = step(calm(BUILT, sample_at=FAR), sampled(None, 0), at(0))
    assert kept.sample_at == FAR


def test_a_look_up_for_another_turn_is_other_work() -> None:
    """Its result would be that of the former candidate."""
    asking = calm(replace(RESOLVING, query=QUERY), under_way=frozenset({Work.CONNECT}))
    same, actions = step(asking, Probed(answered=True), at(0))
    assert Abandon() not in actions
    assert same.is_connecting
    failed, actions = step(asking, Failed("no"), at(0))
    assert actions == (Abandon(),)
    assert not failed.is_connecting


def test_an_obstacle_says_what_helps() -> None:
    """An address that an uplink has too; the first endpoint without a way comes before it."""
    address = TUNNEL.addresses[0]
    first = replace(ONE_UPLINK.uplinks[0], addresses=(address,))
    shared = replace(ONE_UPLINK, uplinks=(first,))
    assert obstacle(TUNNEL, shared) == (
        f"the tunnel's address is an uplink's too; {TWO_ADDRESSES}: {address.ip} on eth0"
    )
    both = replace(TUNNEL, peers=(*TUNNEL.peers, replace(PEER, endpoint=SERVER6)))
    only_ipv4 = replace(ONE_UPLINK, routes=ONE_UPLINK.routes[:2])
    assert obstacle(both, only_ipv4) == f"no uplink has a route to the endpoint: {SERVER6}"


def test_names_that_do_not_resolve_are_known_from_the_building_on() -> None:
    """And the time of the attempt counts for the next one."""
    building, _ = step(calm(UNBUILT), Tick(), at(0))
    built, _ = step(building, Built("read-only"), at(3))
    assert (built.names_problem, built.names_tried_at) == ("read-only", NOW + 3)
    fine, _ = step(building, Built(), at(3))
    assert fine.names_problem == ""
