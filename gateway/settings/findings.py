"""Collects problems and notices while the configuration is read."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from gateway.errors import ConfigError, Notice, Problem, Weight

_ALONE: Final = 3
"""How many files may have the same finding before one of them represents all."""

_Found = TypeVar("_Found", Problem, Notice)


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

    def group(self, paths: Sequence[str]) -> None:
        """Leave one of the problems, and of the notices, that differ only in the file.

        `paths` are the files, as the findings name them.
        """
        if len(paths) > _ALONE:
            place = re.compile("|".join(rf"{re.escape(path)}( line \d+)?" for path in paths))
            self.problems = dict.fromkeys(_grouped(self.problems, lambda it: place.sub("", it)))
            self.notices = dict.fromkeys(_grouped(self.notices, lambda it: place.sub("", it)))

    def to_error(self) -> ConfigError:
        """Return everything found as the error to raise."""
        return ConfigError(tuple(self.problems), tuple(self.notices))


def _grouped(found: Iterable[_Found], general: Callable[[str], str]) -> list[_Found]:
    """Return one for all that are the same in general, if they are many."""
    kinds: dict[tuple[object, ...], list[_Found]] = {}
    for one in found:
        weight = one.weight if isinstance(one, Notice) else None
        key = (weight, general(one.where), general(one.message))
        kinds.setdefault(key, []).append(one)
    return [
        one
        for same in kinds.values()
        for one in (same if len(same) <= _ALONE else [_with_count(same[0], len(same) - 1)])
    ]


def _with_count(found: _Found, others: int) -> _Found:
    return replace(found, message=f"{found.message} (and so for {others} other files)")


def _printable(text: str) -> str:
    """Return `text` without characters that end a line or control a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def joined(items: Iterable[object]) -> str:
    """Return the items separated by commas."""
    return ", ".join(map(str, items))
