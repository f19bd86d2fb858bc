"""The state machine: every state meets every event, and evidence is judged by the clock given."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from itertools import pairwise
from typing import Any

import pytest

from gateway.model import EVERYTHING, Endpoint, NamedEndpoint, Peer, Secret, ServerList, Tunnel
from gateway.policy.events import (
    Asking,
    Begin,
    Built,
    Event,
    Failed,
    Fetched,
    Located,
    Lost,
    Moved,
    NotFetched,
    Opened,
    Probed,
    Refused,
    Resolved,
    Sampled,
    Stop,
)
from gateway.policy.evidence import KEEPALIVE_SIZE, Pulse
from gateway.policy.facts import PeerStatus, TunnelStatus
from gateway.policy.moves import backoff, move
from gateway.policy.orders import Order, Ordered, Removed
from gateway.policy.report import is_healthy
from gateway.policy.states import (
    RESOLVER_FAILURES,
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Query,
    Reason,
    Resolving,
    State,
    Stopping,
    Transfer,
    Turn,
)
from gateway.policy.timing import Moment, Timing

NOW = 1000.0
TIMING = Timing()
PEER = Peer("public", Endpoint(ip_address("198.51.100.1"), 51820), EVERYTHING)
TUNNEL = Tunnel(Secret("private"), (ip_interface("10.0.0.2/32"),), (PEER,), fwmark=0xCA6C)
SECOND = replace(TUNNEL, peers=(replace(PEER, endpoint=Endpoint(ip_address("::2"), 1)),))
NAMED = replace(TUNNEL, peers=(replace(PEER, endpoint=NamedEndpoint("vpn.example", 51820)),))
LISTED = replace(TUNNEL, peers=(), listed=ServerList("mullvad", "api.example", "/relays/"))
QUERY = Query(ip_address("192.0.2.53"), 40000, 7)
ONE, TWO = Turn((TUNNEL,)), Turn((TUNNEL, SECOND))


def status(handshake: float | None = None, received: int = 0, sent: int = 0) -> TunnelStatus:
    """Return what WireGuard would report of the one peer."""
    peer = PeerStatus("public", PEER.endpoint, handshake, received, sent)
    return TunnelStatus(51820, 0xCA6C, (peer,))


ALIVE = Pulse(handshake=5.0, handshake_at=NOW - 10, received=100, sent=100)
STATES: dict[str, State] = {
    "locked": Locked(since=1.0),
    "resolving": Resolving(Turn((NAMED,)), Reason.STARTING, since=NOW, retry_at=NOW),
    "fetching": Fetching(Turn((LISTED,)), Reason.STARTING, since=NOW, retry_at=NOW),
    "unbuilt": Connecting(ONE, TUNNEL, Reason.STARTING, since=NOW, retry_at=NOW),
    "built": Connecting(
        ONE,
        TUNNEL,
        Reason.NO_HANDSHAKE,
        since=NOW,
        retry_at=NOW,
        built=True,
        give_up_at=NOW + TIMING.patience,
    ),
    "connected": Connected(ONE, TUNNEL, since=NOW, pulse=ALIVE),
    "paused": Paused(since=1.0),
    "stopping": Stopping(since=1.0),
}
EVENTS: dict[str, Event] = {
    "begin": Begin((TUNNEL,)),
    "asking": Asking(QUERY),
    "resolved": Resolved((TUNNEL,)),
    "located": Located((ip_address("203.0.113.5"),)),
    "opened": Opened(Transfer(ip_address("203.0.113.5"), 443, 40001, 8)),
    "fetched": Fetched(),
    "not fetched": NotFetched("no"),
    "built": Built(),
    "failed": Failed("no"),
    "lost": Lost("gone"),
    "moved": Moved("by eth1"),
    "refused": Refused("no rules"),
    "pause": Ordered(Order.PAUSE),
    "resume": Ordered(Order.RESUME),
    "reconnect": Ordered(Order.RECONNECT),
    "next": Ordered(Order.NEXT),
    "removed": Removed(),
    "handshake": Sampled(status(handshake=9.0, received=92, sent=148)),
    "probed": Probed(answered=True),
    "stop": Stop(),
}
ORDERS = ("reconnect", "next")
LEADS_ON = {
    ("locked", "begin"): "unbuilt",
    ("resolving", "asking"): "resolving",
    ("resolving", "resolved"): "unbuilt",
    ("resolving", "failed"): "resolving",
    **{
        ("fetching", event): "fetching"
        for event in ("asking", "located", "opened", "fetched", "not fetched", "failed")
    },
    ("unbuilt", "built"): "built",
    ("unbuilt", "failed"): "unbuilt",
    ("unbuilt", "lost"): "unbuilt",
    ("built", "lost"): "unbuilt",
    ("built", "failed"): "unbuilt",
    ("built", "moved"): "unbuilt",
    ("connected", "moved"): "unbuilt",
    ("unbuilt", "moved"): "unbuilt",
    ("built", "handshake"): "connected",
    ("connected", "lost"): "unbuilt",
    ("connected", "handshake"): "connected",
    **{(state, "refused"): "locked" for state in STATES if state not in {"paused", "stopping"}},
    **{(state, "pause"): "paused" for state in STATES if state not in {"paused", "stopping"}},
    **{("paused", event): "paused" for event in ("refused", "removed")},
    ("paused", "resume"): "locked",
    **{(state, order): "unbuilt" for state in ("built", "connected") for order in ORDERS},
    **{(state, "stop"): "stopping" for state in STATES},
}
"""Where an event means something; every other pair leaves the state as it is."""


def step(state: State, event: Event, now: float) -> State:
    """Return what `event` leads to at `now`."""
    return move(state, event, Moment(now, TIMING))


def kind(state: State) -> str:
    """Return the name under which STATES has a state like `state`."""
    if isinstance(state, Connecting):
        return "built" if state.built else "unbuilt"
    return type(state).__name__.lower()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state_leads_where_the_table_says(state: str, event: str) -> None:
    """What the table does not name changes nothing at all."""
    after = step(STATES[state], EVENTS[event], NOW)
    if (state, event) in LEADS_ON:
        assert kind(after) == LEADS_ON[state, event]
    else:
        assert after == STATES[state]


def test_only_a_handshake_on_the_new_interface_connects() -> None:
    """Bytes alone do not open the tunnel."""
    after = step(STATES["built"], Sampled(status(received=500, sent=500)), NOW)
    assert kind(after) == "built"
    assert kind(step(after, Sampled(status(handshake=10.0)), NOW)) == "connected"


def test_unanswered_data_means_silence_after_its_time() -> None:
    """Data sent without anything received goes back to connecting, not a moment early."""
    sent = step(STATES["connected"], Sampled(status(5.0, received=100, sent=1000)), NOW)
    early = step(sent, Sampled(status(5.0, 100, 2000)), NOW + TIMING.silent_after - 0.1)
    late = step(early, Sampled(status(5.0, 100, 3000)), NOW + TIMING.silent_after)
    assert kind(early) == "connected"
    assert isinstance(late, Connecting)
    assert (late.built, late.reason, late.retry_at) == (
        False,
        Reason.SILENT,
        NOW + TIMING.silent_after,
    )


def test_an_answer_in_time_starts_the_count_again() -> None:
    """A byte received after the data proves that the server lives."""
    sent = step(STATES["connected"], Sampled(status(5.0, 100, 1000)), NOW)
    answered = step(sent, Sampled(status(5.0, 132, 1000)), NOW + TIMING.silent_after - 1)
    later = step(answered, Sampled(status(5.0, 132, 1032)), NOW + TIMING.silent_after + 20)
    assert kind(later) == "connected"


def test_keepalives_alone_prove_nothing() -> None:
    """A keepalive every 25 s without an answer is how an idle tunnel looks."""
    state, sent = STATES["connected"], 100
    for seconds in range(0, int(TIMING.handshake_expires) - 15, 25):
        sent += KEEPALIVE_SIZE
        state = step(state, Sampled(status(5.0, 100, sent)), NOW + seconds)
        assert kind(state) == "connected"


def test_an_expired_handshake_means_silence_only_with_keepalive() -> None:
    """Without keepalive an idle tunnel has no handshakes, and nothing is wrong with it."""
    quiet_peer = replace(PEER, persistent_keepalive=0)
    quiet = Connected(ONE, replace(TUNNEL, peers=(quiet_peer,)), since=NOW, pulse=ALIVE)
    later = NOW + TIMING.handshake_expires
    assert kind(step(STATES["connected"], Sampled(status(5.0, 100, 100)), later)) == "unbuilt"
    assert kind(step(quiet, Sampled(status(5.0, 100, 100)), later)) == "connected"


def test_a_wall_clock_that_jumps_changes_nothing() -> None:
    """A handshake reported with an earlier wall clock is still a new one, with its age from now."""
    after = step(STATES["connected"], Sampled(status(-7000.0, 300, 300)), NOW)
    assert isinstance(after, Connected)
    assert after.pulse.handshake_at == NOW


def test_failures_wait_longer_each_round_up_to_a_limit() -> None:
    """Attempts are spaced from one second, doubling, to a minute."""
    state: State = STATES["unbuilt"]
    waits = []
    for _ in range(9):
        state = step(state, Failed("no"), NOW)
        assert isinstance(state, Connecting)
        waits.append(state.retry_at - NOW)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == TIMING.backoff_last == backoff(10_000, Moment(NOW, TIMING))


def test_chance_spreads_attempts_by_a_quarter() -> None:
    """Gateways that lost the same server do not come back in step."""
    assert backoff(1, Moment(NOW, TIMING, 0.0)) == 0.75
    assert backoff(1, Moment(NOW, TIMING, 0.999)) == pytest.approx(1.25, abs=0.001)


def test_attempts_are_counted_on_through_the_lock() -> None:
    """Rules that the kernel refuses again and again are not tried ever faster."""
    first = step(STATES["unbuilt"], Refused("no"), NOW)
    again = step(step(first, Begin((TUNNEL,)), NOW), Refused("no"), NOW)
    assert isinstance(again, Locked)
    assert again.attempt == 2


def test_a_busy_port_is_given_up_for_the_one_that_comes_with_the_failure() -> None:
    """The next attempt uses the port that the failure brought."""
    after = step(STATES["unbuilt"], Failed("taken", port=50000), NOW)
    assert isinstance(after, Connecting)
    assert after.tunnel.listen_port == 50000


def test_a_candidate_without_handshake_gives_way_to_the_next_at_once() -> None:
    """Within a round no server gets longer than the patience for one handshake."""
    built = step(Connecting(TWO, TUNNEL, Reason.STARTING, NOW, NOW), Built(), NOW)
    assert kind(step(built, Sampled(status()), NOW + TIMING.patience - 0.1)) == "built"
    after = step(built, Sampled(status()), NOW + TIMING.patience)
    assert isinstance(after, Connecting)
    assert (after.tunnel, after.retry_at, after.since) == (SECOND, NOW + TIMING.patience, NOW)


def test_the_last_candidate_of_a_round_keeps_trying_while_the_gateway_waits() -> None:
    """After a whole round the pause grows; WireGuard itself continues in it."""
    last = Connecting(TWO.next(), SECOND, Reason.NO_HANDSHAKE, NOW, NOW)
    built = step(last, Built(), NOW)
    assert isinstance(built, Connecting)
    assert built.give_up_at == NOW + TIMING.patience + 1.0
    again = step(built, Sampled(status()), built.give_up_at)
    assert isinstance(again, Connecting)
    assert (again.tunnel, again.turn.attempt) == (TUNNEL, 2)


def test_a_silent_server_is_left_for_the_next_without_waiting() -> None:
    """The dead one does not get another chance first."""
    state = Connected(TWO, TUNNEL, NOW, replace(ALIVE, unanswered_at=NOW))
    after = step(state, Sampled(status(5.0, 100, 500)), NOW + TIMING.silent_after)
    assert isinstance(after, Connecting)
    assert (after.tunnel, after.retry_at) == (SECOND, NOW + TIMING.silent_after)


def test_the_first_candidate_gets_another_chance_after_a_while() -> None:
    """A gateway does not stay for ever with the server that was meant as a spare."""
    spare = Connected(
        TWO.next(), SECOND, NOW, replace(ALIVE, handshake_at=NOW + TIMING.return_after)
    )
    seen = Sampled(status(5.0, 101, 100))
    assert kind(step(spare, seen, NOW + TIMING.return_after - 1)) == "connected"
    after = step(spare, seen, NOW + TIMING.return_after)
    assert isinstance(after, Connecting)
    assert (after.tunnel, after.reason) == (TUNNEL, Reason.RETURNING)
    first = Connected(TWO, TUNNEL, NOW, replace(ALIVE, handshake_at=NOW + TIMING.return_after))
    assert kind(step(first, seen, NOW + TIMING.return_after)) == "connected"


def test_the_addresses_of_a_name_take_turns() -> None:
    """A name is looked up again for each attempt, and its next address is tried."""
    state: State = STATES["resolving"]
    tried = []
    for _ in range(3):
        connecting = step(state, Resolved((TUNNEL, SECOND)), NOW)
        assert isinstance(connecting, Connecting)
        tried.append(connecting.tunnel)
        built = step(connecting, Built(), NOW)
        assert isinstance(built, Connecting)
        state = step(built, Sampled(status()), built.give_up_at)
        assert isinstance(state, Resolving)
    assert tried == [TUNNEL, SECOND, TUNNEL]


def test_a_resolver_that_stays_silent_is_reported_and_the_tunnel_stays_open() -> None:
    """One lost probe is nothing; five in a row mean that names do not resolve."""
    assert RESOLVER_FAILURES == 5
    state: State = STATES["connected"]
    for second in range(RESOLVER_FAILURES):
        assert is_healthy(state)
        state = step(state, Sampled(status(5.0, 200 + second, 100)), NOW + 2 * second)
        state = step(state, Probed(answered=False), NOW + 2 * second + 1)
    assert isinstance(state, Connected)
    assert not is_healthy(state)
    assert is_healthy(step(state, Probed(answered=True), NOW))


def test_of_a_resolver_behind_a_silent_server_nothing_is_said() -> None:
    """Probes that fail while nothing else is heard either may as well mean the server."""
    state: State = STATES["connected"]
    for second in range(RESOLVER_FAILURES + 1):
        state = step(state, Probed(answered=False), NOW + second)
    assert is_healthy(state)
    heard = step(state, Sampled(status(5.0, 132, 100)), NOW + 10)
    assert not is_healthy(heard)


def test_a_suspended_machine_does_not_trust_its_tunnel_when_it_wakes() -> None:
    """The clock has gone on, and the handshake is from before."""
    after = step(STATES["connected"], Sampled(status(5.0, 100, 100)), NOW + 8 * 3600)
    assert isinstance(after, Connecting)
    assert after.reason is Reason.SILENT


def test_each_candidate_with_a_name_gets_all_its_addresses_in_turn() -> None:
    """Two names with two addresses each: all four are tried in two rounds."""
    state: State = Resolving(Turn((NAMED, NAMED)), Reason.STARTING, since=NOW, retry_at=NOW)
    tried = []
    for _ in range(4):
        assert isinstance(state, Resolving)
        connecting = step(state, Resolved((TUNNEL, SECOND)), NOW)
        assert isinstance(connecting, Connecting)
        tried.append((connecting.turn.position, connecting.tunnel))
        state = step(connecting, Failed("no"), NOW)
    assert tried == [(0, TUNNEL), (1, TUNNEL), (0, SECOND), (1, SECOND)]


@pytest.mark.parametrize("event", [Lost("gone"), Moved("by eth1")], ids=["lost", "moved"])
def test_an_interface_is_built_at_most_once_a_second(event: Event) -> None:
    """A program that deletes it or flaps a link in a loop does not cause a flood of handshakes."""
    state, built_at = STATES["unbuilt"], []
    for now in (NOW + number / 20 for number in range(100)):
        state = step(state, event, now)
        assert isinstance(state, Connecting)
        if not state.built and now >= state.retry_at:
            state = step(state, Built(), now)
            built_at.append(now)
        if now == NOW + 3:
            state = step(state, EVENTS["handshake"], now)
    assert len(built_at) == 5
    assert all(after - before >= TIMING.rebuild_pause for before, after in pairwise(built_at))


@pytest.mark.promise("P17")
@pytest.mark.parametrize("state", ["built", "connected"])
@pytest.mark.parametrize(
    "change",
    [{"listen_port": 1}, {"fwmark": 0}, {"peers": ()}],
    ids=["listen port", "mark", "peers"],
)
def test_a_tunnel_that_another_program_has_changed_is_built_again(
    state: str, change: dict[str, Any]
) -> None:
    """WireGuard's own settings count as the interface does, and the mark is not shown."""
    reported = replace(status(handshake=9.0, received=92, sent=148), **change)
    after = step(STATES[state], Sampled(reported), NOW + 5)
    assert isinstance(after, Connecting)
    assert (after.built, after.reason) == (False, Reason.INTERFACE_LOST)
    assert after.detail.startswith("another program changed")
    assert "0x" not in after.detail


