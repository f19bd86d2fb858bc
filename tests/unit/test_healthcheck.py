"""The program behind Docker's HEALTHCHECK: one line, one exit code, for every reply."""

import ast
import json
import os
import py_compile
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthcheck import __main__ as program
from healthcheck.__main__ import (
    LONGEST_LINE,
    TIME_LIMIT,
    Unhealthy,
    judge,
    one_line,
    parse,
    parse_address,
)

SOURCE = Path(__file__).resolve().parents[2] / "healthcheck" / "__main__.py"
Run = Callable[[str | None], subprocess.CompletedProcess[str]]
HEALTHY = b'HTTP/1.1 200 OK\r\n\r\n{"state": "connected", "reason": ""}'


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the program as the image has it: a compiled file."""
    path = str(tmp_path_factory.mktemp("image") / "healthcheck.pyc")
    return str(py_compile.compile(str(SOURCE), path, doraise=True))


@pytest.fixture
def run(compiled: str) -> Run:
    """Start the program as Docker does, with an address in the variable unless it is None."""

    def start(address: str | None) -> subprocess.CompletedProcess[str]:
        return started([sys.executable, "-I", "-S", compiled], address)

    return start


def started(argv: list[str], address: str | None) -> subprocess.CompletedProcess[str]:
    """Start a command with `address` in the variable unless it is None."""
    environment = {"PATH": os.environ["PATH"]}
    if address is not None:
        environment["HEALTH_SERVER_ADDRESS"] = address
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        cwd=SOURCE.parents[1],
        env=environment,
        timeout=30,
    )


@contextmanager
def server(
    answer: Callable[[socket.socket], None], host: str = "127.0.0.1"
) -> Iterator[tuple[int, list[bytes]]]:
    """Serve one connection by calling `answer`; yields the port and the requests seen."""
    requests: list[bytes] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(4096))
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], requests
        thread.join(10)


def saying(reply: bytes) -> Callable[[socket.socket], None]:
    """Answer every request with `reply`."""
    return lambda connection: connection.sendall(reply)


def assert_one_line(done: subprocess.CompletedProcess[str]) -> None:
    """Check what holds for every run: one line on standard output, nothing anywhere else."""
    assert done.stderr == ""
    assert done.stdout.endswith("\n")
    assert done.stdout.count("\n") == 1


def test_a_healthy_gateway_gives_exit_code_0(run: Run) -> None:
    """A 200 with the gateway's state is healthy, and the line repeats state and reason."""
    reply = b'HTTP/1.1 200 OK\r\n\r\n{"state": "connected", "reason": "handshake 3 s ago"}'
    with server(saying(reply)) as (port, requests):
        done = run(f"127.0.0.1:{port}")
    assert done.stdout == "healthy: connected: handshake 3 s ago\n"
    assert done.returncode == 0
    assert requests[0].startswith(b"GET /healthz HTTP/1.0\r\n")


def test_a_gateway_that_is_not_healthy_gives_exit_code_1_and_its_reason(run: Run) -> None:
    """A 503 carries state and reason into the line that `docker inspect` shows."""
    reply = b'HTTP/1.1 503 x\r\n\r\n{"state": "connecting", "reason": "no handshake yet"}'
    with server(saying(reply)) as (port, _):
        done = run(f"127.0.0.1:{port}")
    assert done.stdout == "unhealthy: connecting: no handshake yet\n"
    assert done.returncode == 1


def test_the_line_of_an_unhealthy_gateway_has_the_cause_and_the_remedy(run: Run) -> None:
    """A person finds them without a look into the log."""
    more = b'"state": "locked", "reason": "x", "detail": "no table", "remedy": "load it"'
    with server(saying(b"HTTP/1.1 503 x\r\n\r\n{" + more + b"}")) as (port, _):
        done = run(f"127.0.0.1:{port}")
    assert done.stdout == "unhealthy: locked: x; no table; load it\n"


@pytest.mark.parametrize("address", [None, ""])
def test_without_the_variable_the_default_address_is_asked(run: Run, address: str | None) -> None:
    """An unset and an empty variable both mean 127.0.0.1:9999."""
    done = run(address)
    assert_one_line(done)
    assert "127.0.0.1 port 9999" in done.stdout or done.returncode == 0


