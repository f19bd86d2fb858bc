"""What the gateway remembers of its own past, and what `/history` answers."""

import json
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.history import (
    LARGEST_ANSWER,
    LONGEST_DETAIL,
    MOST_SAMPLES,
    MOST_TRANSITIONS,
    SAMPLE_EVERY,
    History,
)
from gateway.policy.report import Status
from gateway.policy.reports import ResolverReport
from gateway.policy.states import Reason
from gateway.services.health.board import STALE_AFTER, Board
from gateway.services.health.server import MOST_CONNECTIONS, TIME_LIMIT, respond
from healthcheck.__main__ import ask
from tests.fakes.clock import Clock

PROJECT = Path(__file__).resolve().parents[2]

EPOCH = 1_796_000_000.0
CONNECTED = Status(10.0, "connected", healthy=True, reason=Reason.ANSWERS, since=10.0)


def connecting(at: float, reason: Reason = Reason.STARTING, **changes: Any) -> Status:
    """Return the status of a gateway that has no connection at `at`."""
    status = Status(at, "connecting", healthy=False, reason=reason, since=0.0)
    return replace(status, **changes)


def of(*statuses: Status) -> History:
    """Return the history after `statuses`."""
    history = History()
    for status in statuses:
        history = history.noted(status)
    return history


@pytest.fixture
def clock() -> Clock:
    """Return a clock at zero."""
    return Clock(0.0)


@pytest.fixture
def board(clock: Clock) -> Board:
    """Return a board without a status, whose wall clock is that of `EPOCH`."""
    return Board(clock, lambda: EPOCH + clock.now)


def answered(board: Board) -> dict[str, list[dict[str, object]]]:
    """Return what `/history` answers."""
    code, kind, text = respond(b"GET", b"/history", board)
    assert (code, kind) == (200, "application/json")
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_a_transition_says_when_why_and_how_long_it_was_different() -> None:
    """The same status again is none; a connection, its loss and the next one are."""
    cut = connecting(100.0, Reason.SILENT, detail="gone")
    again = replace(CONNECTED, at=130.0)
    history = of(connecting(1.0), connecting(2.0), CONNECTED, replace(CONNECTED, at=50.0))
    assert [(it.at, it.state, it.seconds) for it in history.transitions] == [
        (1.0, "connecting", 0.0),
        (10.0, "connected", 9.0),
    ]
    history = history.noted(cut).noted(replace(cut, at=120.0)).noted(again)
    lost, back = history.transitions[2:]
    assert (lost.at, lost.healthy, lost.reason, lost.detail, lost.seconds) == (
        100.0, False, Reason.SILENT, "gone", 90.0,
    )  # fmt: skip
    assert (back.at, back.healthy, back.reason, back.detail, back.seconds) == (
        130.0, True, Reason.ANSWERS, "", 30.0,
    )  # fmt: skip
    assert dict(history.counts) == {Reason.STARTING: 1, Reason.ANSWERS: 2, Reason.SILENT: 1}


def test_how_long_it_was_red_is_summed_up_to_now() -> None:
    """Also while it is red, and from one reason for it to the next; never while it is green."""
    assert History().red_seconds(1.0) == 0.0
    history = of(connecting(1.0))
    assert history.red_seconds(4.0) == 3.0
    history = history.noted(connecting(5.0, Reason.NO_HANDSHAKE)).noted(CONNECTED)
    assert history.red_seconds(10.0) == history.red_seconds(99.0) == 9.0
    history = history.noted(connecting(100.0, Reason.SILENT))
    assert history.red_seconds(107.0) == 16.0
    assert history.red_seconds(99.0) == 9.0, "a reader on another thread may have an older time"