def test_a_name_is_looked_up_at_most_once_a_second() -> None:
    """However often the way to the resolver changes."""
    state, asked = STATES["resolving"], 0
    for now in (NOW + number / 20 for number in range(100)):
        state = step(state, Moved(""), now)
        assert isinstance(state, Resolving)
        if now >= state.retry_at:
            state = step(state, Failed("no"), now)
            asked += 1
    assert asked == 5


THREE = tuple(
    replace(TUNNEL, peers=(replace(PEER, endpoint=Endpoint(ip_address(f"198.51.100.{n}"), 1)),))
    for n in (1, 2, 3)
)


def test_the_first_address_of_a_name_comes_first() -> None:
    """Then the second and the third, however many there are."""
    state: State = STATES["resolving"]
    tried = []
    for _ in range(4):
        connecting = step(state, Resolved(THREE), NOW)
        assert isinstance(connecting, Connecting)
        tried.append(connecting.tunnel)
        state = step(connecting, Failed("no"), NOW)
    assert tried == [*THREE, THREE[0]]


@pytest.mark.parametrize("reason", Reason)
def test_a_new_interface_waits_for_a_handshake(reason: Reason) -> None:
    """Why the last tunnel was lost stays known until an attempt has failed; what failed is over."""
    unbuilt = Connecting(ONE, TUNNEL, reason, since=NOW - 9, retry_at=NOW, detail="before")
    built = step(unbuilt, Built(), NOW)
    assert isinstance(built, Connecting)
    lost = {
        *(Reason.STARTING, Reason.SILENT, Reason.ONE_WAY, Reason.INTERFACE_LOST, Reason.MOVED),
        *(Reason.RETURNING, Reason.RECONFIGURED, Reason.REQUESTED),
    }
    expected = reason if reason in lost else Reason.NO_HANDSHAKE
    assert (built.reason, built.detail, built.since) == (expected, "", NOW - 9)
    assert built.turn.tried_at == NOW


