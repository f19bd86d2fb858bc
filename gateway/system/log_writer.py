"""Writes lines to a descriptor whose reader may be slow, without a wait for those who log.

A write to a pipe that is not read, to a terminal that was halted or to a full disk can block for
any time. So a thread of its own writes, and logging only puts lines into a queue of a limited size.
The flags of the descriptor stay as they are: other processes may share it, and O_NONBLOCK would
apply to them too (fcntl(2), open file descriptions).
"""

import atexit
import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO, cast

MOST_BYTES = 1 << 20
"""The size of the queue in bytes. When there is more, the oldest lines are dropped."""

LAST_WORDS = 1.0
"""Seconds in which the queue is written when the process ends."""

LONGEST_REST = 1 << 16
"""Characters without a line feed that count as a line."""

AGAIN = 0.1
"""Seconds between two tries to write to a descriptor that another process made non-blocking."""


class LineWriter:
    """Writes lines to `descriptor`, in order; `lost_line(count)` is the line for dropped ones."""

    def __init__(
        self,
        descriptor: int,
        lost_line: Callable[[int], str],
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._lost_line = lost_line
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._is_idle = True
        self._changed = threading.Condition()

    def put(self, line: str) -> None:
        """Queue `line`, to be written with a line feed; never waits and never raises."""
        data = line.encode("utf-8", "replace") + b"\n"
        with self._changed:
            self._lines.append(data)
            self._waiting += len(data)
            while self._waiting > self._most_bytes:
                self._waiting -= len(self._lines.popleft())
                self._lost += 1
            self._changed.notify_all()
            self._start()

    def finish(self, seconds: float = LAST_WORDS) -> bool:
        """Wait until the queue is empty, `seconds` at most; return whether it is."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._start()
            while self._lines or not self._is_idle:
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None:
                    return False
                self._changed.wait(left)
        return True

    def _start(self) -> None:
        """Start the thread if there is something to write; the lock is held."""
        if self._thread is not None or not self._lines:
            return
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there can be no more threads now; the next line tries again
            self._write_what_fits()
        else:
            self._thread = thread

    def _write_what_fits(self) -> None:
        """Write lines as long as the descriptor takes them without blocking; the lock is held.

        A pipe that select(2) calls writable has room for one page (fs/pipe.c, pipe_poll).
        """
        while self._lines and select.select([], [self._descriptor], [], 0)[1]:
            line = self._lines.popleft()
            self._waiting -= len(line)
            try:
                rest = line[os.write(self._descriptor, line[: select.PIPE_BUF]) :]
            except OSError:
                self._lost += 1
                continue
            if rest:
                self._lines.appendleft(rest)
                self._waiting += len(rest)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_idle = True
                self._changed.notify_all()
                while not self._lines:
                    self._changed.wait()
                self._is_idle = False
                lost, self._lost = self._lost, 0
                line = self._lines.popleft()
                self._waiting -= len(line)
            if lost and not self._write(self._lost_line(lost).encode("utf-8", "replace") + b"\n"):
                self._lose(lost)
            if not self._write(line):
                self._lose(1)

    def _lose(self, lines: int) -> None:
        with self._changed:
            self._lost += lines

    def _write(self, data: bytes) -> bool:
        """Write all of `data`; return False if the reader is gone or the disk is full."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], AGAIN)
            except OSError:
                return False
        return True


class Stream(io.TextIOBase):
    """A text stream whose lines go to `writer`, for code that needs a file."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        self._rest = ""

    def writable(self) -> bool:
        """Return True, as a stream that can be written to does."""
        return True

    def write(self, text: str) -> int:
        """Pass on the complete lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST_REST:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._writer.put(line)
        return len(text)

    def finish(self) -> None:
        """Wait until the lines are written, as long as at the end of the interpreter."""
        self._writer.finish()


def lines_lost(lines: int) -> str:
    """Return a plain line that says how many lines were lost."""
    return f"gateway: {lines} lines were lost, because the output was not read"


def without_waiting(stream: TextIO, lost_line: Callable[[int], str] = lines_lost) -> TextIO:
    """Return a stream that writes to the descriptor of `stream` and never waits.

    When the interpreter ends, the queue is written for up to LAST_WORDS seconds. A `stream` without
    a descriptor, or one that never waits already, is returned as it is.
    """
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    writer = LineWriter(descriptor, lost_line)
    atexit.register(writer.finish)
    return cast("TextIO", Stream(writer))
