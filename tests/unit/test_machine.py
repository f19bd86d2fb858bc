"""The state machine: every state meets every event, and evidence is judged by the clock given."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from gateway.model import EVERYTHING, Endpoint, Peer, PeerStatus, Secret, Tunnel, TunnelStatus
from gateway.policy.machine import (
    BACKOFF_LAST,
    HANDSHAKE_EXPIRES,
    KEEPALIVE_SIZE,
    SILENT_AFTER,
    Begin,
    Built,
    Connected,
    Connecting,
    Event,
    Failed,
    Locked,
    Lost,
    Pulse,
    Reason,
    Refused,
    Sampled,
    State,
    Stop,
    Stopping,
    backoff,
    step,
)

NOW = 1000.0
PEER = Peer("public", Endpoint(ip_address("198.51.100.1"), 51820), EVERYTHING)
TUNNEL = Tunnel(Secret("private"), (ip_interface("10.0.0.2/32"),), (PEER,))
OTHER_PORT = replace(TUNNEL, listen_port=50000)


def status(handshake: float | None = None, received: int = 0, sent: int = 0) -> TunnelStatus:
    """Return what WireGuard would tell of the one peer."""
    peer = PeerStatus("public", PEER.endpoint, handshake, received, sent)
    return TunnelStatus(51820, 0xCA6C, (peer,))


ALIVE = Pulse(handshake=5.0, handshake_at=NOW - 10, received=100, sent=100)
STATES: dict[str, State] = {
    "locked": Locked(since=1.0),
    "unbuilt": Connecting(TUNNEL, Reason.STARTING, since=NOW, retry_at=NOW),
    "built": Connecting(TUNNEL, Reason.NO_HANDSHAKE, since=NOW, retry_at=NOW, built=True),
    "connected": Connected(TUNNEL, since=NOW, pulse=ALIVE),
    "stopping": Stopping(since=1.0),
}
EVENTS: dict[str, Event] = {
    "begin": Begin(TUNNEL),
    "built": Built(),
    "failed": Failed("no", OTHER_PORT),
    "lost": Lost("gone"),
    "refused": Refused("no rules"),
    "handshake": Sampled(status(handshake=9.0, received=92, sent=148)),
    "stop": Stop(),
}
SAME = "same"
TABLE = {
    ("locked", "begin"): "unbuilt",
    ("locked", "built"): SAME,
    ("locked", "failed"): SAME,
    ("locked", "lost"): SAME,
    ("locked", "refused"): "locked",
    ("locked", "handshake"): SAME,
    ("unbuilt", "begin"): SAME,
    ("unbuilt", "built"): "built",
    ("unbuilt", "failed"): "unbuilt",
    ("unbuilt", "lost"): "unbuilt",
    ("unbuilt", "refused"): "locked",
    ("unbuilt", "handshake"): SAME,
    ("built", "begin"): SAME,
    ("built", "built"): SAME,
    ("built", "failed"): "unbuilt",
    ("built", "lost"): "unbuilt",
    ("built", "refused"): "locked",
    ("built", "handshake"): "connected",
    ("connected", "begin"): SAME,
    ("connected", "built"): SAME,
    ("connected", "failed"): SAME,
    ("connected", "lost"): "unbuilt",
    ("connected", "refused"): "locked",
    ("connected", "handshake"): "connected",
    **{("stopping", event): SAME for event in EVENTS if event != "stop"},
    **{(state, "stop"): "stopping" for state in STATES},
}


def kind(state: State) -> str:
    """Return the name under which STATES has a state like `state`."""
    if isinstance(state, Connecting):
        return "built" if state.built else "unbuilt"
    return type(state).__name__.lower()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state_leads_where_the_table_says(state: str, event: str) -> None:
    """The table has a row for each pair, so a new state or event needs its rows."""
    after = step(STATES[state], EVENTS[event], NOW)
    if TABLE[state, event] == SAME:
        assert after == STATES[state]
    else:
        assert kind(after) == TABLE[state, event]


def test_only_a_new_handshake_connects() -> None:
    """Bytes and an old handshake do not open the tunnel."""
    old = replace(STATES["built"], pulse=Pulse(handshake=9.0, handshake_at=1.0))
    after = step(old, Sampled(status(handshake=9.0, received=500, sent=500)), NOW)
    assert kind(after) == "built"
    assert kind(step(after, Sampled(status(handshake=10.0)), NOW)) == "connected"


def test_unanswered_data_means_silence_after_its_time() -> None:
    """Data sent without anything received goes back to connecting, not a moment early."""
    sent = step(STATES["connected"], Sampled(status(5.0, received=100, sent=1000)), NOW)
    early = step(sent, Sampled(status(5.0, 100, 2000)), NOW + SILENT_AFTER - 0.1)
    late = step(early, Sampled(status(5.0, 100, 3000)), NOW + SILENT_AFTER)
    assert kind(early) == "connected"
    assert isinstance(late, Connecting)
    assert (late.built, late.reason) == (True, Reason.SILENT)


def test_an_answer_in_time_starts_the_count_again() -> None:
    """A byte received after the data proves that the server lives."""
    sent = step(STATES["connected"], Sampled(status(5.0, 100, 1000)), NOW)
    answered = step(sent, Sampled(status(5.0, 132, 1000)), NOW + SILENT_AFTER - 1)
    later = step(answered, Sampled(status(5.0, 132, 1032)), NOW + SILENT_AFTER + 20)
    assert kind(later) == "connected"


def test_keepalives_alone_prove_nothing() -> None:
    """A keepalive every 25 s that nobody answers is how an idle tunnel looks."""
    state, sent = STATES["connected"], 100
    for seconds in range(0, int(HANDSHAKE_EXPIRES) - 15, 25):
        sent += KEEPALIVE_SIZE
        state = step(state, Sampled(status(5.0, 100, sent)), NOW + seconds)
        assert kind(state) == "connected"


def test_an_expired_handshake_means_silence_only_with_keepalive() -> None:
    """Without keepalive an idle tunnel has no handshakes, and nothing is wrong with it."""
    quiet_peer = replace(PEER, persistent_keepalive=0)
    quiet = Connected(replace(TUNNEL, peers=(quiet_peer,)), since=NOW, pulse=ALIVE)
    later = NOW + HANDSHAKE_EXPIRES
    assert kind(step(STATES["connected"], Sampled(status(5.0, 100, 100)), later)) == "built"
    assert kind(step(quiet, Sampled(status(5.0, 100, 100)), later)) == "connected"


def test_a_wall_clock_that_jumps_changes_nothing() -> None:
    """A handshake told with an earlier wall clock is still a new one, with its age from now."""
    after = step(STATES["connected"], Sampled(status(-7000.0, 300, 300)), NOW)
    assert isinstance(after, Connected)
    assert after.pulse.handshake_at == NOW


def test_failures_wait_longer_each_time_up_to_a_limit() -> None:
    """Attempts are spaced from one second, doubling, to a minute."""
    state: State = STATES["unbuilt"]
    waits = []
    for _ in range(9):
        state = step(state, Failed("no", TUNNEL), NOW)
        assert isinstance(state, Connecting)
        waits.append(state.retry_at - NOW)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == BACKOFF_LAST == backoff(10_000)


def test_attempts_are_counted_on_through_the_lock() -> None:
    """Rules that the kernel refuses again and again are not tried ever faster."""
    first = step(STATES["unbuilt"], Refused("no"), NOW)
    again = step(step(first, Begin(TUNNEL), NOW), Refused("no"), NOW)
    assert isinstance(again, Locked)
    assert again.attempt == 2


def test_a_busy_port_is_given_up_for_the_one_that_comes_with_the_failure() -> None:
    """The next attempt uses the tunnel that the failure brought."""
    after = step(STATES["unbuilt"], EVENTS["failed"], NOW)
    assert isinstance(after, Connecting)
    assert after.tunnel.listen_port == OTHER_PORT.listen_port
