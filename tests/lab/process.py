"""Child processes of the lab: started with a log file, ended for certain."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.lab.errors import LabError

T = TypeVar("T")

PATIENCE = float(os.environ.get("LAB_PATIENCE", "1"))
"""Factor on every time limit: an emulated guest is an order of magnitude slower."""

SLACK = 2.0
"""Seconds that a promised time may be exceeded by for each time that PATIENCE is more than 1."""


def promised(seconds: float) -> float:
    """Return the seconds within which something is to happen that protocols' own timers decide.

    A slow machine makes them a little later, and not many times as long.
    """
    return seconds + SLACK * (PATIENCE - 1)


def run(argv: Sequence[str], *, stdin: str = "", check: bool = True) -> str:
    """Run a short command to its end and return its standard output.

    Raises LabError with the command's messages when it fails and `check` is set.
    """
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, timeout=30 * PATIENCE
    )
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def eventually(
    attempt: Callable[[], T | None], *, timeout: float, what: str, interval: float = 0.01
) -> T:
    """Call `attempt` until it returns something true, and return that.

    `timeout` is in seconds (times PATIENCE). Raises LabError naming `what` when time is up.
    """
    deadline = time.monotonic() + timeout * PATIENCE
    while not (result := attempt()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout * PATIENCE:g} s for {what}")
        time.sleep(interval)
    return result


class Child:
    """One long-lived process; its output goes to a file, its standard input is a pipe.

    The helpers of the lab end when that pipe closes, so that they do not outlive a test run
    that was killed.
    """

    def __init__(
        self, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `argv`, appending both output streams to `log`."""
        self.argv = list(argv)
        self.log = log
        self.started_at = time.monotonic()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id as this machine sees it."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal, None while the process runs."""
        return self._popen.poll()

    def output(self) -> str:
        """Everything that the process has written so far."""
        return self.log.read_text(errors="replace")

    def send(self, line: str) -> None:
        """Write one line to the standard input of the process."""
        if self._popen.stdin is None:
            raise LabError("the standard input is closed")
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended is not an error."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = 10) -> int:
        """Wait for the end and return the exit code; LabError when it does not come."""
        try:
            return self._popen.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired as err:
            raise LabError(f"{self.argv} still runs after {timeout:g} s:\n{self.output()}") from err

    def wait_for(self, text: str, timeout: float = 10) -> None:
        """Wait until the words `text` are in the output; LabError when the process ends before."""
        words = re.compile(rf"\b{re.escape(text)}\b")  # `ready`, and not `already in use`

        def seen() -> bool:
            if self.exit_code is not None and not words.search(self.output()):
                raise LabError(f"{self.argv} ended with {self.exit_code}:\n{self.output()}")
            return bool(words.search(self.output()))

        eventually(seen, timeout=timeout, what=f"{text!r} from {self.argv}", interval=0.003)

    def close(self, timeout: float = 2) -> None:
        """End the process, with SIGKILL if it does not leave by itself, and reap it."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(timeout * PATIENCE)
            except subprocess.TimeoutExpired:
                self._popen.send_signal(signal.SIGKILL)
                self._popen.wait()
        if self._popen.stdin is not None:
            # A child that left early breaks the pipe; nothing more is to be sent.
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()


class Household:
    """The directory and all child processes of one lab, ended together."""

    def __init__(self, name: str) -> None:
        """Make the directory; its name begins with `name`."""
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._files = 0

    def file(self, name: str) -> Path:
        """Return a path in the directory that no other caller gets."""
        with self._lock:
            self._files += 1
            return self.directory / f"{self._files:03}-{name}"

    def start(
        self,
        argv: Sequence[str],
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> Child:
        """Start a child whose log has `name` in its own, or is appended to `log`."""
        child = Child(argv, log or self.file(f"{name}.log"), env=env)
        with self._lock:
            self._children.append(child)
        return child

    def close(self) -> None:
        """End every child, the youngest first, and remove the directory."""
        for child in reversed(self._children):
            child.close()
        shutil.rmtree(self.directory, ignore_errors=True)
