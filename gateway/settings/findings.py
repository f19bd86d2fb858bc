"""Collects problems and notices while the configuration is read."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.errors import ConfigError, Notice, Problem, Weight


@dataclass
class Findings:
    """Problems and notices, each once and in order: the values of both are empty."""

    problems: dict[Problem, None] = field(default_factory=dict)
    notices: dict[Notice, None] = field(default_factory=dict)

    def problem(self, where: str, message: str) -> None:
        """Add a problem; the configuration is refused in the end."""
        self.problems[Problem(_printable(where), _printable(message))] = None

    def info(self, where: str, message: str) -> None:
        """Add a notice for information."""
        self.add(Weight.INFO, where, message)

    def warn(self, where: str, message: str) -> None:
        """Add a notice about something that should be changed."""
        self.add(Weight.WARNING, where, message)

    def add(self, weight: Weight, where: str, message: str) -> None:
        """Add a notice of some weight."""
        self.notices[Notice(weight, _printable(where), _printable(message))] = None

    def include(self, other: "Findings") -> None:
        """Add all problems and notices of another collection."""
        for problem in other.problems:
            self.problem(problem.where, problem.message)
        for notice in other.notices:
            self.add(notice.weight, notice.where, notice.message)

    def to_error(self) -> ConfigError:
        """Return everything found as the error to raise."""
        return ConfigError(tuple(self.problems), tuple(self.notices))


def _printable(text: str) -> str:
    """Return `text` without characters that end a line or control a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def joined(items: Iterable[object]) -> str:
    """Return the items separated by commas."""
    return ", ".join(map(str, items))
