"""`gateway status` asks the listener on the port, which any workload could be."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.commands import asking
from gateway.commands.asking import visible
from gateway.commands.past import NOTHING, lines_of
from gateway.commands.showing import lines, of_reload, seconds, size
from gateway.policy.history import LARGEST_ANSWER
from gateway.policy.report import Status
from gateway.policy.states import Reason
from gateway.services.health.board import describe
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


ANSWER: dict[str, Any] = {
    "state": "connected", "healthy": True, "state_age": 3605.2,
    "reason": "the server answers", "reason_code": "server_answers", "detail": "", "remedy": "",
    "attempts": 0, "diagnosis": "",
    "endpoint": "198.51.100.7:51820", "endpoints": [{"address": "198.51.100.7", "port": 51820}],
    "listen_port": 51820,
    "addresses": ["10.64.1.2/32", "fd00::2/128"],
    "candidates": [
        {
            "endpoint": "198.51.100.7:51820", "name": "se-1", "age": 3605.2,
            "result": "server_answers", "handshake_seconds": 0.0612, "latency_seconds": 0.031,
        },
        {
            "endpoint": "198.51.100.9:51820", "name": "", "age": 61.0, "result": "no_handshake",
            "handshake_seconds": None, "latency_seconds": None,
        },
    ],
    "candidate_count": 312,
    "handshake_age": 42.1, "received": 51234567, "sent": 999, "mtu": 1420, "path_mtu": 1312,
    "firewall": "nftables", "guard": True, "tunnel": "kernelspace",
    "drift": 3, "verified_age": 1.44, "reconnects": {"server_silent": 1, "path_changed": 2},
    "switches": 4, "refused": {"ipv4 out": 12},
    "reload": {
        "outcome": "refused", "begun_at": 1.0, "age": 12.5, "changed": [],
        "needs_restart": ["FIREWALL_BACKEND"], "problems": [{"variable": "X", "problem": "no"}],
        "found": 2,
    },
    "reloads": {"refused": 1},
    "resolver": {
        "asks": "1.1.1.1 over TLS", "answers": True, "problem": "", "remedy": "",
        "others_answer": False, "starts": 1, "blocks": 7, "questions": {"cached": 8, "asked": 3},
    },
    "forwarded_ports": [
        {"port": 40123, "listening": 51413, "protocols": ["tcp", "udp"], "seconds": 48.2},
        {"port": 40124, "listening": 40124, "protocols": ["tcp"], "seconds": 48.2},
    ],
    "public_ip": {
        "address": "203.0.113.7", "country": "Netherlands", "region": "", "city": "Amsterdam",
        "hostname": "", "organization": "Example Hosting", "timezone": "Europe/Amsterdam",
    },
    "services": [
        {
            "name": "client", "is_running": True, "problem": "", "remedy": "", "starts": 1,
            "text": "listens on 40123",
        },
        {
            "name": "proxy", "is_running": False, "problem": "killed", "remedy": "see the log",
            "starts": 3, "text": "",
        },
    ],
    "holes": [
        {"kind": "lan", "listed": ["192.168.1.0/24"], "is_open": True},
        {"kind": "input_ports", "listed": ["8080/tcp", "and 3 more"], "is_open": False},
        {"kind": "tunnel_ports", "listed": [], "is_open": False},
    ],
    "limits": [{"code": "no_guard", "text": "not stopped", "remedy": "do this"}],
    "version": "0.1.0",
}  # fmt: skip

SHOWN = """\
state            connected for 1 h 0 min
healthy          yes
reason           the server answers [server_answers]
server           198.51.100.7:51820
listen port      51820/udp
last handshake   42 s ago
received         51.2 MB
sent             999 bytes
addresses        10.64.1.2/32, fd00::2/128
MTU              1420 bytes; packets of 1312 bytes arrive
firewall         nftables, with the egress guard
WireGuard        kernelspace
kernel compared  1.4 s ago
drift            3 changes by other programs reverted
lost tunnels     server_silent: 1, path_changed: 2
other server     chosen 4 times
refused packets  ipv4 out: 12
open             LAN subnets: 192.168.1.0/24 (open)
                 input ports: 8080/tcp, and 3 more (closed now)
                 ports in the tunnel: none listed
resolver         asks 1.1.1.1 over TLS
                 questions: cached: 8, asked: 3
                 blocks 7 names
public address   203.0.113.7
                 Amsterdam, Netherlands, Example Hosting, Europe/Amsterdam
forwarded ports  40123 tcp/udp, arrives at 51413, for 48 s
                 40124 tcp, for 48 s
client           works: listens on 40123
proxy            does not work
                 killed; see the log
last reload      refused 12 s ago
                 needs a restart: FIREWALL_BACKEND
                 X: no
                 and 1 more, which the log has
