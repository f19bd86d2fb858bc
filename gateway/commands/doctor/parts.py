"""The parts of a report: each has a limit of size, all together one of time.

A part is read on a thread of its own. One that hangs, on a file system or a program that does not
answer, is left behind: its thread ends with the process.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.commands.doctor.hiding import Hiding
from gateway.errors import GatewayError
from gateway.model.frozen import frozen

TIME_LIMIT = 10.0
"""Seconds that all parts may take together."""
LONGEST_LINE = 400
SIZE = 4000
"""Characters of a line, and of a part that has no other limit."""


@frozen
class Part:
    """A part: its title, and what yields its lines, which may raise anything."""

    title: str
    read: Callable[[], Iterable[str]]
    size: int = SIZE


@dataclass
class _Reading:
    """A part that is being read: what has been found so far."""

    part: Part
    hiding: Hiding
    lines: list[str] = field(default_factory=list)
    thread: threading.Thread | None = None

    def run(self) -> None:
        """Read the part up to its limit."""
        left = self.part.size
        try:
            for text in self.part.read():
                for each in text.splitlines() or [""]:
                    line = shortened(self.hiding.line(each))
                    left -= len(line) + 1
                    if left < 0:
                        self.lines.append(f"(longer than {self.part.size} characters: cut here)")
                        return
                    self.lines.append(line)
        except Exception as err:  # noqa: BLE001 - the other parts are there all the same
            self.lines.append(f"(could not be read: {self._problem(err)})")

    def _problem(self, error: Exception) -> str:
        kind = "" if isinstance(error, GatewayError) else f"{type(error).__name__}: "
        return shortened(self.hiding.line(f"{kind}{error}"))


def shortened(line: str) -> str:
    """Return the line, or its beginning and how much is missing."""
    more = len(line) - LONGEST_LINE
    return f"{line[:LONGEST_LINE]}... ({more} more characters)" if more > 0 else line


def text_of(parts: Iterable[Part], hiding: Hiding, limit: float = TIME_LIMIT) -> Iterator[str]:
    """Yield the lines of all parts in order, those of each as soon as it is read."""
    deadline = time.monotonic() + limit
    readings = [_Reading(part, hiding) for part in parts]
    for reading in readings:
        _start(reading)
    for reading in readings:
        yield from ("", f"## {reading.part.title}", "")
        if reading.thread:
            reading.thread.join(max(0.0, deadline - time.monotonic()))
        late = reading.thread is not None and reading.thread.is_alive()
        yield from list(reading.lines)
        if late:
            yield f"(could not be read to its end within {limit:g} s)"


def _start(reading: _Reading) -> None:
    thread = threading.Thread(target=reading.run, daemon=True)
    try:
        thread.start()
    except RuntimeError as err:  # what threading makes of EAGAIN
        reading.lines.append(f"(could not be read: {err})")
    else:
        reading.thread = thread