def test_nothing_that_the_former_interface_saw_counts_for_a_new_one() -> None:
    """Its counters start from zero."""
    seen = replace(STATES["unbuilt"], pulse=replace(ALIVE, unanswered_at=NOW - 99))
    built = step(seen, Built(), NOW)
    assert isinstance(built, Connecting)
    assert built.pulse == Pulse()


@pytest.mark.parametrize(
    ("state", "attempt"),
    [
        (Locked(attempt=4), 5),
        (Resolving(Turn((NAMED,), attempt=2), Reason.STARTING, NOW, NOW), 3),
        (Connecting(Turn((TUNNEL,), attempt=2), TUNNEL, Reason.STARTING, NOW, NOW), 3),
        (Connected(Turn((TUNNEL,), attempt=2), TUNNEL, NOW, ALIVE), 3),
    ],
    ids=lambda it: type(it).__name__,
)
def test_rules_that_are_refused_lock_and_are_tried_again_later(state: State, attempt: int) -> None:
    """With what the kernel said, and one more attempt, whose number says how long it takes."""
    moment = Moment(NOW, TIMING)
    expected = Locked(Reason.FIREWALL, NOW, NOW + backoff(attempt, moment), attempt, "no rules")
    assert move(state, Refused("no rules"), moment) == expected


