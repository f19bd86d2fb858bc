"""What reading the configuration finds out beside its values: problems, notices, origins."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from gateway.errors import Problem

T = TypeVar("T")


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
        self._add(Notice(Weight.INFO, where, message))

    def warn(self, where: str, message: str) -> None:
        """Add a notice that asks for something to be done."""
        self._add(Notice(Weight.WARNING, where, message))

    def _add(self, notice: Notice) -> None:
        if notice not in self.notices:
            self.notices.append(notice)

    def read(self, where: str, parse: Callable[[str], T], text: str) -> T | None:
        """Return `parse(text)`, or None and a problem at `where`."""
        try:
            return parse(text)
        except ValueError as err:
            self.wrong(where, str(err))
            return None


def joined(items: Iterable[object]) -> str:
    """Return items as people list them."""
    return ", ".join(map(str, items))
