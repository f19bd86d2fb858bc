"""What reading the configuration finds out beside its values: problems, notices, origins."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.errors import Problem


class Weight(StrEnum):
    """How much a notice matters; the values are the levels of the log."""

    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True)
class Notice:
    """One thing to tell the user that stops nothing: about which variable or file, and what.

    Holds no secret.
    """

    weight: Weight
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class Findings:
    """Collects problems and notices while the sources are read; the same thing is told once."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def wrong(self, where: str, message: str) -> None:
        """Add a problem; the configuration is refused in the end."""
        problem = Problem(where, message)
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
        notice = Notice(weight, where, message)
        if notice not in self.notices:
            self.notices.append(notice)


def joined(items: Iterable[object]) -> str:
    """Return items as people list them."""
    return ", ".join(map(str, items))
