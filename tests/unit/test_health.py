"""What the health server answers, from the last status and a clock."""

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway import __version__
from gateway.model import Endpoint
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.public_address import PublicAddress
from gateway.policy.reload import Fault, Outcome, not_reloaded
from gateway.policy.report import Hole, HoleKind, Status
from gateway.policy.reports import ListReport, ResolverReport, ServiceReport
from gateway.policy.states import Reason
from gateway.policy.tried import LONGEST, LONGEST_NAME, MOST_TRIED, Tried
from gateway.services.health.board import COUNT_EVERY, COUNT_TIME, STALE_AFTER, Board
from gateway.services.health.server import respond
from healthcheck.__main__ import LARGEST_REPLY
from tests.fakes.clock import Clock

HEALTHY = Status(
    at=100.0,
    state="connected",
    healthy=True,
    reason=Reason.ANSWERS,
    since=40.0,
    endpoint="198.51.100.1:51820",
    endpoints=(Endpoint(ip_address("198.51.100.1"), 51820),),
    listen_port=51820,
    handshake_age=12.0,
    received=1000,
    sent=2000,
    mtu=1420,
    path_mtu=1312,
    firewall="iptables",
    guard=False,
    tunnel="kernelspace",
    addresses=("10.64.1.2/32",),
    candidates=(
        Tried("198.51.100.1:51820", "se-1", 40.0, Reason.ANSWERS, 0.06123),
        Tried("198.51.100.2:51820", "", 30.0, Reason.NO_HANDSHAKE, None, 0.031),
    ),
    candidate_count=312,
    verified_age=1.0,
    reconnects=((Reason.NO_HANDSHAKE, 2),),
    refused=(("ipv4", "out", 7),),
    limits=(Limit(LimitCode.NO_GUARD, "packet sockets are not stopped", "remedy"),),
    holes=(Hole(HoleKind.LAN, ("192.168.1.0/24",), is_open=True),),
)


@pytest.fixture
def clock() -> Clock:
    """Return a clock at the time of the status."""
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    """Return a board with a healthy status."""
    board = Board(clock)
    board.publish(HEALTHY)
    return board


def body(answer: tuple[int, str, bytes]) -> dict[str, object]:
    """Return the JSON body of an answer."""
    found = json.loads(answer[2])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", [b"/", b"/healthz", b"/readyz", b"/healthz?verbose"])
def test_health_says_200_and_everything_that_is_promised(board: Board, path: bytes) -> None:
    """State, reason, endpoint, handshake, bytes, backends and limits are in the body."""
    answer = respond(b"GET", path, board)
    assert answer[0] == 200
    assert body(answer) == {
        "state": "connected",
        "healthy": True,
        "reason": "the server answers",
        "reason_code": "server_answers",
        "detail": "",
        "remedy": "",
        "attempts": 0,
        "diagnosis": "",
        "endpoint": "198.51.100.1:51820",
        "endpoints": [{"address": "198.51.100.1", "port": 51820}],
        "listen_port": 51820,
        "handshake_age": 12.0,
        "received": 1000,
        "sent": 2000,
        "mtu": 1420,
        "path_mtu": 1312,
        "firewall": "iptables",
        "guard": False,
        "tunnel": "kernelspace",
        "drift": 0,
        "verified_age": 1.0,
        "reconnects": {"no_handshake": 2},
        "switches": 0,
        "refused": {"ipv4 out": 7},
        "reload": None,
        "reloads": {},
        "limits": [
            {"code": "no_guard", "text": "packet sockets are not stopped", "remedy": "remedy"}
        ],
        "holes": [{"kind": "lan", "listed": ["192.168.1.0/24"], "is_open": True}],
        "resolver": None,
        "forwarded_ports": [],
        "services": [],
        "public_ip": None,
        "state_age": 60.0,
        "version": __version__,
        "addresses": ["10.64.1.2/32"],
        "candidates": [
            {
                "endpoint": "198.51.100.1:51820",
                "name": "se-1",
                "age": 60.0,
                "result": "server_answers",
                "handshake_seconds": 0.0612,
                "latency_seconds": None,
            },
            {
                "endpoint": "198.51.100.2:51820",
                "name": "",
                "age": 70.0,
                "result": "no_handshake",
                "handshake_seconds": None,
                "latency_seconds": 0.031,
            },
        ],
        "candidate_count": 312,
    }


def test_a_resolver_of_our_own_that_does_not_answer_makes_health_red(board: Board) -> None:
    """With the reason, the remedy as a limit, and what it is in the answer and the metrics."""
    asks = "192.0.2.1 over TLS"
    board.resolver = lambda: ResolverReport(asks, answers=True, questions=(("asked", 3),))
    code, _, text = board.health()
    assert code == 200
    assert json.loads(text)["resolver"]["questions"] == {"asked": 3}
    metrics = respond(b"GET", b"/metrics", board)[2].decode()
    assert "portcullis_resolver_up 1.0" in metrics
    assert 'portcullis_resolver_questions_total{answer="asked"} 3.0' in metrics
    board.resolver = lambda: ResolverReport(asks, problem="killed", remedy="see the log")
    code, _, text = board.health()
    down = json.loads(text)
    assert (code, down["reason_code"], down["detail"]) == (503, "resolver_down", "killed")
    assert "portcullis_resolver_up 0.0" in respond(b"GET", b"/metrics", board)[2].decode()
    (limit,) = [it for it in down["limits"] if it["code"] == "no_names"]
    assert limit["remedy"] == "see the log"
    board.resolver = lambda: ResolverReport(asks)
    assert json.loads(board.health()[2])["detail"] == "it is being started"