def test_a_connection_begins_with_the_first_candidate_and_the_attempts_so_far() -> None:
    """At once, with the reason for which the gateway was locked."""
    locked = Locked(Reason.FIREWALL, NOW - 60, NOW, attempt=3, detail="no rules")
    begun = step(locked, Begin((SECOND, TUNNEL)), NOW)
    turn = Turn((SECOND, TUNNEL), attempt=3)
    assert begun == Connecting(turn, SECOND, Reason.FIREWALL, since=NOW, retry_at=NOW)
    named = step(locked, Begin((NAMED,)), NOW)
    assert named == Resolving(Turn((NAMED,), attempt=3), Reason.FIREWALL, NOW, NOW)


def test_a_name_that_was_found_is_connected_to_at_once() -> None:
    """The reason and the time of the trouble stay."""
    waiting = Resolving(Turn((NAMED,)), Reason.SILENT, NOW - 9, NOW - 5, "before", QUERY)
    after = step(waiting, Resolved((TUNNEL,)), NOW)
    assert after == Connecting(Turn((NAMED,)), TUNNEL, Reason.SILENT, NOW - 9, NOW)


@pytest.mark.parametrize(
    ("state", "reason"),
    [("resolving", Reason.NOT_RESOLVED), ("unbuilt", Reason.NOT_BUILT)],
)
def test_a_failure_is_the_reason_until_something_else_happens(state: str, reason: Reason) -> None:
    """The detail names the failure, and the time at which the connection was lost stays."""
    before = replace(STATES[state], since=NOW - 60)
    after = step(before, Failed("what"), NOW)
    assert isinstance(after, Resolving | Connecting)
    assert (after.reason, after.detail, after.since) == (reason, "what", NOW - 60)
    assert (after.turn.attempt, after.turn.tried_at) == (1, NOW)


