"""A chart with lines, as SVG: both axes logarithmic, readable on a light and a dark page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 40, 50
LINE = 22
"""Pixels from one line of the legend to the next."""
COLORS = 4
DASHES = ("", "7 4", "2 3")

STYLE = """
  .ground { fill: #ffffff } text { fill: #1f2328; font: 13px sans-serif }
  .title { font-weight: bold; font-size: 15px } .grid { stroke: #d1d9e0 }
  .line { fill: none; stroke-width: 2.5 } .beyond { stroke-width: 2; fill: none }
  .c0 { stroke: #0b62c4 } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 } .c3 { stroke: #8250df }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #3d444d }
    .c0 { stroke: #58a6ff } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 } .c3 { stroke: #bc8cff }
  }"""


@dataclass(frozen=True)
class Line:
    """One line: its name, its colour and dashes by number, and its points."""

    name: str
    color: int
    dash: int
    points: Sequence[tuple[float, float | None]]
    """(x, y), in the order of x. None: beyond the limit of the measurement."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, both powers of ten, over pixels."""

    low: int
    high: int
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> "Axis":
        """Return the axis that has room for all values, which are positive."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1), begin, end)

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def chart(title: str, labels: Mapping[str, str], lines: Sequence[Line], limit: float) -> str:
    """Return the SVG text. `labels` names the axes x and y; `limit` is where None is drawn.

    A value beyond the limit is a triangle. Zero cannot be drawn, and is left out.
    """
    drawn = [(x, limit if y is None else y) for line in lines for x, y in line.points if y != 0]
    across = Axis.over([x for x, _ in drawn], LEFT, WIDTH - RIGHT)
    up = Axis.over([y for _, y in drawn], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}\n</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, TOP - 18, title, "start", "title"),
        *_grid(across, up),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, labels["x"]),
        f'<g transform="rotate(-90 16 {HEIGHT / 2})">{_text(16, HEIGHT / 2, labels["y"])}</g>',
    ]
    for number, line in enumerate(lines):
        parts += _line(line, across, up, limit)
        parts += _legend(line, TOP + 10 + number * LINE)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    for x in across.ticks():
        at = across.at(x)
        yield _stroke("grid", [(at, up.begin), (at, up.end)])
        yield _text(at, up.begin + 18, f"{x:g}")
    for y in up.ticks():
        at = up.at(y)
        yield _stroke("grid", [(across.begin, at), (across.end, at)])
        yield _text(across.begin - 8, at + 4, f"{y:g}", "end")


def _line(line: Line, across: Axis, up: Axis, limit: float) -> Iterator[str]:
    places = [
        (across.at(x), up.at(limit if y is None else y), y is None)
        for x, y in line.points
        if y != 0
    ]
    yield _stroke(f"line {_color(line)}", [(x, y) for x, y, _ in places], DASHES[line.dash])
    for x, y, beyond in places:
        if beyond:
            yield f'<path class="beyond {_color(line)}" d="M{x - 6:.1f} {y:.1f}l6 -10l6 10z"/>'
        else:
            yield f'<circle class="beyond {_color(line)}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'


def _legend(line: Line, y: float) -> Iterator[str]:
    begin = WIDTH - RIGHT + 16
    yield _stroke(f"line {_color(line)}", [(begin, y), (begin + 30, y)], DASHES[line.dash])
    yield _text(begin + 38, y + 4, line.name, "start")


def _color(line: Line) -> str:
    return f"c{line.color % COLORS}"


def _stroke(kind: str, points: Sequence[tuple[float, float]], dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}"{dashes} points="{places}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