def test_another_program_that_answers_in_its_place_does_not_make_health_red(board: Board) -> None:
    """It may be what the user wants; the limit names the remedy."""
    board.resolver = lambda: ResolverReport("x", problem="taken", remedy="y", others_answer=True)
    code, _, text = board.health()
    assert code == 200
    assert "no_names" in {it["code"] for it in json.loads(text)["limits"]}


def test_a_tunnel_that_is_down_keeps_its_reason(board: Board) -> None:
    """The resolver cannot be asked anything then."""
    board.publish(replace(HEALTHY, healthy=False, reason=Reason.NO_HANDSHAKE))
    board.resolver = lambda: ResolverReport("x", problem="killed")
    assert json.loads(board.health()[2])["reason_code"] == "no_handshake"


def test_the_last_reading_of_the_configuration_is_in_the_answer(board: Board, clock: Clock) -> None:
    """With the time at which it began, on the machine's clock, and its age; health is green."""
    answer = not_reloaded(90.25, Outcome.REFUSED, (Fault("X", "no; write yes"),))
    board.publish(replace(HEALTHY, reload=answer, reloads=(("refused", 3),)))
    clock.now += 2.5
    code, _, _ = answered = respond(b"GET", b"/healthz", board)
    assert code == 200
    assert body(answered)["reloads"] == {"refused": 3}
    assert body(answered)["reload"] == {
        "outcome": "refused",
        "begun_at": 90.25,
        "age": 12.2,
        "changed": [],
        "needs_restart": [],
        "problems": [{"variable": "X", "problem": "no; write yes"}],
        "found": 1,
    }


def test_the_largest_answer_is_one_that_the_health_check_reads() -> None:
    """However many faults and candidates there are, and in whatever letters."""
    tried = Tried("9" * LONGEST, "x" * LONGEST_NAME, 1.0, Reason.NO_HANDSHAKE, 1.25, 1.25)
    faults = tuple(Fault("\U0001f512" * 500, "\U0001f512" * 500) for _ in range(100))
    answer = not_reloaded(90.0, Outcome.REFUSED, faults)
    board = Board(lambda: 100.0)
    board.publish(replace(HEALTHY, reload=answer, candidates=(tried,) * MOST_TRIED))
    assert len(respond(b"GET", b"/healthz", board)[2]) < LARGEST_REPLY * 0.9
    locks = "\U0001f512" * 100
    lists = tuple(ListReport(f"https://{n}.example/{'x' * 480}", 1, None, locks) for n in range(8))
    services = tuple(ServiceReport(f"s{n}", problem=locks, text=locks) for n in range(5))
    resolver = ResolverReport(asks=locks, answers=True, problem=locks, lists=lists)
    board.resolver, board.services = lambda: resolver, lambda: services
    board.public_ip = lambda: PublicAddress("203.0.113.9", *[locks] * 6)
    _, _, body = respond(b"GET", b"/healthz", board)
    found = json.loads(body)
    assert len(body) < LARGEST_REPLY * 0.95
    assert (found["healthy"], found["state"]) == (True, "connected")
    assert found["reload"] is None
    assert json.loads(respond(b"GET", b"/livez", board)[2])["reload"], "the page reads all"
    assert json.loads(respond(b"GET", b"/healthz", Board(lambda: 1.0))[2])["reload"] is None


def test_ages_increase_between_two_statuses(board: Board, clock: Clock) -> None:
    """An age is right at the time of the request, not of the status."""
    clock.now += 2.5
    found = body(respond(b"GET", b"/healthz", board))
    assert (found["handshake_age"], found["state_age"], found["verified_age"]) == (14.5, 62.5, 3.5)


def test_a_status_that_is_confirmed_is_not_old(board: Board, clock: Clock) -> None:
    """Its ages go on, but for that of the comparison; one that came later needs none."""
    clock.now += STALE_AFTER - 1
    board.confirm()
    clock.now += STALE_AFTER - 1
    answer = respond(b"GET", b"/healthz", board)
    assert answer[0] == 200
    found = body(answer)
    assert (found["handshake_age"], found["state_age"]) == (30.0, 78.0)
    assert found["verified_age"] == STALE_AFTER - 1
    clock.now += 2
    assert respond(b"GET", b"/livez", board)[0] == 503
    board.publish(replace(HEALTHY, at=clock.now))
    assert body(respond(b"GET", b"/healthz", board))["verified_age"] == 1.0


def test_a_kernel_that_was_never_found_as_wanted_has_no_age_of_that(board: Board) -> None:
    """Before the first comparison, and while nothing can be read back."""
    board.publish(replace(HEALTHY, verified_age=None))
    assert body(respond(b"GET", b"/healthz", board))["verified_age"] is None