def test_a_gateway_that_does_not_listen_is_unhealthy_and_the_line_says_so(run: Run) -> None:
    """A refused connection names the address and asks whether the gateway runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run(f"127.0.0.1:{port}")
    assert_one_line(done)
    assert done.returncode == 1
    assert f"127.0.0.1 port {port}: Connection refused" in done.stdout


@pytest.mark.parametrize(
    "listening", ["0.0.0.0:{port}", ":{port}", "localhost:{port}", '"127.0.0.1:{port}"']
)
def test_a_server_on_every_address_is_asked_on_loopback(run: Run, listening: str) -> None:
    """A server on an unspecified address is asked at 127.0.0.1."""
    with server(saying(HEALTHY)) as (port, _):
        assert run(listening.format(port=port)).returncode == 0


@pytest.mark.parametrize("listening", ["[::]:{port}", "[::1]:{port}"])
def test_ipv6_works_as_ipv4_does(run: Run, listening: str) -> None:
    """An IPv6 address is in brackets; the unspecified one is asked at ::1."""
    with server(saying(HEALTHY), "::1") as (port, _):
        assert run(listening.format(port=port)).returncode == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9999", ("127.0.0.1", 9999)),
        ("10.1.2.3:1", ("10.1.2.3", 1)),
        (":65535", ("127.0.0.1", 65535)),
        ("0.0.0.0:80", ("127.0.0.1", 80)),
        ("[::]:80", ("::1", 80)),
        ("[fe80::1]:80", ("fe80::1", 80)),
    ],
)
def test_every_form_of_an_address_is_understood(text: str, expected: tuple[str, int]) -> None:
    """`host:port`, `[v6]:port` and `:port` are what the gateway's own variable takes."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "9999",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:80x",
        "127.0.0.1:-1",
        "127.0.0.1:1_0",
        ":" + "9" * 5000,
        "::1:9999",
        "[127.0.0.1]:1",
        "gateway.example:1",
        "1\0:80",
    ],
)
def test_a_malformed_address_is_unhealthy_and_the_line_names_the_variable(text: str) -> None:
    """The error has the variable's name and the forms that work."""
    with pytest.raises(Unhealthy, match=r"^HEALTH_SERVER_ADDRESS: must be .* like 127"):
        parse_address(text)


def test_a_malformed_variable_ends_in_one_line_and_exit_code_1(run: Run) -> None:
    """The whole program, not only its parser, survives a wrong variable."""
    done = run("nonsense\n:80")
    assert_one_line(done)
    assert done.returncode == 1
    assert done.stdout.startswith("unhealthy: HEALTH_SERVER_ADDRESS: ")


def trickle(connection: socket.socket) -> None:
    """Send one byte at a time for longer than the check may take."""
    for _ in range(100):
        try:
            connection.sendall(b"H")
        except OSError:
            return
        time.sleep(0.1)


def hang(connection: socket.socket) -> None:
    """Accept the request and never answer; return when the other side gives up."""
    connection.recv(1)


@pytest.mark.parametrize("behaviour", [trickle, hang])
def test_a_server_that_never_finishes_is_given_up_after_the_time_limit(
    behaviour: Callable[[socket.socket], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The limit covers the whole check, not each read; here it is shorter."""
    limit = 0.4
    monkeypatch.setattr(program, "TIME_LIMIT", limit)
    with server(behaviour) as (port, _):
        address = f"127.0.0.1:{port}".encode()
        monkeypatch.setitem(program.environ, b"HEALTH_SERVER_ADDRESS", address)
        started = time.monotonic()
        code = program.main()
        took = time.monotonic() - started
    said = capsys.readouterr()
    assert code == 1
    assert said.out == f"unhealthy: 127.0.0.1 port {port}: no answer within {limit:g} s\n"
    assert said.err == ""
    assert limit <= took < limit + 2


def test_the_check_gives_up_before_docker_gives_the_check_up() -> None:
    """Docker's own limit would leave no reason; the image sets it to more than ours."""
    text = (SOURCE.parents[1] / "Dockerfile").read_text(encoding="utf-8")
    timeout = re.search(r"^HEALTHCHECK.*--timeout=(\d+)s", text, re.MULTILINE)
    assert timeout
    assert int(timeout[1]) >= TIME_LIMIT + 1


def flood(connection: socket.socket) -> None:
    """Send without end."""
    try:
        while True:
            connection.sendall(b"x" * 65536)
    except OSError:
        return


def test_an_endless_reply_is_cut_off(run: Run) -> None:
    """Memory and time are limited for any program on the port."""
    with server(flood) as (port, _):
        done = run(f"127.0.0.1:{port}")
    assert_one_line(done)
    assert done.returncode == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nOK",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60000,
        b'HTTP/1.1 200 OK\r\n\r\n{"state": "connected", "age": NaN}',
        b'HTTP/1.1 200 OK\r\n\r\n{"state": "connected"} {}',
        b"HTTP/1.1 200 OK\r\n\r\n{'state': 'connected'}",
        b"HTTP/1.1 200 OK\r\n\r\n" + '{"state": "connected"}'.encode("utf-16"),
        b'SSH-2.0\r\n\r\n{"state": "connected"}',
        b'HTTP/1.1 \r\n\r\n{"state": "connected"}',
        b'HTTP/1.1 204 No Content\r\n\r\n{"state": "connected"}',
    ],
)
def test_a_reply_that_is_not_the_gateways_is_unhealthy(reply: bytes) -> None:
    """Another program on the port never counts as healthy, even if it answers 200."""
    with pytest.raises(Unhealthy):
        judge(reply)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=8,
)