def test_within_a_round_a_failure_costs_no_time() -> None:
    """Only after the last candidate the gateway waits."""
    first = Connecting(TWO, TUNNEL, Reason.STARTING, NOW, NOW)
    second = step(first, Failed("no"), NOW)
    assert isinstance(second, Connecting)
    assert (second.tunnel, second.retry_at) == (SECOND, NOW)
    third = step(second, Failed("no"), NOW)
    assert isinstance(third, Connecting)
    assert (third.tunnel, third.retry_at) == (TUNNEL, NOW + TIMING.backoff_first)


def test_a_busy_port_is_given_up_for_every_candidate() -> None:
    """And kept where the failure brings none."""
    first = Connecting(TWO, TUNNEL, Reason.STARTING, NOW, NOW)
    after = step(first, Failed("taken", port=50000), NOW)
    assert isinstance(after, Connecting)
    assert [it.listen_port for it in after.turn.candidates] == [50000, 50000]
    kept = step(after, Failed("no"), NOW)
    assert isinstance(kept, Connecting)
    assert kept.tunnel.listen_port == 50000


def test_a_way_that_changes_shortens_a_wait_and_never_lengthens_it() -> None:
    """A pause after the last attempt is kept; a question under way is not disturbed."""
    turn = Turn((NAMED,), tried_at=NOW - 0.5)
    waiting = Resolving(turn, Reason.NOT_RESOLVED, NOW - 9, NOW + 60)
    after = step(waiting, Moved(""), NOW)
    assert after == replace(waiting, retry_at=NOW + 0.5)
    soon = replace(waiting, retry_at=NOW + 0.1)
    assert step(soon, Moved(""), NOW) == soon
    asking = replace(waiting, query=QUERY)
    assert step(asking, Moved(""), NOW) == asking


