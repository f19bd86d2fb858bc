"""Lines for a reader who may not read: nobody else waits for him.

A pipe that nobody empties, a terminal that was halted and a disk that is full keep a write waiting
for as long as somebody else likes. So a thread of its own writes, and those who log only put lines
into a queue of a limited size. The descriptor is left as it is: other processes may share it, and
O_NONBLOCK would be theirs too (fcntl(2), open file descriptions).
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
"""What waits for the reader at most, in bytes. The oldest lines go when there is more."""

LAST_WORDS = 1.0
"""Seconds that the lines which wait get when the process ends."""

LONGEST_REST = 1 << 16
"""Characters without a line feed after which they are passed on as a line."""

AGAIN = 0.1
"""Seconds until a descriptor that others have made non-blocking is asked again."""


class LineWriter:
    """Writes lines to `descriptor`, in order; `told_lost(count)` is the line for those left out."""

    def __init__(
        self,
        descriptor: int,
        told_lost: Callable[[int], str],
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._told_lost = told_lost
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._is_idle = True
        self._changed = threading.Condition()

    def put(self, line: str) -> None:
        """Have `line` written, and the line feed after it; never waits and never raises."""
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
        """Wait until all is written, `seconds` at most; say whether it is."""
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
        """Start the thread where there is something to write; the lock is held."""
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
        """Write lines for as long as the descriptor takes them at once; the lock is held.

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
            if lost and not self._write(self._told_lost(lost).encode("utf-8", "replace") + b"\n"):
                self._lose(lost)
            if not self._write(line):
                self._lose(1)

    def _lose(self, lines: int) -> None:
        with self._changed:
            self._lost += lines

    def _write(self, data: bytes) -> bool:
        """Write `data` whole; False where it cannot be: the reader has gone, the disk is full."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], AGAIN)
            except OSError:
                return False
        return True


class Stream(io.TextIOBase):
    """A text stream whose lines go to `writer`, for those who know only files."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        self._rest = ""

    def writable(self) -> bool:
        """Say that one can write to it."""
        return True

    def write(self, text: str) -> int:
        """Pass on the lines that are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST_REST:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._writer.put(line)
        return len(text)


def lines_lost(lines: int) -> str:
    """Say in a plain line that some were lost."""
    return f"gateway: {lines} lines were lost: nobody read them"


def without_waiting(stream: TextIO, told_lost: Callable[[int], str] = lines_lost) -> TextIO:
    """Return a stream that writes where `stream` does, and whose users never wait.

    What is waiting when the interpreter ends gets LAST_WORDS. A `stream` that does not wait
    already, or that no descriptor belongs to, is returned itself.
    """
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream
    writer = LineWriter(descriptor, told_lost)
    atexit.register(writer.finish)
    return cast("TextIO", Stream(writer))
