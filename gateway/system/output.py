"""What a child writes to its standard output and error: whole lines, of a limited length and rate.

A program that floods its output must fill neither the memory nor the log, and must not keep the
loop busy. It must not be halted either, because wireguard-go carries the tunnel: so the pipe is
always emptied, at a limited speed, and the lines that are too many are counted and dropped.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_LINE = 4096
"""Bytes after which a line is passed on though it has not ended."""
PIPE_HOLDS = 1 << 16
"""Bytes that a pipe holds at most (pipe(7)): what can be left in it when its writer has ended."""
LINES_AT_ONCE = 200
LINES_PER_SECOND = 20.0
"""How many lines are passed on at once, and how many more for each second after that."""
PAUSE = 0.02
"""Seconds in which the pipe of a program that writes too much is not read."""
LAST_LINES = 3
"""How many of the last lines are kept, to say why a program ended."""


class Output:
    """Reads a pipe and passes lines to `on_line`; to be used on the loop.

    `last` has the last lines, also those that were not passed on.
    """

    def __init__(self, pipe: int, on_line: Callable[[str], None]) -> None:
        """Read from the descriptor `pipe`, which must not block, and close it at the end."""
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._on_line = on_line
        self._rest = b""
        self._is_open = True
        self._allowed = float(LINES_AT_ONCE)
        self._counted_at = self._loop.time()
        self._dropped = 0
        self._loop.add_reader(pipe, self._read)

    def finish(self) -> None:
        """Pass on what is there, and close the pipe.

        Other processes may hold its other end for as long as they like.
        """
        for _ in range(PIPE_HOLDS // LONGEST_LINE):
            if not self._read():
                break
        self.close()

    def _read(self) -> bool:
        """Pass on some of what is there; return whether there was anything."""
        if not self._is_open:
            return False
        try:
            data = os.read(self._pipe, LONGEST_LINE)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        self._pass_on(lines)
        if not data:
            self.close()
        elif self._dropped:
            self._loop.remove_reader(self._pipe)
            self._loop.call_later(PAUSE, self._resume)
        return bool(data)

    def _resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._pipe, self._read)

    def close(self) -> None:
        """Pass on what has been read, and close the pipe."""
        if self._is_open:
            self._is_open = False
            self._pass_on([self._rest])
            self._report_dropped()
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)

    def _pass_on(self, lines: list[bytes]) -> None:
        """Pass on as many of `lines` as the rate allows, and keep the last ones."""
        lines = [line for line in lines if line]
        now = self._loop.time()
        earned = (now - self._counted_at) * LINES_PER_SECOND
        self._allowed = min(float(LINES_AT_ONCE), self._allowed + earned)
        self._counted_at = now
        passed = lines[: int(self._allowed)]
        if passed:
            self._report_dropped()
        for line in passed:
            self.last.append(_text(line))
            self._on_line(self.last[-1])
        self._allowed -= len(passed)
        dropped = lines[len(passed) :]
        self._dropped += len(dropped)
        self.last.extend(map(_text, dropped[-LAST_LINES:]))

    def _report_dropped(self) -> None:
        if self._dropped:
            self._on_line(f"({self._dropped} lines were left out: too many)")
            self._dropped = 0


@contextmanager
def piped(on_line: Callable[[str], None]) -> Iterator[tuple[Output, int]]:
    """Yield what passes lines on, and the end of its pipe for a process that is to be started.

    Nothing is left open if that fails. Raises OSError.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    output: Output | None = None
    try:
        # Our end alone: a child whose own end did not block would fail once the pipe is full.
        os.set_blocking(read_end, False)
        output = Output(read_end, on_line)  # before the child: nothing may fail once it runs
        yield output, write_end
    except BaseException:
        output.close() if output else os.close(read_end)
        raise
    finally:
        os.close(write_end)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()