def test_a_moved_way_builds_again_after_the_pause_and_says_where_it_leads() -> None:
    """While nothing is built yet, the attempt may come sooner and not later."""
    turn = Turn((TUNNEL,), tried_at=NOW - 0.5)
    built = Connecting(turn, TUNNEL, Reason.NO_HANDSHAKE, NOW - 9, NOW - 3, built=True)
    after = step(built, Moved("by eth1"), NOW)
    assert after == replace(built, built=False, retry_at=NOW + 0.5, detail="by eth1")
    waiting = replace(built, built=False, retry_at=NOW + 60)
    assert step(waiting, Moved("by eth1"), NOW) == replace(
        waiting, retry_at=NOW + 0.5, detail="by eth1"
    )
    soon = replace(waiting, retry_at=NOW + 0.1)
    assert step(soon, Moved("by eth1"), NOW) == replace(soon, detail="by eth1")
    connected = Connected(turn, TUNNEL, NOW - 60, ALIVE)
    assert step(connected, Moved("by eth1"), NOW) == Connecting(
        turn, TUNNEL, Reason.MOVED, NOW, NOW + 0.5, detail="by eth1"
    )


def test_a_lost_interface_is_built_again_for_the_same_tunnel() -> None:
    """The trouble begins with the loss, or has begun before it."""
    turn = Turn((TUNNEL,), attempt=2, tried_at=NOW - 0.25)
    connected = Connected(turn, TUNNEL, NOW - 60, ALIVE)
    lost = Connecting(turn, TUNNEL, Reason.INTERFACE_LOST, NOW, NOW + 0.75, detail="gone")
    assert step(connected, Lost("gone"), NOW) == lost
    built = Connecting(turn, TUNNEL, Reason.SILENT, NOW - 9, NOW - 9, built=True, give_up_at=NOW)
    assert step(built, Lost("gone"), NOW) == replace(lost, since=NOW - 9)