def test_a_status_that_is_too_old_is_answered_with_503(board: Board, clock: Clock) -> None:
    """A supervisor that hangs is neither healthy nor alive, whatever its last status says."""
    clock.now += STALE_AFTER + 0.1
    answer = respond(b"GET", b"/healthz", board)
    assert answer[0] == 503
    assert "nothing new for 10 s" in str(body(answer)["reason"])
    assert body(answer)["reason_code"] == Reason.HUNG
    assert respond(b"GET", b"/livez", board)[0] == 503


def test_a_gateway_without_tunnel_is_alive_and_not_ready(board: Board) -> None:
    """Kubernetes must not restart a gateway whose tunnel may come back by itself."""
    board.publish(replace(HEALTHY, healthy=False, state="connecting"))
    assert respond(b"GET", b"/livez", board)[0] == 200
    assert respond(b"GET", b"/readyz", board)[0] == 503


def test_before_the_first_status_it_is_starting(clock: Clock) -> None:
    """A request may come before the supervisor has published a status."""
    answer = respond(b"GET", b"/", Board(clock))
    assert answer[0] == 503
    assert body(answer)["reason"] == "starting"


def test_metrics_say_the_same_for_prometheus(board: Board, clock: Clock) -> None:
    """Every figure of the body is there under a name of its own."""
    clock.now += 1
    code, kind, text = respond(b"GET", b"/metrics", board)
    assert (code, kind.split(";")[0]) == (200, "text/plain")
    lines = text.decode().splitlines()
    for line in (
        "portcullis_healthy 1.0",
        'portcullis_state{state="connected"} 1.0',
        'portcullis_state{state="connecting"} 0.0',
        'portcullis_limit{code="no_guard"} 1.0',
        'portcullis_limit{code="no_queues"} 0.0',
        "portcullis_state_age_seconds 61.0",
        "portcullis_handshake_age_seconds 13.0",
        "portcullis_mtu_bytes 1420.0",
        "portcullis_path_mtu_bytes 1312.0",
        "portcullis_limits 1.0",
        "portcullis_received_bytes_total 1000.0",
        "portcullis_sent_bytes_total 2000.0",
        'portcullis_reconnects_total{reason="no_handshake"} 2.0',
        'portcullis_reconnects_total{reason="server_silent"} 0.0',
        "portcullis_endpoint_switches_total 0.0",
        "portcullis_drift_total 0.0",
        'portcullis_refused_packets_total{direction="out",family="ipv4"} 7.0',
    ):
        assert line in lines


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"BREW"])
def test_only_get_and_head_are_known(board: Board, method: bytes) -> None:
    """Nothing that a client sends changes anything."""
    assert respond(method, b"/healthz", board)[0] == 405


def test_other_paths_are_not_there(board: Board) -> None:
    """Nor are paths that are not text."""
    assert respond(b"GET", b"/secrets", board)[0] == 404
    assert respond(b"GET", b"/\xff", board)[0] == 404


def counting(board: Board, clock: Clock, after: float | None) -> list[float]:
    """Have the supervisor count `after` seconds (None: never) when asked; return when it was."""
    asked: list[float] = []

    def ask() -> None:
        asked.append(clock.now)
        if after is not None:
            clock.now += after
            board.publish(replace(HEALTHY, at=clock.now, counted_at=clock.now))

    board.ask_to_count = ask
    return asked


def test_metrics_wait_for_a_new_count(board: Board, clock: Clock) -> None:
    """The answer has the packets that were refused until it was asked for."""
    asked = counting(board, clock, after=0.1)
    asyncio.run(board.count())
    assert asked == [100.0]
    assert respond(b"GET", b"/metrics", board)[0] == 200


def test_packets_are_not_counted_more_often_than_once_a_second(board: Board, clock: Clock) -> None:
    """Each workload may ask as often as it likes, and a count starts programs."""
    asked = counting(board, clock, after=0.0)
    for seconds in (0.0, 0.5, COUNT_EVERY, COUNT_EVERY + 0.1, 2 * COUNT_EVERY + 0.1):
        clock.now = 100.0 + seconds
        asyncio.run(board.count())
    assert asked == [100.0, 100.0 + COUNT_EVERY + 0.1]


def test_a_busy_supervisor_does_not_keep_the_metrics_waiting(board: Board, clock: Clock) -> None:
    """The last count is answered; nothing of the gateway may wait for the loop."""
    asked = counting(board, clock, after=None)

    async def passes() -> None:
        while True:
            await asyncio.sleep(0)
            clock.now += COUNT_TIME / 4

    async def work() -> None:
        passing = asyncio.create_task(passes())
        async with asyncio.timeout(2):
            await board.count()
        passing.cancel()

    asyncio.run(work())
    assert asked == [100.0]
    assert clock.now >= 100.0 + COUNT_TIME


def test_when_packets_were_counted_is_not_in_the_answer(board: Board) -> None:
    """It is a matter between the server and the supervisor."""
    assert "counted_at" not in body(board.health())
