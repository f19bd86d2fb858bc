"""What reading the configuration finds out beside its values: problems, notices, origins."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.errors import ConfigError, Notice, Problem, Weight


@dataclass
class Findings:
    """Collects problems and notices while the sources are read; the same thing is told once."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def wrong(self, where: str, message: str) -> None:
        """Add a problem; the configuration is refused in the end."""
        problem = Problem(_printable(where), _printable(message))
        if problem not in self.problems:
            self.problems.append(problem)

    def tell(self, where: str, message: str) -> None:
        """Add a notice of interest."""
        self.add(Weight.INFO, where, message)

    def warn(self, where: str, message: str) -> None:
        """Add a notice that asks for something to be done."""
        self.add(Weight.WARNING, where, message)

    def add(self, weight: Weight, where: str, message: str) -> None:
        """Add a notice of some weight."""
        notice = Notice(weight, _printable(where), _printable(message))
        if notice not in self.notices:
            self.notices.append(notice)

    def error(self) -> ConfigError:
        """Return everything found as the error to raise."""
        return ConfigError(tuple(self.problems), tuple(self.notices))


def _printable(text: str) -> str:
    """Return `text` without what could end a line or steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def joined(items: Iterable[object]) -> str:
    """Return items as people list them."""
    return ", ".join(map(str, items))
