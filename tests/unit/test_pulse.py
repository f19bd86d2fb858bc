"""What proves that the server is there, and what only looks like it."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.policy.evidence import (
    INITIATION_SIZE,
    KEEPALIVE_SIZE,
    KEYS_EXPIRE,
    RESPONSE_SIZE,
    Pulse,
    foreign_change,
)
from gateway.policy.facts import PeerStatus, TunnelStatus
from gateway.policy.timing import Moment, Timing
from tests.scenarios import IPV4_ONLY, PEER

TIMING = Timing()
HANDSHAKE = 1.7e9
DATA = 128  # bytes of a data message, as of all of them a multiple of 16


def status(sent: int, received: int, *, peers: int = 1) -> TunnelStatus:
    """Return WireGuard's status with these totals, all on the first of its peers."""
    first = PeerStatus("key", None, HANDSHAKE, received, sent)
    others = (PeerStatus("other", None, None, 0, 0),) * (peers - 1)
    return TunnelStatus(51820, 0xCA6C, (first, *others))


def silent_at(
    *readings: tuple[int, int], peers: int = 1, every: float = 1.0, keepalive: int = 25
) -> float | None:
    """Return when the server counts as gone, with a reading (sent, received) `every` so often."""
    pulse = Pulse().after(status(0, 0, peers=peers), 1000, keepalive)
    for number, (sent, received) in enumerate(readings, 1):
        now = 1000 + number * every
        pulse = pulse.after(status(sent, received, peers=peers), now, keepalive)
        if pulse.is_silent(Moment(now, TIMING), keepalive=False):
            return now - 1000
    return None


def silent(*readings: tuple[int, int], peers: int = 1) -> bool:
    """Return whether the server counts as gone after one reading (sent, received) a second."""
    return silent_at(*readings, peers=peers) is not None


SECONDS = range(1, int(TIMING.silent_after) + 3)


def test_data_without_an_answer_is_silence() -> None:
    """Fifteen seconds of sending without a byte back mean that the server is gone."""
    assert silent(*((second * DATA, 0) for second in SECONDS))


def test_data_with_answers_is_a_live_server() -> None:
    """Any data back, if only a keepalive, proves that the server heard us."""
    assert not silent(*((second * DATA, second * KEEPALIVE_SIZE) for second in SECONDS))


def test_keepalives_of_our_own_ask_for_no_answer() -> None:
    """An idle tunnel sends keepalives that get no answer, and stays up."""
    assert not silent(*((second * KEEPALIVE_SIZE, 0) for second in SECONDS))


