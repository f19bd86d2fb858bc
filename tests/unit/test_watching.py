"""`gateway status --watch`: on a terminal, in a pipe, and while the gateway is gone."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.commands.watching import BEGIN, END, HOME

PROJECT = Path(__file__).resolve().parents[2]
HEALTHY = {"state": "connected", "healthy": True, "reason": "the server answers", "received": 5}
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the command also where the tests run in the background, which ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Served:
    """A gateway's port, behind which something answers while it is open."""

    def __init__(self) -> None:
        """Take a port, and answer there."""
        self.body: dict[str, object] = dict(HEALTHY)
        self.asked = 0
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.open()

    def open(self) -> None:
        """Answer from now on."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                self.asked += 1
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(self.body).encode())


class Watching:
    """The command, and what it has written so far."""

    def __init__(self, port: int, output: int, write_end: int) -> None:
        """Start the command with `write_end` as its output, which is read at `output`."""
        self._output = output
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "status", "--watch"],
            stdin=subprocess.DEVNULL, stdout=write_end, stderr=write_end, cwd=PROJECT,
            env={"PATH": os.environ["PATH"], "HEALTH_SERVER_ADDRESS": f"127.0.0.1:{port}"},
        )  # fmt: skip
        os.close(write_end)

    def read(self, seconds: float = 0.1) -> str:
        """Read for a while, and return everything so far."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._output], [], [], left)[0]:
                try:
                    part = os.read(self._output, 65536)
                except OSError:  # the end, on a terminal
                    break
                if not part:
                    break
                self.text += part.decode()
        return self.text

    def wait_for(self, pattern: str) -> None:
        """Wait until `pattern` has been written since the last call, and forget what was."""
        until = time.monotonic() + PATIENCE
        while not re.search(pattern, self.read(), re.DOTALL):
            assert time.monotonic() < until, f"{pattern!r} is not in {self.text!r}"
        self.text = ""

    def end(self, number: int) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.read()
        return code


@pytest.fixture
def gateway() -> Iterator[Served]:
    """Return a port with something behind it."""
    served = Served()
    yield served
    served.close()


@contextmanager
def watching(port: int, ends: tuple[int, int]) -> Iterator[Watching]:
    """Yield the command with these ends of a pipe or of a terminal."""
    found = Watching(port, *ends)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()
        os.close(ends[0])


def terminal(rows: int = 24) -> tuple[int, int]:
    """Return both ends of a terminal with so many rows."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (rows, 80))
    return ours, its


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_drawn_over_each_second_and_given_back(gateway: Served, number: int) -> None:
    """One clearing at the start, then each picture begins at the top and is written at once."""
    with watching(gateway.port, terminal()) as seen:
        seen.wait_for(re.escape(BEGIN) + re.escape(HOME) + ".*received +5 bytes")
        began = time.monotonic()
        gateway.body["received"] = 6
        seen.wait_for(re.escape(HOME) + ".*received +6 bytes")
        seen.wait_for(re.escape(HOME))
        assert time.monotonic() - began > 0.5, "about one picture for each second"
        assert seen.end(number) == 0
        assert "\x1b[2J" not in seen.text, "nothing was cleared in between"
        assert seen.text.endswith(END)


def test_a_low_terminal_shows_the_first_lines_and_how_many_are_left(gateway: Served) -> None:
    """More lines would scroll the picture away."""
    with watching(gateway.port, terminal(rows=6)) as seen:
        seen.wait_for(r"and \d+ more lines")
        seen.wait_for(re.escape(HOME))
        seen.wait_for(r"and \d+ more lines")
        last = seen.read(1.5).split(HOME)[-1]
        assert last.count("\r\n") < 6


def test_a_pipe_gets_a_line_for_each_second(gateway: Served) -> None:
    """Without anything for a terminal."""
    with watching(gateway.port, os.pipe()) as seen:
        line = r"\d\d:\d\d:\d\d connected, healthy: the server answers; .*5 bytes received.*\n"
        seen.wait_for(line)
        gateway.body.update(healthy=False, reason="no handshake")
        seen.wait_for("connected, not healthy: no handshake")
        assert seen.end(signal.SIGTERM) == 0
        assert "\x1b" not in seen.text


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_it_continues_when_the_gateway_comes_back(gateway: Served, kind: str) -> None:
    """Meanwhile it says that nothing answers, and shows nothing that may be old."""
    with watching(gateway.port, terminal() if kind == "terminal" else os.pipe()) as seen:
        seen.wait_for("connected")
        gateway.close()
        seen.wait_for("no answer from the gateway")
        seen.read(2.5)
        assert "connected" not in seen.text
        if kind == "pipe":
            assert seen.text == "", "once is enough"
        else:
            assert re.search(r"no answer for [12]\.\d s", seen.text)
        gateway.open()
        seen.wait_for("connected")
        assert seen.end(signal.SIGINT) == 0


def test_a_reader_that_goes_away_ends_it(gateway: Served) -> None:
    """As with `| head -1`: without an error message."""
    command = f"{sys.executable} -m gateway status --watch | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HEALTH_SERVER_ADDRESS": f"127.0.0.1:{gateway.port}"},
        timeout=PATIENCE,
    )  # fmt: skip
    line, code = done.stdout.splitlines()
    assert "connected" in line
    assert (code, done.stderr) == ("0", "")