def test_states_that_take_turns_are_not_all_that_is_remembered() -> None:
    """The last of them is shown, with the last detail that was known; another reason counts."""
    begun = connecting(0.0, Reason.NO_HANDSHAKE, state="resolving")
    tried = connecting(1.0, Reason.NO_HANDSHAKE, detail="nothing returns")
    history = of(begun, tried, replace(begun, at=2.0))
    (only,) = history.transitions
    assert (only.at, only.state, only.detail) == (0.0, "resolving", "nothing returns")
    history = history.noted(connecting(3.0, Reason.NOT_RESOLVED, state="resolving"))
    assert len(history.transitions) == 2
    history = history.noted(connecting(3.5, Reason.NOT_RESOLVED, state="resolving", detail="x"))
    assert [it.detail for it in history.transitions] == ["nothing returns", "x"]
    history = history.noted(connecting(4.0, Reason.NOT_RESOLVED, state="locked"))
    assert len(history.transitions) == 3


def test_what_is_remembered_is_bounded_and_what_is_counted_is_not() -> None:
    """The oldest is forgotten; a detail is cut, also one that comes later."""
    long = "x" * (LONGEST_DETAIL + 1)
    history = History()
    for second in range(2 * MOST_TRANSITIONS):
        drifts = Reason.DRIFT if second % 2 else Reason.ANSWERS
        at = float(second)
        history = history.noted(replace(CONNECTED, at=at, reason=drifts, detail=long))
    assert len(history.transitions) == MOST_TRANSITIONS
    assert history.transitions[0].at == MOST_TRANSITIONS
    assert {len(it.detail) for it in history.transitions} == {LONGEST_DETAIL}
    assert dict(history.counts) == dict.fromkeys([Reason.DRIFT, Reason.ANSWERS], MOST_TRANSITIONS)
    later = of(connecting(0.0), connecting(1.0, detail=long))
    assert later.transitions[0].detail == "x" * LONGEST_DETAIL


def test_the_documents_have_the_figures() -> None:
    """How much is remembered, and how large the answer is about."""
    text = (PROJECT / "docs" / "limits.md").read_text("utf-8")
    kept = f"{MOST_TRANSITIONS} transitions with details of {LONGEST_DETAIL} characters"
    assert f"{kept}, {MOST_SAMPLES} samples" in text
    health = (PROJECT / "docs" / "health.md").read_text("utf-8")
    assert f"the last {MOST_TRANSITIONS} `transitions`" in health
    assert f"at most {LONGEST_DETAIL} characters" in health


def test_a_status_that_is_the_same_makes_nothing_new() -> None:
    """Each turn of the loop asks, so it costs no new value."""
    history = of(CONNECTED)
    assert history.noted(replace(CONNECTED, at=11.0)) is history


def test_there_is_a_sample_for_each_minute_of_the_last_hour() -> None:
    """With the age of the handshake and the bytes at that time; not one for each status."""
    history = History()
    for second in range(0, 2 * 3600, 4):
        at = float(second)
        status = replace(CONNECTED, at=at, handshake_age=at, received=second, sent=2 * second)
        history = history.noted(status)
    assert len(history.samples) == MOST_SAMPLES
    assert {late.at - early.at for early, late in pairwise(history.samples)} == {SAMPLE_EVERY}
    last = history.samples[-1]
    assert (last.at, last.handshake_age, last.received, last.sent) == (7140.0, 7140.0, 7140, 14280)
    assert of(connecting(0.0)).samples[0].handshake_age is None


def test_the_answer_has_exactly_these_fields(board: Board, clock: Clock) -> None:
    """With the time of day, as it is when the answer is given: the clock may be set later."""
    clock.now = 2.0
    board.publish(connecting(2.0, detail="x"))
    clock.now = 4.5
    board.publish(replace(CONNECTED, at=4.5, handshake_age=0.123))
    while clock.now < 58.5:
        clock.now += 9.0
        board.confirm()
    clock.now = 64.5
    board.publish(replace(CONNECTED, at=64.5, handshake_age=60.12, received=5, sent=7))
    assert answered(board) == {
        "transitions": [
            {
                "at": EPOCH + 2.0, "state": "connecting", "healthy": False, "reason": "starting",
                "detail": "x", "seconds": 0.0,
            },
            {
                "at": EPOCH + 4.5, "state": "connected", "healthy": True,
                "reason": "server_answers", "detail": None, "seconds": 2.5,
            },
        ],
        "samples": [
            {"at": EPOCH + 2.0, "handshake_age": None, "received": 0, "sent": 0},
            {"at": EPOCH + 64.5, "handshake_age": 60.1, "received": 5, "sent": 7},
        ],
    }  # fmt: skip