@pytest.mark.parametrize("peers", [1, 2])
def test_handshakes_that_the_server_begins_do_not_count_as_answers(peers: int) -> None:
    """A server that hears nothing from us keeps beginning handshakes, every five seconds."""
    readings = ((second * DATA, second // 5 * INITIATION_SIZE) for second in SECONDS)
    assert silent(*readings, peers=peers)


def test_a_handshake_with_data_behind_it_is_an_answer() -> None:
    """A server that begins a new handshake in the middle of traffic is alive."""
    readings = (
        (second * DATA, second // 5 * INITIATION_SIZE + second * DATA) for second in SECONDS
    )
    assert not silent(*readings)


def test_handshakes_that_pass_where_data_does_not_are_silence_after_the_second_one() -> None:
    """One begins every fifteen seconds, and the server responds: it may have forgotten us.

    So the first response gives it time to answer data, and the second does not.
    """
    hour = range(1, 3600)
    readings = ((second * DATA, second // 15 * RESPONSE_SIZE) for second in hour)
    assert silent_at(*readings) == 15 + TIMING.silent_after


def test_a_server_that_was_started_again_is_alive() -> None:
    """It responds to the handshake that our unanswered data led to, and then to data."""
    readings = (
        (second * DATA, RESPONSE_SIZE * (second >= 15) + DATA * max(0, second - 24))
        for second in range(1, 300)
    )
    assert not silent(*readings)


@pytest.mark.parametrize("peers", [1, 2])
def test_an_idle_tunnel_that_renews_its_keys_is_not_silent(peers: int) -> None:
    """Every two minutes a handshake and its confirmation go out, and a response comes back."""
    readings = (
        (
            second // 25 * KEEPALIVE_SIZE + second // 120 * (INITIATION_SIZE + KEEPALIVE_SIZE),
            second // 120 * RESPONSE_SIZE,
        )
        for second in range(1, 3600)
    )
    assert not silent(*readings, peers=peers)


def test_two_keepalives_between_two_readings_do_not_count_as_data() -> None:
    """With a keepalive of one second some readings are more than one keepalive apart."""
    readings = ((int(number * 1.05) * KEEPALIVE_SIZE, 0) for number in range(1, 600))
    assert silent_at(*readings, every=1.05, keepalive=1) is None


@pytest.mark.parametrize("size", [64, 80, 96, 240, 1312, 1452])
def test_answers_of_any_size_are_answers(size: int) -> None:
    """Small ones, such as look like two messages of a handshake, and those as large as the MTU."""
    assert not silent(*((second * DATA, second * size) for second in range(1, 120)))


@pytest.mark.parametrize("size", [64, 80, 96, 240, 1312, 1452])
def test_data_of_any_size_asks_for_an_answer(size: int) -> None:
    """What is sent once a second, in packets that may be as large as the MTU."""
    assert silent(*((second * size, 0) for second in SECONDS))


def test_the_first_reading_has_room_for_one_keepalive() -> None:
    """How long the interface has been up is not known then."""
    first = Pulse().after(status(2 * KEEPALIVE_SIZE, 0), 1000, 1)
    assert first.unanswered_at == 1000
    assert Pulse().after(status(KEEPALIVE_SIZE, 0), 1000, 1).unanswered_at is None


def test_without_a_persistent_keepalive_two_at_once_are_data() -> None:
    """Only one passive keepalive can follow what was received."""
    assert silent_at(*((second * 64, 0) for second in SECONDS), keepalive=0) is not None
    assert silent_at(*((second * 32, 0) for second in SECONDS), keepalive=0) is None


def test_handshakes_that_the_server_begins_and_confirms_do_not_answer() -> None:
    """Its keepalive comes with each; the first one might be from a server that has forgotten us."""
    confirmed = INITIATION_SIZE + KEEPALIVE_SIZE
    readings = ((second * DATA, second // 5 * confirmed) for second in range(1, 60))
    assert silent_at(*readings) == 5 + TIMING.silent_after


def test_a_handshake_ages_from_the_moment_it_was_first_seen() -> None:
    """However often it is seen again, and whatever is received meanwhile."""
    pulse = Pulse()
    for second in range(int(TIMING.handshake_expires) + 1):
        pulse = pulse.after(status(0, second * DATA), 1000 + second, 25)
        now = Moment(1000 + second, TIMING)
        assert pulse.is_silent(now, keepalive=True) == (second == TIMING.handshake_expires)
        assert not pulse.is_silent(now, keepalive=False)


def test_a_tunnel_that_never_had_a_handshake_counts_as_gone_with_a_keepalive() -> None:
    """There is nothing that could have answered."""
    assert Pulse().is_silent(Moment(1000, TIMING), keepalive=True)
    assert not Pulse().is_silent(Moment(1000, TIMING), keepalive=False)


def test_the_latest_handshake_of_all_peers_counts() -> None:
    """Peers without one have no time to compare."""
    peers = (
        PeerStatus("one", None, 5.0, 0, 0),
        PeerStatus("two", None, None, 0, 0),
        PeerStatus("three", None, 9.0, 0, 0),
    )
    pulse = Pulse().after(TunnelStatus(51820, 0xCA6C, peers), 1000)
    assert (pulse.handshake, pulse.handshake_at) == (9.0, 1000)


def test_data_is_in_doubt_after_three_seconds_and_gone_after_sixteen() -> None:
    """Counted from the first byte that was not answered; each at its second."""
    pulse = Pulse().after(status(0, 0), 1000).after(status(DATA, 0), 1001)
    pulse = pulse.after(status(2 * DATA, 0), 1002)
    assert not pulse.is_in_doubt(Moment(1003.9, TIMING))
    assert pulse.is_in_doubt(Moment(1004, TIMING))
    assert not pulse.is_silent(Moment(1016.9, TIMING), keepalive=False)
    assert pulse.is_silent(Moment(1017, TIMING), keepalive=False)


def test_a_response_excuses_a_silent_server_once() -> None:
    """Data that it answers afterwards restores its credit."""
    pulse = Pulse().after(status(0, 0), 1000).after(status(DATA, 0), 1001)
    assert not pulse.excused
    excused = pulse.after(status(2 * DATA, RESPONSE_SIZE), 1010)
    assert (excused.unanswered_at, excused.excused) == (1010, True)
    again = excused.after(status(3 * DATA, 2 * RESPONSE_SIZE), 1015)
    assert (again.unanswered_at, again.excused) == (1010, True)
    answered = again.after(status(3 * DATA, 2 * RESPONSE_SIZE + DATA), 1016)
    assert (answered.unanswered_at, answered.excused, answered.heard_at) == (None, False, 1016)
    idle = Pulse().after(status(0, RESPONSE_SIZE), 1000)
    assert not idle.excused, "nothing waits for an answer"
    begun = pulse.after(status(DATA, INITIATION_SIZE), 1002)
    assert (begun.unanswered_at, begun.excused) == (1001, False), "the server began it"


@pytest.mark.parametrize(
    ("sent", "peers", "asks"),
    [
        (INITIATION_SIZE, 1, False),
        (RESPONSE_SIZE, 1, False),
        (INITIATION_SIZE + KEEPALIVE_SIZE, 1, False),
        (INITIATION_SIZE + 2 * KEEPALIVE_SIZE, 1, False),
        (INITIATION_SIZE + 3 * KEEPALIVE_SIZE, 1, True),
        (2 * INITIATION_SIZE, 1, True),
        (2 * INITIATION_SIZE, 2, False),
        (INITIATION_SIZE + RESPONSE_SIZE + 4 * KEEPALIVE_SIZE, 2, False),
        (INITIATION_SIZE + RESPONSE_SIZE + 5 * KEEPALIVE_SIZE, 2, True),
        (3 * INITIATION_SIZE, 2, True),
        (2 * KEEPALIVE_SIZE, 2, False),
        (3 * KEEPALIVE_SIZE, 2, True),
        (KEEPALIVE_SIZE + 1, 1, True),
    ],
)
def test_what_wireguard_sends_by_itself_asks_for_nothing(
    sent: int, peers: int, *, asks: bool
) -> None:
    """For each peer a handshake with a keepalive, and the keepalive that was due."""
    pulse = Pulse().after(status(0, 0, peers=peers), 1000, 25)
    after = pulse.after(status(sent, 0, peers=peers), 1001, 25)
    assert (after.unanswered_at is not None) == asks


@pytest.mark.parametrize(
    ("received", "peers", "answers"),
    [
        (2 * INITIATION_SIZE, 1, False),
        (INITIATION_SIZE + RESPONSE_SIZE + 4, 1, True),
        (3 * RESPONSE_SIZE, 1, True),
        (3 * RESPONSE_SIZE, 2, False),
        (INITIATION_SIZE + KEEPALIVE_SIZE + RESPONSE_SIZE, 1, True),
        (2 * INITIATION_SIZE + KEEPALIVE_SIZE, 1, False),
        (KEEPALIVE_SIZE, 1, True),
    ],
)
def test_what_can_consist_of_handshakes_alone_does_not_answer(
    received: int, peers: int, *, answers: bool
) -> None:
    """Up to two messages for each peer; data has a size that 16 divides."""
    pulse = Pulse().after(status(0, 0, peers=peers), 1000)
    after = pulse.after(status(0, received, peers=peers), 1001)
    assert (after.heard_at == 1001) == answers


TUNNEL = replace(IPV4_ONLY, peers=(PEER, replace(PEER, public_key="other")))


def reported(**change: Any) -> TunnelStatus:
    """Return what WireGuard reports of TUNNEL, with `change`."""
    peers = tuple(PeerStatus(peer.public_key, None, None, 0, 0) for peer in TUNNEL.peers)
    return replace(TunnelStatus(TUNNEL.listen_port, TUNNEL.fwmark, peers), **change)


def test_what_another_program_has_changed_is_named_and_the_mark_is_not() -> None:
    """Where nothing is changed the text is empty; peers may be listed in any order."""
    assert foreign_change(TUNNEL, reported()) == ""
    assert foreign_change(TUNNEL, reported(peers=reported().peers[::-1])) == ""
    port = foreign_change(TUNNEL, reported(listen_port=7))
    assert port == "another program changed the listen port to 7"
    mark = foreign_change(TUNNEL, reported(fwmark=7))
    assert mark == "another program changed the mark"
    peers = foreign_change(TUNNEL, reported(peers=reported().peers[:1]))
    assert peers == "another program changed the peers"


@pytest.mark.parametrize("keepalive", [0, 25])
def test_without_keys_a_handshake_asks_for_an_answer(keepalive: int) -> None:
    """All data waits for it; a tunnel with a keepalive is judged by the handshake's age instead."""
    pulse = Pulse().after(status(0, 0), 1000, keepalive)
    early = pulse.after(status(INITIATION_SIZE, 0), 1000 + KEYS_EXPIRE - 1, keepalive)
    assert early.unanswered_at is None
    late = early.after(status(2 * INITIATION_SIZE, 0), 1000 + KEYS_EXPIRE, keepalive)
    assert late.unanswered_at == (None if keepalive else 1000 + KEYS_EXPIRE)
    quiet = early.after(status(INITIATION_SIZE, 0), 1000 + KEYS_EXPIRE, keepalive)
    assert quiet.unanswered_at is None, "nothing was sent"
