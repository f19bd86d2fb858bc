"""`gateway status` asks the listener on the port, which any workload could be."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway import cli
from gateway.commands import status as status_command
from gateway.commands.status import for_people, visible
from healthcheck import __main__ as program
from healthcheck.__main__ import LARGEST_REPLY
from tests.unit.test_healthcheck import saying, server

PROJECT = Path(__file__).resolve().parents[2]
HEAD = b"HTTP/1.0 200 OK\r\n\r\n"
CLEAR = "\x1b[2J\x1b]0;title\x07\u202e\ud800"


def status(answer: Callable[[socket.socket], None]) -> "subprocess.CompletedProcess[str]":
    """Run the command where `answer` is what comes."""
    with server(answer) as (port, _):
        return subprocess.run(
            [sys.executable, "-m", "gateway", "status"],
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], "HEALTH_SERVER_ADDRESS": f"127.0.0.1:{port}"},
            timeout=30,
        )


def without_end(connection: socket.socket) -> None:
    """Send for as long as anybody listens."""
    try:
        while True:
            connection.sendall(b" " * 4096)
    except OSError:
        return


def byte_by_byte(connection: socket.socket) -> None:
    """Send a byte well within every time limit, again and again."""
    try:
        while True:
            connection.sendall(b" ")
            time.sleep(0.2)
    except OSError:
        return


def test_what_is_reported_is_shown_without_what_a_terminal_obeys() -> None:
    """Neither in names nor in values, whatever their kind. Control: the rest is shown."""
    reported = {CLEAR: CLEAR, "état": "connecté", "limits": [CLEAR, "a\nb"], "by": {CLEAR: CLEAR}}
    done = status(saying(HEAD + json.dumps(reported | {"healthy": True}).encode()))
    assert done.returncode == 0
    assert "connecté" in done.stdout
    assert "\\x1b[2J" in done.stdout
    assert "a\\nb" in done.stdout
    assert all(each.isprintable() or each == "\n" for each in done.stdout)


def test_counts_by_name_are_shown_and_nothing_is_a_dash() -> None:
    """An empty dictionary is not the same as any other."""
    assert for_people({"server_silent": 2, "moved": 1}) == "server_silent: 2, moved: 1"
    assert {for_people(it) for it in (None, "", [], {})} == {"-"}


def test_the_last_reading_of_the_configuration_is_shown_with_every_problem() -> None:
    """A line for each, and how many more there are; nothing that a terminal obeys."""
    shown = for_people(
        {
            "outcome": "refused",
            "begun_at": 1.0,
            "age": 12.5,
            "changed": [],
            "needs_restart": ["FIREWALL_BACKEND"],
            "problems": [{"variable": "X", "problem": "no; write yes"}, {"problem": CLEAR}],
            "found": 4,
        }
    )
    assert [line.strip() for line in shown.splitlines()] == [
        "refused 12.5 s ago",
        "needs a restart: FIREWALL_BACKEND",
        "X: no; write yes",
        visible(CLEAR),
        "and 2 more, which the log has",
    ]
    odd = {"outcome": CLEAR, "age": CLEAR, "problems": 7, "changed": {CLEAR: 1}, "found": CLEAR}
    assert for_people(odd).isprintable()


@pytest.mark.parametrize("value", [CLEAR, [CLEAR], {CLEAR: CLEAR}, [[CLEAR]]], ids=repr)
def test_every_kind_of_value_is_made_visible(value: object) -> None:
    """Also what is nested, which Python writes in its own way."""
    assert for_people(value).isprintable()
    assert visible("as it is, ä") == "as it is, ä"


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        (without_end, f"longer than {LARGEST_REPLY} bytes"),
        (saying(b"\x1b[2J"), "the reply is not from the gateway"),
        (saying(HEAD + b"[" * 60000), "the reply is not from the gateway"),
        (saying(HEAD + b"[]"), "the reply is not from the gateway"),
    ],
    ids=["without end", "no HTTP", "nested deeply", "a list"],
)
def test_an_answer_that_is_none_ends_soon_with_the_reason(
    answer: Callable[[socket.socket], None], reported: str
) -> None:
    """Exit code 1 and one line."""
    done = status(answer)
    assert done.returncode == 1
    assert reported in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.strip().isprintable()


def test_an_answer_that_comes_byte_by_byte_is_given_up_after_the_time_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit holds for the whole answer, not for each read; here it is a shorter one."""
    for module in (program, status_command):
        monkeypatch.setattr(module, "TIME_LIMIT", 0.5)
    with server(byte_by_byte) as (port, _):
        monkeypatch.setenv("HEALTH_SERVER_ADDRESS", f"127.0.0.1:{port}")
        assert cli.main(["status"]) == 1
    said = capsys.readouterr()
    assert said.err == f"no complete answer within 0.5 s: 127.0.0.1:{port}\n"
    assert said.out == ""
