"""What came of the last attempt with each candidate."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.model import Endpoint, Latency, NamedEndpoint, Tunnel
from gateway.policy.latency import after_failure
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Reason,
    State,
    Stopping,
    Trial,
    Turn,
)
from gateway.policy.tried import (
    LONGEST,
    LONGEST_NAME,
    MOST_TRIED,
    Tried,
    tried_after,
    with_latency,
)
from tests.fakes.world import World
from tests.scenarios import IPV4_ONLY
from tests.unit.test_supervisor import FIRST, ONE, SECOND, TWO, kills

(PEER,) = IPV4_ONLY.peers
NAMED = replace(IPV4_ONLY, peers=(replace(PEER, endpoint=NamedEndpoint("vpn.example", 1)),))


def server(number: int) -> Tunnel:
    """Return a candidate with an endpoint and a name of its own."""
    endpoint = Endpoint(ip_address(f"198.51.{number // 250}.{number % 250 + 1}"), 51820)
    return replace(IPV4_ONLY, peers=(replace(PEER, endpoint=endpoint),), name=f"se-{number}")


def trying(turn: Turn, reason: Reason = Reason.NO_HANDSHAKE) -> Connecting:
    """Return the state in which the candidate of `turn` is tried."""
    tunnel = turn.candidate
    assert isinstance(tunnel, Tunnel)
    return Connecting(turn, tunnel, reason, since=0.0, retry_at=0.0, built=True)


def results(world: World, second: float) -> list[tuple[str, str]]:
    """Return the endpoint and the result of each candidate that was tried until `second`."""
    return [(it.endpoint, str(it.result)) for it in world.at(second).candidates]


def test_a_connection_says_how_long_its_handshake_took() -> None:
    """And when that was, on the clock of the status."""
    world = World(ONE)
    world.run(until=10)
    (only,) = world.at(9).candidates
    assert (only.endpoint, only.result) == (f"{FIRST}:51820", Reason.ANSWERS)
    assert only.handshake_seconds is not None
    assert 0 < only.handshake_seconds < 1
    assert only.at == next(it.since for it in world.published if it.state == "connected")
    assert only.latency is None
    assert world.at(9).candidate_count == 1


def test_a_server_that_is_silent_and_one_that_never_answers() -> None:
    """The newest comes first; each is there once, with its last result."""
    world = World(TWO)
    world.run((10, kills(world, FIRST)), until=60)
    assert results(world, 9) == [(f"{FIRST}:51820", "server_answers")]
    assert results(world, 59) == [
        (f"{SECOND}:51820", "server_answers"),
        (f"{FIRST}:51820", "server_silent"),
    ]


def test_a_server_that_never_answers_has_no_handshake() -> None:
    """After its patience has ended, not before."""
    world = World(TWO)
    world.run((0, kills(world, FIRST)), until=30)
    assert results(world, 5) == []
    assert results(world, 29) == [
        (f"{SECOND}:51820", "server_answers"),
        (f"{FIRST}:51820", "no_handshake"),
    ]
    (_, failed) = world.at(29).candidates
    assert failed.handshake_seconds is None


def test_timed_handshakes_are_results_too() -> None:
    """Those of the trial; with one, the time is also what the candidates are compared by."""
    world = World(replace(TWO, latency=Latency()))
    world.run(until=20)
    found = world.at(19).candidates
    assert {it.endpoint for it in found} == {f"{FIRST}:51820", f"{SECOND}:51820"}
    assert {it.result for it in found} == {Reason.ANSWERS}
    assert all(it.handshake_seconds is not None and it.latency is not None for it in found)


def test_times_that_were_kept_are_shown_with_a_candidate_that_was_tried() -> None:
    """And not with the others, nor anything without times."""
    one, two = (Tried(f"192.0.2.{n}:1", "", 1.0, Reason.ANSWERS) for n in (1, 2))
    assert [it.latency for it in with_latency((one, two), (("192.0.2.2:1", 0.03),))] == [None, 0.03]
    assert with_latency((one,), ()) == (one,)


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        (Reason.NOT_BUILT, "not_built"),
        (Reason.NOT_RESOLVED, "name_not_resolved"),
        (Reason.MEASURING, "no_handshake"),
    ],
)
def test_a_failed_attempt_has_its_reason(reason: Reason, result: str) -> None:
    """In a trial, the handshake did not come in time."""
    turn = Turn((server(1), server(2)))
    (found,) = tried_after((), trying(turn), trying(turn.next(), reason), 9.0)
    assert found == Tried("198.51.0.2:51820", "se-1", 9.0, Reason(result))


def test_the_last_candidate_of_a_trial_may_fail_too() -> None:
    """Then the count of failures begins again, because another one has answered."""
    times = (("198.51.0.2:51820", 0.1),)
    turn = Turn((server(1), server(2)), 1, by_latency=True, trial=Trial(times, 1))
    following = after_failure(turn, was_sent=True)
    assert (following.attempt, following.trial) == (0, None)
    (found,) = tried_after((), trying(turn, Reason.MEASURING), trying(following), 9.0)
    assert (found.name, found.result) == ("se-2", Reason.NO_HANDSHAKE)


def test_the_documents_have_the_figures() -> None:
    """How many are reported, and how long their texts are."""
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
    figures = f"the {MOST_TRIED} that were tried last, with {LONGEST} characters of the endpoint"
    assert f"{figures} and {LONGEST_NAME} of the name" in text
    health = (Path(__file__).parents[2] / "docs" / "health.md").read_text("utf-8")
    assert f"tried last, at most {MOST_TRIED}," in health


MEASURED = replace(Turn((server(1), server(2))), trial=Trial())
TURN = Turn((server(1), server(2)), attempt=3)
UP = Connected(TURN, server(1), since=5.0, pulse=trying(TURN).pulse)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (trying(TURN), replace(trying(TURN), built=False, reason=Reason.INTERFACE_LOST)),
        (trying(TURN), trying(replace(TURN, tried_at=7.0))),
        (trying(MEASURED), trying(replace(MEASURED, tried_at=7.0), Reason.MEASURING)),
        (trying(TURN), trying(Turn((server(3),)), Reason.RECONFIGURED)),
        (UP, trying(replace(TURN, position=0), Reason.RETURNING)),
        (UP, trying(TURN, Reason.INTERFACE_LOST)),
        (UP, replace(UP, turn=replace(TURN, attempt=0))),
        (trying(TURN), Locked(Reason.FIREWALL)),
        (trying(TURN), Stopping()),
        (Locked(), trying(TURN)),
    ],
)  # fmt: skip
def test_what_is_not_the_end_of_an_attempt(before: State, after: State) -> None:
    """Nothing of it says anything about a server."""
    assert tried_after((), before, after, 9.0) == ()


def test_a_list_that_is_fetched_is_not_a_candidate() -> None:
    """It has no endpoint."""
    turn = Turn((replace(server(1), peers=()),))
    before = Fetching(turn, Reason.NO_LIST, 0.0, 0.0)
    after = replace(before, turn=turn.next())
    assert tried_after((), before, after, 9.0) == ()


def test_few_of_hundreds_are_reported() -> None:
    """Those that were tried last; endpoints and names are cut."""
    known: tuple[Tried, ...] = ()
    turn = Turn(tuple(map(server, range(300))))
    for number in range(300):
        known = tried_after(known, trying(turn), trying(turn.next()), float(number))
        turn = turn.next()
    assert [it.name for it in known] == [f"se-{n}" for n in range(299, 299 - MOST_TRIED, -1)]
    peers = tuple(peer for n in range(300) for peer in server(n).peers)
    many = Turn((replace(IPV4_ONLY, peers=peers, name="ü" * 999),))
    (found,) = tried_after((), trying(many), trying(many.next()), 1.0)
    assert (len(found.endpoint), found.name) == (LONGEST, "?" * LONGEST_NAME)


def test_a_candidate_given_by_name_keeps_it() -> None:
    """Its address may be another one with each attempt."""
    turn = Turn((NAMED,))
    before = Connecting(turn, IPV4_ONLY, Reason.NO_HANDSHAKE, 0.0, 0.0, built=True)
    (found,) = tried_after((), before, replace(before, turn=turn.next()), 1.0)
    assert found.endpoint == "vpn.example:1"
