"""`gateway status --watch`: the status again and again, until a signal ends it.

On a terminal each picture is written over the one before, in one piece and without clearing the
screen, so that it does not flicker. Elsewhere each second is one line.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from gateway.commands.asking import NoAnswer, ask, visible
from gateway.commands.exit_codes import OK
from gateway.commands.showing import ago, lines, seconds, shown, size

EVERY = 1.0
"""Seconds from one picture to the next."""

BEGIN = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""Another screen, without a cursor, on which long lines are cut (xterm's control sequences)."""
END = "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME, TO_END_OF_LINE, TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
AGAIN = "it is asked again each second"


def watch(host: str, port: int) -> int:
    """Show the status of the gateway at `host` and `port` each second, and return when ended.

    SIGINT, SIGTERM, and a reader of the output that goes away end it; all of them are OK.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    view: Screen | Lines = Screen() if sys.stdout.isatty() else Lines()
    try:
        view.begin()
        with suppress(KeyboardInterrupt, BrokenPipeError):
            _follow(host, port, view)
    finally:
        view.end()
    return OK


def _follow(host: str, port: int, view: "Screen | Lines") -> None:
    """Ask and show until an exception ends it."""
    gone_since: float | None = None
    while True:
        began = time.monotonic()
        try:
            answered = ask(host, port)
        except NoAnswer as err:
            gone_since = began if gone_since is None else gone_since
            view.show_gone(visible(str(err)), time.monotonic() - gone_since)
        else:
            view.show(answered)
            gone_since = None
        time.sleep(max(0.0, began + EVERY - time.monotonic()))


class Screen:
    """A terminal."""

    def begin(self) -> None:
        """Take the screen."""
        _write(BEGIN)

    def end(self) -> None:
        """Give it back as it was."""
        _write(END)

    def show(self, answered: Mapping[str, object]) -> None:
        """Show a status."""
        self._draw(["gateway status, each second; Ctrl-C ends it", "", *lines(answered)])

    def show_gone(self, problem: str, since: float) -> None:
        """Show that the gateway has not answered for so many seconds, and why not."""
        self._draw([f"no answer for {seconds(since)}; {AGAIN}", "", problem])

    @staticmethod
    def _draw(rows: list[str]) -> None:
        height = os.get_terminal_size(sys.stdout.fileno()).lines or len(rows)
        if len(rows) > height:
            left = len(rows) - height + 1
            rows = [*rows[: height - 1], f"and {left} more lines, for which the window is too low"]
        _write(HOME + f"{TO_END_OF_LINE}\r\n".join(rows) + TO_END_OF_LINE + TO_END_OF_SCREEN)


class Lines:
    """A file or a pipe: one line for each second, and one for each time that the gateway goes."""

    def __init__(self) -> None:
        self._is_gone = False

    def begin(self) -> None:
        """Do nothing: lines need no preparation."""

    def end(self) -> None:
        """Do nothing."""

    def show(self, answered: Mapping[str, object]) -> None:
        """Write a status."""
        self._is_gone = False
        get = answered.get
        health = "healthy" if get("healthy") is True else "not healthy"
        handshake = ago(get("handshake_age"), "none yet")
        self._line(
            f"{shown(get('state'))}, {health}: {shown(get('reason'))}; last handshake {handshake}, "
            f"{size(get('received'))} received, {size(get('sent'))} sent"
        )

    def show_gone(self, problem: str, since: float) -> None:
        """Write once that the gateway does not answer, and why not."""
        if not self._is_gone:
            self._line(f"{problem}; {AGAIN}")
        self._is_gone = True
        del since

    @staticmethod
    def _line(text: str) -> None:
        _write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")


def _write(text: str) -> None:
    """Write `text` to the standard output at once. Raises BrokenPipeError."""
    left = text.encode("utf-8", "backslashreplace")
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]
