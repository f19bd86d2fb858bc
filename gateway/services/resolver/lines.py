"""What the gateway's own resolver writes: its lines, and what they say about certificates."""

import re
from collections.abc import Callable

import structlog

REFUSED = "certificate verify failed"
"""What it writes when a certificate is not the right one."""
REFUSED_FOR = 60.0
"""Seconds for which a refused certificate is reported, and between two lines about it."""
LONGEST = 300
"""Characters of what it writes that are passed on."""

_STAMP = re.compile(r"\[\d+\] unbound\[\d+:\d+\] ")
"""What its lines begin with: the time and the process."""


def plain(text: str) -> str:
    """Return a text with lines of it, without their stamps."""
    return _STAMP.sub("", text)


class Lines:
    """Passes on what it writes; `asked` returns who it asks, for people."""

    def __init__(self, clock: Callable[[], float], asked: Callable[[], str]) -> None:
        self._clock = clock
        self._asked = asked
        self._log = structlog.get_logger()
        self._refused_at = float("-inf")

    @property
    def is_refused(self) -> bool:
        """Whether it has refused a certificate of late; from any thread."""
        return self._clock() < self._refused_at + REFUSED_FOR

    def heard(self, line: str) -> None:
        """Take a line that it wrote."""
        line = plain(line)
        if REFUSED not in line:
            self._log.debug("resolver", line=line[:LONGEST])
        elif not self.is_refused:
            self._log.warning("certificate refused", of=self._asked(), line=line[:LONGEST])
            self._refused_at = self._clock()