@given(value=JSON, around=st.sampled_from(["", " ", "\r\n\t "]), plain=st.booleans())
def test_every_json_text_is_read_as_the_library_reads_it(
    *, value: object, around: str, plain: bool
) -> None:
    """Escapes, numbers and whitespace included."""
    text = around + json.dumps(value, ensure_ascii=plain) + around
    try:
        body = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair is not UTF-8
        return
    assert parse(body) == json.loads(body) == value


@given(st.binary(max_size=60) | st.text('[]{},:"\\u0a1.e-+ntrueNI \n').map(str.encode))
def test_what_the_library_refuses_is_refused(body: bytes) -> None:
    """The parser is as strict as `json.loads`."""
    try:
        json.loads(body)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - any of the parser's errors
            parse(body)


@given(st.binary(max_size=300))
def test_no_reply_makes_anything_but_a_verdict(reply: bytes) -> None:
    """For any reply, the outcome is a text or Unhealthy, never another exception."""
    for text in (reply, b"HTTP/1.1 200 OK\r\n\r\n" + reply):
        try:
            assert isinstance(judge(text), str)
        except Unhealthy:
            continue


@given(st.text())
def test_no_address_makes_anything_but_a_verdict(text: str) -> None:
    """For any value of the variable, the outcome is an address or Unhealthy."""
    try:
        host, port = parse_address(text)
    except Unhealthy:
        return
    assert host
    assert 1 <= port <= 65535


@given(st.text())
def test_every_text_becomes_one_short_line(text: str) -> None:
    """A reason with line ends, escape sequences or without an end cannot disturb a log."""
    line = one_line(text)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= LONGEST_LINE


def test_the_image_runs_the_compiled_program_without_site() -> None:
    """What is measured and tested here is what Docker starts."""
    text = (SOURCE.parents[1] / "Dockerfile").read_text(encoding="utf-8")
    command = re.search(r"^HEALTHCHECK.*\n +CMD (\[.*\])", text, re.MULTILINE)
    assert command
    assert json.loads(command[1])[1:] == ["-I", "-S", "/opt/portcullis/healthcheck.pyc"]


@pytest.mark.parametrize("argv", [["-m", "healthcheck"], [str(SOURCE)]])
def test_it_can_be_started_as_a_module_and_as_a_file(argv: list[str]) -> None:
    """For `docker exec`, and for health checks in compose files of earlier versions."""
    with server(saying(HEALTHY)) as (port, _):
        done = started([sys.executable, *argv], f"127.0.0.1:{port}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "healthy: connected\n", "")


def imported(*argv: str) -> set[str]:
    """Return the modules that a command imports, those of the interpreter's start included."""
    done = started([sys.executable, "-I", "-S", "-X", "importtime", *argv], "127.0.0.1:1")
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_run_loads_two_modules_more_than_an_empty_program(compiled: str) -> None:
    """It runs every five seconds for months, and imports take most of the time of a program."""
    bare = imported("-c", "pass")
    assert {"io", "encodings"} <= bare
    assert imported(compiled) - bare == {"_json", "_socket"}


def test_it_imports_little_and_nothing_of_the_gateway() -> None:
    """It starts every few seconds: only cheap modules of the standard library are imported."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    imported = {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"_json", "_socket", "posix", "time"}
