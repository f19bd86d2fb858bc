"""What proves that the server is there, and what only looks like it."""

import pytest

from gateway.model import PeerStatus, TunnelStatus
from gateway.policy.pulse import INITIATION_SIZE, KEEPALIVE_SIZE, SILENT_AFTER, Pulse

HANDSHAKE = 1.7e9
DATA = 128  # bytes of a data message, as of all of them a multiple of 16


def status(sent: int, received: int, *, peers: int = 1) -> TunnelStatus:
    """Return what WireGuard tells of these totals, all on the first of its peers."""
    first = PeerStatus("key", None, HANDSHAKE, received, sent)
    others = (PeerStatus("other", None, None, 0, 0),) * (peers - 1)
    return TunnelStatus(51820, 0xCA6C, (first, *others))


def silent(*readings: tuple[int, int], peers: int = 1) -> bool:
    """Tell whether the server counts as gone after one reading (sent, received) a second."""
    pulse = Pulse().after(status(1000, 1000, peers=peers), 0)
    now = 0
    for sent, received in readings:
        now += 1
        pulse = pulse.after(status(1000 + sent, 1000 + received, peers=peers), now)
    return pulse.is_silent(now, keepalive=True)


SECONDS = range(1, int(SILENT_AFTER) + 3)


def test_data_without_an_answer_is_silence() -> None:
    """Fifteen seconds of sending without a byte back mean that the server is gone."""
    assert silent(*((second * DATA, 0) for second in SECONDS))


def test_data_with_answers_is_a_live_server() -> None:
    """Any data back, if only a keepalive, proves that the server heard us."""
    assert not silent(*((second * DATA, second * KEEPALIVE_SIZE) for second in SECONDS))


def test_keepalives_of_our_own_ask_for_no_answer() -> None:
    """An idle tunnel sends keepalives that nobody answers, and stays up."""
    assert not silent(*((second * KEEPALIVE_SIZE, 0) for second in SECONDS))


@pytest.mark.parametrize("peers", [1, 2])
def test_handshakes_that_the_server_begins_are_no_answer(peers: int) -> None:
    """A server that hears nothing of us goes on beginning handshakes, every five seconds."""
    readings = ((second * DATA, second // 5 * INITIATION_SIZE) for second in SECONDS)
    assert silent(*readings, peers=peers)


def test_a_handshake_with_data_behind_it_is_an_answer() -> None:
    """A server that begins a new handshake in the middle of traffic is alive."""
    readings = (
        (second * DATA, second // 5 * INITIATION_SIZE + second * DATA) for second in SECONDS
    )
    assert not silent(*readings)
