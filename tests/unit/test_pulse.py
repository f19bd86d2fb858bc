"""What proves that the server is there, and what only looks like it."""

import pytest

from gateway.model import PeerStatus, TunnelStatus
from gateway.policy.evidence import (
    INITIATION_SIZE,
    KEEPALIVE_SIZE,
    RESPONSE_SIZE,
    Pulse,
)
from gateway.policy.timing import Moment, Timing

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