reloads          refused: 1
limits           not stopped; do this [no_guard]
version          0.1.0
servers          312 in the configuration; tried last:
                 198.51.100.7:51820 (se-1): handshake after 61 ms, 1 h 0 min ago, latency 31 ms
                 198.51.100.9:51820: no handshake, 1 min 1 s ago"""


def test_the_status_is_shown_in_plain_lines_with_units() -> None:
    """Every field, but for those that say the same again for programs, and empty ones."""
    assert "\n".join(lines(ANSWER)) == SHOWN


def test_no_field_of_the_answer_is_forgotten() -> None:
    """Each has its place above."""
    status = Status(0.0, "starting", healthy=False, reason=Reason.STARTING, since=0.0)
    assert describe(status, 1.0).keys() <= ANSWER.keys()


def test_what_is_empty_is_said_or_left_out() -> None:
    """A gateway that is starting: no tunnel, nothing tried, and why it is so."""
    starting = dict.fromkeys(ANSWER) | {
        "state": "connecting", "healthy": False, "state_age": 0.25, "reason": "no handshake",
        "detail": "UDP is blocked", "diagnosis": "no_answer", "attempts": 3, "reconnects": {},
        "remedy": "ask for it",
        "candidates": [], "candidate_count": 1, "limits": [], "addresses": [],
    }  # fmt: skip
    found = {line[:16].strip(): line[17:] for line in lines(starting)}
    assert found["state"] == "connecting for 250 ms"
    assert (found["detail"], found["remedy"]) == ("UDP is blocked", "ask for it")
    assert found["diagnosis"] == "no_answer"
    assert found["servers"] == "1 in the configuration; none was tried yet"
    assert found["attempts"] == "3 failed, one after the other"
    assert found["last handshake"] == "none yet"
    assert found["kernel compared"] == "not yet"
    assert (found["lost tunnels"], found["limits"], found["addresses"]) == ("none", "none", "-")
    assert {"open", "resolver", "last reload", "reloads"} & found.keys() == set()


def test_a_field_of_another_version_is_shown_as_it_is() -> None:
    """Under its name, in the last line."""
    assert lines({**ANSWER, "new_field": {"a": 1}})[-1] == "new field        a: 1"


def test_a_resolver_that_does_not_answer_has_its_problem_and_remedy() -> None:
    """In the first line about it."""
    down = ANSWER["resolver"] | {"problem": "killed", "remedy": "see the log"}
    assert "resolver         killed; see the log" in lines({**ANSWER, "resolver": down})


def test_times_and_sizes_have_the_units_that_people_use() -> None:
    """What is not a figure of ours is shown as it came."""
    times = (0.0612, 9.44, 59.4, 60, 3599, 3600, 86399, 90000, -1, 1e300, True, "x", None)
    assert list(map(seconds, times)) == [
        "61 ms", "9.4 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min",
        "1 d 1 h", "-1", "1e+300", "yes", "x", "-",
    ]  # fmt: skip
    sizes = (0, 9999, 10000, 1_234_567, 10**12, 10**30, -1, 1.5, True)
    assert list(map(size, sizes)) == [
        "0 bytes", "9999 bytes", "10.0 kB", "1.2 MB", "1.0 TB", f"{10**30}", "-1", "1.5", "yes",
    ]  # fmt: skip


def test_the_last_reading_of_the_configuration_is_shown_with_every_problem() -> None:
    """A line for each, and how many more there are; nothing that a terminal obeys."""
    found = {"problems": [{"variable": "X", "problem": "no; write yes"}, {"problem": CLEAR}]}
    assert of_reload({"needs_restart": ["A", "B"], "found": 4, **found}) == [
        "needs a restart: A, B",
        "X: no; write yes",
        visible(CLEAR),
        "and 2 more, which the log has",
    ]


HISTORY = {
    "transitions": [
        {"at": 1796035260.1, "state": "connecting", "healthy": False, "reason": "starting",
         "detail": None, "seconds": 0.0},
        {"at": 1796035260.4, "state": "connected", "healthy": True, "reason": "server_answers",
         "detail": None, "seconds": 0.3},
        {"at": 1796038860.4, "state": "connecting", "healthy": False, "reason": "server_silent",
         "detail": None, "seconds": 3600.0},
        {"at": 1796038868.4, "state": "connecting", "healthy": False, "reason": "no_handshake",
         "detail": "UDP is blocked", "seconds": 8.0},
    ],
    "samples": [
        {"at": 1796038800.0, "handshake_age": 110.5, "received": 5_000_000, "sent": 100},
        {"at": 1796038860.0, "handshake_age": None, "received": 7_000_000, "sent": 150},
        {"at": 1796038920.0, "handshake_age": 3.0, "received": 400, "sent": 40},
    ],
}  # fmt: skip


def test_the_history_is_shown_with_how_long_it_was_red() -> None:
    """All reasons in a row are one time without health; it ends with the next connection."""
    transitions, now = HISTORY["transitions"], 1796038900.4
    back = {"at": now, "state": "connected", "healthy": True, "reason": "server_answers"}
    shown = lines_of(HISTORY, now)
    assert shown == [
        "2026-11-30 10:41:00  connecting  starting",
        "2026-11-30 10:41:00  connected   server answers; it was red for 300 ms",
        "2026-11-30 11:41:00  connecting  server silent",
        "2026-11-30 11:41:08  connecting  no handshake: UDP is blocked; red for 40 s so far",
        "",
        "in 2 min 0 s: 2.0 MB received, 90 bytes sent; the oldest handshake was 1 min 50 s old",
    ]
    *_, last = lines_of({"transitions": [*transitions, back]}, now + 9)
    assert last == "2026-11-30 11:41:40  connected   server answers; it was red for 40 s"
    assert lines_of({"transitions": [], "samples": []}, now) == [NOTHING]
    first = {**HISTORY, "samples": HISTORY["samples"][:1]}
    assert lines_of(first, now) == shown[:4], "with one sample nothing is known of the traffic"


@pytest.mark.parametrize("value", [CLEAR, [CLEAR], {CLEAR: CLEAR}, 1e300, -1, [[]], [{}], True])
def test_no_history_of_another_program_breaks_the_terminal(value: object) -> None:
    """Nor does it end in an error, whatever is where."""
    names = ("at", "state", "healthy", "reason", "detail", "handshake_age", "received", "sent")
    each = dict.fromkeys(names, value)
    for answer in ({"transitions": value}, {"samples": value, "transitions": [each], "x": value},
                   {"transitions": [each, value], "samples": [each, value]}):  # fmt: skip
        assert all(line.isprintable() for line in lines_of(answer, 1.0))


@pytest.mark.parametrize(
    "value",
    [CLEAR, [CLEAR], {CLEAR: CLEAR}, [[CLEAR]], [{CLEAR: CLEAR}], 1e300, -1, True],
    ids=repr,
)
def test_every_kind_of_value_is_made_visible(value: object) -> None:
    """In every field, also what is nested, which Python writes in its own way."""
    for name in (*ANSWER, CLEAR):
        assert all(line.isprintable() for line in lines({**ANSWER, name: value})), name
    for name in ("reload", "resolver"):
        each = dict.fromkeys(ANSWER[name], value)
        assert all(line.isprintable() for line in lines({**ANSWER, name: each})), name
    for name in ("candidates", "holes", "limits"):
        each = dict.fromkeys(ANSWER[name][0], value)
        assert all(line.isprintable() for line in lines({**ANSWER, name: [each, value]})), name
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
    for module in (program, asking):
        monkeypatch.setattr(module, "TIME_LIMIT", 0.5)
    with server(byte_by_byte) as (port, _):
        monkeypatch.setenv("HEALTH_SERVER_ADDRESS", f"127.0.0.1:{port}")
        assert cli.main(["status"]) == 1
    said = capsys.readouterr()
    assert said.err == f"no complete answer within 0.5 s: 127.0.0.1:{port}\n"
    assert said.out == ""


def test_as_much_of_the_history_is_read_as_may_be_sent() -> None:
    """The largest one comes through; a workload in the gateway's place cannot send more."""
    assert asking.LARGEST[asking.HISTORY] == LARGEST_ANSWER


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ([], b"/healthz"), (["--json"], b"/healthz"), (["--history"], b"/history"),
        (["--history", "--json"], b"/history"), (["--hist"], b"/history"),
    ],
)  # fmt: skip
def test_options_choose_what_is_asked(
    options: list[str],
    path: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As text or as JSON; a history is fine whether or not the gateway is."""
    body = json.dumps(HISTORY if b"history" in path else ANSWER | {"healthy": False}).encode()
    with server(saying(HEAD + body)) as (port, requests):
        monkeypatch.setenv("HEALTH_SERVER_ADDRESS", f"127.0.0.1:{port}")
        code = cli.main(["status", *options])
    assert requests[0].startswith(b"GET " + path + b" HTTP/1.0\r\n")
    assert code == (0 if b"history" in path else 1)
    printed = capsys.readouterr().out
    if "--json" in options:
        assert json.loads(printed) == json.loads(body)
    else:
        assert ("server silent" in printed) == (b"history" in path)


@pytest.mark.parametrize("options", [["--nonsense"], ["--watch", "--json"], ["now"]])
def test_a_wrong_command_line_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the usual exit code, and what is wrong."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", *options])
    assert ended.value.code == 2
    assert "gateway status: error: " in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """And the list of commands has this one."""
    with pytest.raises(SystemExit):
        cli.main(["status", "--help"])
    said = capsys.readouterr().out
    assert {"--history", "--watch", "--json"} <= set(said.replace(",", " ").split())
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "show the state of the running gateway" in capsys.readouterr().out


def test_a_wrong_address_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not replaced by the default one, where another program may answer."""
    monkeypatch.setenv("HEALTH_SERVER_ADDRESS", "nonsense")
    assert cli.main(["status"]) == 1
    assert "HEALTH_SERVER_ADDRESS: must be an address and a port" in capsys.readouterr().err