def test_a_handshake_connects_from_now_on_and_owes_no_answer() -> None:
    """What was sent before it may have been lost."""
    state = replace(STATES["built"], pulse=Pulse(unanswered_at=NOW - 5, sampled_at=NOW - 5))
    after = step(state, Sampled(status(9.0, 92, 1000)), NOW + 3)
    assert isinstance(after, Connected)
    assert (after.since, after.turn, after.tunnel) == (NOW + 3, ONE, TUNNEL)
    assert after.pulse.unanswered_at is None
    assert (after.pulse.handshake_at, after.pulse.received, after.pulse.sent) == (NOW + 3, 92, 1000)


def test_what_is_seen_without_a_handshake_is_kept() -> None:
    """The next reading is compared with it."""
    after = step(STATES["built"], Sampled(status(None, 0, 148)), NOW + 1)
    assert isinstance(after, Connecting)
    assert (after.pulse.sent, after.pulse.sampled_at) == (148, NOW + 1)


def test_failures_are_forgotten_when_a_connection_has_lasted() -> None:
    """Ten seconds, and not a moment before."""
    turn = Turn((TUNNEL, SECOND), attempt=4)
    state = Connected(turn, TUNNEL, NOW, ALIVE)
    early = step(state, Sampled(status(5.0, 200, 100)), NOW + TIMING.stable_after - 0.1)
    late = step(state, Sampled(status(5.0, 200, 100)), NOW + TIMING.stable_after)
    assert isinstance(early, Connected)
    assert isinstance(late, Connected)
    assert (early.turn, late.turn) == (turn, replace(turn, attempt=0))