def test_before_the_first_status_there_is_no_past(board: Board) -> None:
    """The lists are there, and empty."""
    assert answered(board) == {"transitions": [], "samples": []}


def test_a_clock_that_is_set_later_does_not_make_the_past_wrong(clock: Clock) -> None:
    """Small boards begin in 1970."""
    wall = [0.0]
    board = Board(clock, lambda: wall[0])
    clock.now = 2.0
    board.publish(connecting(2.0))
    clock.now, wall[0] = 12.0, EPOCH
    board.publish(replace(CONNECTED, at=12.0))
    first, last = answered(board)["transitions"]
    assert (first["at"], last["at"]) == (EPOCH - 10.0, EPOCH)


def test_a_loop_that_hangs_is_in_the_history(board: Board, clock: Clock) -> None:
    """While it hangs, and afterwards the same: red from the time at which health was."""
    clock.now = 1.0
    board.publish(replace(CONNECTED, at=1.0))
    clock.now = 1.0 + STALE_AFTER + 5.0
    meanwhile = answered(board)["transitions"][-1]
    assert (meanwhile["reason"], meanwhile["healthy"]) == ("hung", False)
    assert meanwhile["at"] == EPOCH + 1.0 + STALE_AFTER
    board.publish(replace(CONNECTED, at=clock.now))
    *_, hung, back = answered(board)["transitions"]
    assert hung == meanwhile
    assert (back["reason"], back["seconds"]) == ("server_answers", 5.0)
    clock.now += STALE_AFTER + 5.0
    board.confirm()
    assert [it["reason"] for it in answered(board)["transitions"]][-2:] == [
        "hung",
        "server_answers",
    ]


def test_a_resolver_that_goes_down_and_comes_back_is_in_the_history(
    board: Board, clock: Clock
) -> None:
    """It is noticed when the kernel is compared, every few seconds."""
    report = [ResolverReport("x", answers=True)]
    board.resolver = lambda: report[0]
    clock.now = 1.0
    board.publish(replace(CONNECTED, at=1.0))
    report[0] = ResolverReport("x", problem="killed")
    clock.now = 5.0
    board.confirm()
    report[0] = ResolverReport("x", answers=True)
    clock.now = 9.0
    board.confirm()
    found = [(it["reason"], it["detail"]) for it in answered(board)["transitions"]]
    assert found == [
        ("server_answers", None),
        ("resolver_down", "killed"),
        ("server_answers", None),
    ]


def test_the_largest_answer_is_bounded(board: Board, clock: Clock) -> None:
    """However many details there are, and in whatever letters."""
    for second in range(10_000):
        clock.now = 60.0 * second
        reason = Reason.DRIFT if second % 2 else Reason.ANSWERS
        status = replace(CONNECTED, at=clock.now, reason=reason, detail="\U0001f512" * 500)
        board.publish(replace(status, received=2**62, sent=2**62))
    assert len(respond(b"GET", b"/history", board)[2]) < LARGEST_ANSWER


def metrics(board: Board) -> list[str]:
    """Return the lines of `/metrics` about the past."""
    lines = respond(b"GET", b"/metrics", board)[2].decode().splitlines()
    return [it for it in lines if re.match("portcullis_(transitions|unhealthy_seconds)_total", it)]


