"""What is measured: the figures by name, their targets, and the table for a person."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Values = Mapping[str, Sequence[float | None]]
"""The values of each program. None: not within the limit of the measurement."""


@dataclass(frozen=True)
class Target:
    """The most that a figure may be: a number, or a multiple of another program's median."""

    most: float
    of: str = ""

    def __str__(self) -> str:
        """Return it as a phrase."""
        return f"at most {self.most:g}" + (f" times {self.of}" if self.of else "")


BASELINE = "the baseline"
"""Means the program that --baseline names."""
WG_QUICK = "wg-quick"

LABELS: dict[str, tuple[str, str, Target | None]] = {
    "exposed": ("last frame of a flood, after exec", "ms", Target(1.1, BASELINE)),
    "carrying": ("tunnel carries traffic, after exec", "ms", None),
    "healthy": ("healthy, after exec", "ms", Target(0.5, BASELINE)),
    "cpu_start": ("processor until then", "ms", None),
    "proportional": ("memory at rest, proportional", "MiB", Target(25)),
    "resident": ("memory at rest, resident", "MiB", None),
    "idle": ("idle, processor", "ms/min", Target(5, WG_QUICK)),
    "births": ("idle, processes started", "per min", Target(0)),
    "more": ("healthy with 2000 holes, later by", "ms", Target(500)),
    "up": ("sent through the tunnel, processor", "s/GiB", Target(1.1, WG_QUICK)),
    "down": ("received through the tunnel, processor", "s/GiB", Target(1.1, WG_QUICK)),
    "small_up": ("a small packet sent, processor", "µs", Target(1.1, WG_QUICK)),
    "small_down": ("a small packet received, processor", "µs", Target(1.1, WG_QUICK)),
    "holes_up": ("sent with 2000 holes, by without", "ratio", Target(1.05)),
    "holes_down": ("received with 2000 holes, by without", "ratio", Target(1.05)),
    "check_cpu": ("a health check, processor", "ms", Target(0.5, BASELINE)),
    "check_wall": ("a health check, by the clock", "ms", None),
    "bare": ("a bare interpreter, processor", "ms", None),
    "red": ("dead server to red, in use", "s", None),
    "recovered": ("interface deleted to traffic", "s", None),
}
"""By name: what it is, its unit, and the target of it."""


@dataclass(frozen=True)
class Figure:
    """One row: a figure, with how many holes, and the values of each program."""

    name: str
    values: Values
    holes: str = ""
    """Such as `100 ports`."""
    limit: float | None = None
    """What a value of None is more than."""

    @property
    def label(self) -> str:
        """What it is."""
        return LABELS[self.name][0] + (f", {self.holes}" if self.holes else "")

    @property
    def unit(self) -> str:
        """The unit of every value."""
        return LABELS[self.name][1]

    @property
    def target(self) -> Target | None:
        """What it is to reach. How soon a gateway with many holes is healthy, `more` compares."""
        return None if self.name == "healthy" and self.holes else LABELS[self.name][2]

    def median(self, program: str) -> float | None:
        """Return a program's median; None where it has none, or half are beyond the limit."""
        values = [float("inf") if value is None else value for value in self.values[program]]
        middle = statistics.median(values) if values else float("inf")
        return None if middle == float("inf") else middle

    def text(self, program: str) -> str:
        """Return a program's median and range as a text."""
        values = self.values.get(program)
        if not values:
            return "-"
        given = [value for value in values if value is not None]
        middle = self.median(program)
        beyond = "never" if self.limit is None else f"> {short(self.limit)}"
        if middle is None:
            return beyond
        if len(values) == 1:
            return short(middle)
        most = short(max(given)) if len(given) == len(values) else beyond
        return f"{short(middle)} ({short(min(given))} to {most})"

    def ratio(self, program: str, other: str) -> float | None:
        """Return a program's value by the other's; None where one of them is missing.

        Programs are measured in turn: each value is compared with the one next to it in time, where
        there are as many of each, and the median of these ratios returned.
        """
        if not self.values.get(program) or not self.values.get(other):
            return None
        mine, theirs = self.values[program], self.values[other]
        if len(mine) == len(theirs):
            pairs = zip(mine, theirs, strict=True)
        else:
            pairs = zip([self.median(program)], [self.median(other)], strict=True)
        ratios = [
            None if first is None or not second else first / second for first, second in pairs
        ]
        whole = [ratio for ratio in ratios if ratio is not None]
        return statistics.median(whole) if len(whole) == len(ratios) else None

    def verdict(self, program: str, baseline: str) -> str:
        """Return the target and whether `program` reaches it, or nothing."""
        if self.target is None:
            return ""
        if not self.values.get(program):
            return f"{self.target}: not measured"
        reached = self.median(program)
        if self.target.of:
            reached = self.ratio(program, self.target.of.replace(BASELINE, baseline))
            if reached is None:
                return f"{self.target}: not measured"
        met = reached is not None and reached <= self.target.most
        return f"{self.target}: {'met' if met else 'MISSED'}"


@dataclass(frozen=True)
class Run:
    """Everything about one run of the benchmark."""

    about: Mapping[str, Any]
    """When, on which machine, on which commit, how often."""
    programs: Sequence[str]
    """The first is this gateway."""
    baseline: str
    """The program that targets mean by the baseline, or nothing."""
    figures: Sequence[Figure] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Run":
        """Return the run that `as_json` returned."""
        return cls(**{**given, "figures": [Figure(**figure) for figure in given["figures"]]})

    def rows(self) -> Iterable[list[str]]:
        """Yield the table: a heading, then one row for each figure."""
        ours, *others = self.programs
        pairs = (text for name in others for text in (name, "ratio"))
        yield ["median (range)", ours, *pairs, "target"]
        for figure in self.figures:
            columns = [f"{figure.label}, {figure.unit}", figure.text(ours)]
            for name in others:
                ratio = figure.ratio(ours, name)
                columns += [figure.text(name), "" if ratio is None else short(ratio)]
            yield [*columns, figure.verdict(ours, self.baseline)]


def short(number: float) -> str:
    """Return a number with three digits that count."""
    if number == 0 or abs(number) >= 100:  # noqa: PLR2004 - where the third digit is the last
        return f"{number:.0f}"
    return f"{number:.3g}"


def table(run: Run) -> str:
    """Return a run for a terminal."""
    rows = list(run.rows())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)
