"""`gateway reload`: the request, the answer to it, and the exit code."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from gateway import cli
from gateway.commands import reload as command
from gateway.commands import signalling
from gateway.commands.exit_codes import FAILED, OK, USAGE


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Be the gateway: return when it was asked to reload."""
    found: list[float] = []
    former = signal.signal(signal.SIGHUP, lambda *_: found.append(now()))
    monkeypatch.setattr(signalling.claim, "holder", os.getpid)
    yield found
    signal.signal(signal.SIGHUP, former)


def now() -> float:
    """Return the time on the gateway's clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def says(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], object]) -> int:
    """Run the command while the health server answers what `answer` returns."""
    monkeypatch.setattr(command, "status_at", lambda _host, _port: answer())
    return cli.main(["reload"])


@pytest.mark.parametrize(
    ("found", "reason", "code"),
    [
        ({"outcome": "accepted", "changed": ["FIREWALL_INPUT_PORTS"]}, "server_answers", OK),
        ({"outcome": "accepted", "changed": ["the tunnel"]}, "reconfigured", OK),
        ({"outcome": "unchanged"}, "server_answers", OK),
        ({"outcome": "unchanged", "needs_restart": ["FIREWALL_BACKEND"]}, "starting", FAILED),
        ({"outcome": "accepted"}, "firewall_failed", FAILED),
        ({"outcome": "accepted"}, "kernel_unavailable", FAILED),
        ({"outcome": "failed"}, "server_answers", FAILED),
        ({"outcome": "refused"}, "server_answers", USAGE),
    ],
    ids=str,
)
def test_the_exit_code_says_what_came_of_it(
    found: dict[str, object],
    reason: str,
    code: int,
    requests: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the first line the outcome, the last one the state."""

    def answer() -> object:
        body = found | {"begun_at": now()}
        return {"reload": body, "state": "connected", "reason": "why", "reason_code": reason}

    assert says(monkeypatch, answer) == code
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == (found["outcome"], "now connected: why")
    assert len(lines) == 2 + bool(found.get("changed")) + bool(found.get("needs_restart"))
    assert len(requests) == 1


@pytest.mark.parametrize("old", [None, {"outcome": "accepted", "begun_at": 1.0}, "x", 7], ids=str)
def test_an_answer_to_an_earlier_request_is_not_taken(
    old: object,
    requests: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command waits for its own, and not without end."""
    monkeypatch.setattr(command, "PATIENCE", 0.4)
    assert says(monkeypatch, lambda: {"reload": old}) == FAILED
    assert "no answer within 0.4 s" in capsys.readouterr().err
    assert len(requests) == 1


def test_a_gateway_that_ends_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process is gone."""
    with subprocess.Popen(["sleep", "60"]) as ended:
        monkeypatch.setattr(signalling.claim, "holder", lambda: ended.pid)
        ended.kill()
        ended.wait()
        assert cli.main(["reload"]) == FAILED
    assert capsys.readouterr().err == "the gateway has ended\n"


def test_without_a_gateway_the_remedy_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine can send the signal too."""
    monkeypatch.setattr(signalling.claim, "holder", lambda: 0)
    assert cli.main(["reload"]) == FAILED
    assert "docker kill --signal HUP" in capsys.readouterr().err