def test_a_server_that_is_left_costs_one_attempt() -> None:
    """Silence counts as a failed attempt, the return to the first candidate does not."""
    silent = replace(ALIVE, unanswered_at=NOW, handshake_at=NOW)
    gone = Connected(replace(TWO, attempt=4), TUNNEL, NOW, silent)
    after = step(gone, Sampled(status(5.0, 100, 500)), NOW + TIMING.silent_after)
    assert isinstance(after, Connecting)
    assert (after.turn.attempt, after.turn.position) == (1, 1)
    assert after.since == NOW + TIMING.silent_after
    spare = Connected(
        TWO.next(), SECOND, NOW, replace(ALIVE, handshake_at=NOW + TIMING.return_after)
    )
    back = step(spare, Sampled(status(5.0, 101, 100)), NOW + TIMING.return_after)
    assert isinstance(back, Connecting)
    assert (back.turn.position, back.turn.attempt) == (0, 0)
    assert (back.since, back.retry_at) == (NOW + TIMING.return_after, NOW + TIMING.return_after)


def test_the_shortest_keepalive_of_the_peers_counts() -> None:
    """One peer with a keepalive keeps the handshake fresh; one without says nothing."""
    peers = tuple(replace(PEER, public_key=f"{n}", persistent_keepalive=n) for n in (0, 1, 25))
    tunnel = replace(TUNNEL, peers=peers)

    def reading(sent: int) -> Sampled:
        counted = [PeerStatus(peer.public_key, None, 5.0, 0, 0) for peer in peers]
        counted[1] = replace(counted[1], sent=sent)
        return Sampled(TunnelStatus(51820, 0xCA6C, tuple(counted)))

    pulse = Pulse(handshake=5.0, handshake_at=NOW, sampled_at=NOW)
    state = Connected(Turn((tunnel,)), tunnel, NOW, pulse)
    after = step(state, reading(30 * KEEPALIVE_SIZE), NOW + 10)
    assert isinstance(after, Connected)
    assert after.pulse.unanswered_at is None, "eleven for each of three peers may be keepalives"
    expired = step(state, reading(0), NOW + TIMING.handshake_expires)
    assert kind(expired) == "unbuilt"


def test_failing_questions_are_counted_from_the_first_of_them() -> None:
    """A probe that says nothing about the resolver changes nothing."""
    state = STATES["connected"]
    assert step(state, Probed(answered=None), NOW + 1) == state
    first = step(state, Probed(answered=False), NOW + 1)
    second = step(first, Probed(answered=False), NOW + 2)
    again = step(second, Probed(answered=True), NOW + 3)
    third = step(again, Probed(answered=False), NOW + 4)
    seen = [
        (it.resolver_failures, it.resolver_failing_at)
        for it in (first, second, again, third)
        if isinstance(it, Connected)
    ]
    assert [number for number, _ in seen] == [1, 2, 0, 1]
    assert [at for number, at in seen if number] == [NOW + 1, NOW + 1, NOW + 4]


def test_a_stop_begins_when_it_is_asked_for_and_nothing_follows_it() -> None:
    """A second one does not begin it again."""
    stopping = step(STATES["connected"], Stop(), NOW)
    assert stopping == Stopping(since=NOW)
    assert step(stopping, Stop(), NOW + 1) == stopping
    assert step(stopping, Refused("no"), NOW + 1) == stopping


def test_a_whole_round_of_candidates_counts_once_for_the_wait() -> None:
    """The turn after the last candidate is the first one's, with one more attempt."""
    turn = Turn((TUNNEL, SECOND))
    seen = []
    for _ in range(4):
        seen.append((turn.candidate, turn.is_last, turn.rounds, turn.attempt))
        turn = turn.next()
    assert seen == [
        (TUNNEL, False, 1, 0),
        (SECOND, True, 1, 1),
        (TUNNEL, False, 2, 2),
        (SECOND, True, 2, 3),
    ]