def test_the_metrics_count_transitions_and_seconds_without_health(
    board: Board, clock: Clock
) -> None:
    """A line for each reason from the start, so that a graph has no gaps; red time until now."""
    clock.now = 1.0
    board.publish(connecting(1.0))
    clock.now = 4.0
    lines = metrics(board)
    assert 'portcullis_transitions_total{reason="starting"} 1.0' in lines
    assert 'portcullis_transitions_total{reason="server_silent"} 0.0' in lines
    assert len(lines) == len(Reason) + 1
    assert lines[-1] == "portcullis_unhealthy_seconds_total 3.0"
    board.publish(replace(CONNECTED, at=5.0))
    clock.now = 8.0
    assert metrics(board)[-1] == "portcullis_unhealthy_seconds_total 4.0"


def test_the_metrics_never_decrease_when_a_hang_ends(board: Board, clock: Clock) -> None:
    """What was served while the loop hung is what is remembered of it."""
    clock.now = 1.0
    board.publish(replace(CONNECTED, at=1.0))
    clock.now = 1.0 + STALE_AFTER + 5.0
    while_hung = metrics(board)
    assert while_hung[-1] == "portcullis_unhealthy_seconds_total 5.0"
    assert 'portcullis_transitions_total{reason="hung"} 1.0' in while_hung
    board.publish(replace(CONNECTED, at=clock.now))
    after = metrics(board)
    assert after[-1] == while_hung[-1]
    assert 'portcullis_transitions_total{reason="hung"} 1.0' in after
    assert 'portcullis_transitions_total{reason="server_answers"} 2.0' in after


SERVER = """
import sys, time
from dataclasses import replace
from gateway.model import HostPort
from gateway.policy.report import Status
from gateway.policy.states import Reason
from gateway.services.health.board import Board
from gateway.services.health.server import HealthServer
clock, began = [0.0], time.monotonic()
board = Board(lambda: clock[0] + time.monotonic() - began)
one = Status(0.0, "connected", healthy=False, reason=Reason.DRIFT, since=0.0, detail="x" * 500)
for number in range(200):
    clock[0] = 60.0 * number
    board.publish(replace(one, at=clock[0], state=str(number % 2), received=2**62, sent=2**62))
HealthServer(board).start(HostPort("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""
DEAF_READERS = 1000
MOST_GROWTH = 30_000
"""KiB."""


def test_readers_that_never_read_hold_little_and_keep_others_served() -> None:
    """Each asks for the longest history and reads nothing; the oldest have to go, all others soon.

    Control: a client that reads gets all of it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
    ) as served:  # fmt: skip
        assert served.stdout is not None
        assert served.stdin is not None
        assert served.stdout.readline() == "ready\n"
        body = json.loads(ask("127.0.0.1", port, "/history", LARGEST_ANSWER).split(b"\r\n\r\n")[1])
        assert (len(body["transitions"]), len(body["samples"])) == (MOST_TRANSITIONS, MOST_SAMPLES)
        before = resident(served.pid)
        deaf = [deaf_reader(port) for _ in range(DEAF_READERS)]
        since = time.monotonic()
        assert b'"healthy": false' in ask("127.0.0.1", port)
        assert time.monotonic() - since < 3
        assert resident(served.pid) - before < MOST_GROWTH
        assert connections(served.pid) < MOST_CONNECTIONS + 50
        until = time.monotonic() + 4 * TIME_LIMIT
        while connections(served.pid) > 20:
            assert time.monotonic() < until, "they are still connected"
            time.sleep(0.1)
        for client in deaf:
            client.close()
        served.stdin.close()


def deaf_reader(port: int) -> socket.socket:
    """Return a client that has asked, and whose kernel takes as little as it can."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    with suppress(OSError):  # it may have been the oldest one already
        client.sendall(b"GET /history HTTP/1.1\r\nHost: gateway\r\n\r\n")
    return client


def resident(pid: int) -> int:
    """Return the memory of a process in KiB."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def connections(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
