"""Collects problems and notices while the configuration is read."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.errors import ConfigError, Notice, Problem, Weight


@dataclass
class Findings:
    """Problems and notices, each once."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def problem(self, where: str, message: str) -> None:
        """Add a problem; the configuration is refused in the end."""
        problem = Problem(_printable(where), _printable(message))
        if problem not in self.problems:
            self.problems.append(problem)

    def info(self, where: str, message: str) -> None:
        """Add a notice for information."""
        self.add(Weight.INFO, where, message)

    def warn(self, where: str, message: str) -> None:
        """Add a notice about something that should be changed."""
        self.add(Weight.WARNING, where, message)

    def add(self, weight: Weight, where: str, message: str) -> None:
        """Add a notice of some weight."""
        notice = Notice(weight, _printable(where), _printable(message))
        if notice not in self.notices:
            self.notices.append(notice)

    def to_error(self) -> ConfigError:
        """Return everything found as the error to raise."""
        return ConfigError(tuple(self.problems), tuple(self.notices))


def _printable(text: str) -> str:
    """Return `text` without characters that end a line or control a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def joined(items: Iterable[object]) -> str:
    """Return the items separated by commas."""
    return ", ".join(map(str, items))
