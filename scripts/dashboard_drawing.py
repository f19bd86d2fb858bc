"""Draw the panels of a Grafana dashboard without Grafana, from what Prometheus answers.

Only what docs/prometheus/dashboard.json uses: stat, state-timeline, timeseries and table. The
layout, titles, units, colours of states and legends are those of the file; the style is not
Grafana's.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

Series = Mapping[str, Any]
Ask = Callable[[str, bool], Sequence[Series]]
"""Returns the series of an expression: at the end if the second argument is set, or all along."""

COLOURS = ("#2559c4", "#8a3b8f", "#0d6b3f", "#b3261e", "#7d4a00", "#0b7285")
STATES = {"connected": "#0d6b3f", "connecting": "#b3261e", "locked": "#7d4a00"}
MANY = 3
"""With more series than this, the legend has a second line."""
COLUMN, ROW = 50, 30
"""Pixels of a cell of the grid."""
STYLE = """
body { margin: 0; background: #f5f6f8; color: #141922; font: 13px/1.4 Inter, sans-serif;
  font-variant-numeric: tabular-nums; width: 1200px; position: relative; }
section { position: absolute; padding: 8px 12px; background: #fff; border: 1px solid #dfe3e9;
  border-radius: 8px; box-sizing: border-box; overflow: hidden; }
h2 { font-size: 13px; font-weight: 600; margin: 0 0 4px; }
.value { font-size: 20px; font-weight: 650; } .green { color: #0d6b3f; } .red { color: #b3261e; }
ul { list-style: none; margin: 2px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0 12px;
  font-size: 11px; color: #566172; }
i { display: inline-block; width: 14px; border-top: 3px solid; margin-right: 5px;
  vertical-align: 3px; }
svg { display: block; } text { font: 10px Inter, sans-serif; fill: #566172; }
td, th { text-align: left; font-weight: 400; padding: 3px 16px 3px 0; }
th { color: #566172; }
"""


def draw(dashboard: Mapping[str, Any], ask: Ask, start: float, end: float) -> str:
    """Return the dashboard as an HTML page, for the time from `start` to `end`."""
    panels = [_panel(panel, ask, start, end) for panel in dashboard["panels"]]
    last = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{STYLE}</style>'
        f'<body style="height:{last * ROW + 10}px">{"".join(panels)}</body></html>'
    )


def _panel(panel: Mapping[str, Any], ask: Ask, start: float, end: float) -> str:
    at = panel["gridPos"]
    width, height = at["w"] * COLUMN - 10, at["h"] * ROW - 10
    is_instant = panel["type"] in {"stat", "table"}
    found = [
        (_legend(target.get("legendFormat", ""), series["metric"]), series)
        for target in panel["targets"]
        for series in ask(target["expr"], is_instant)
    ]
    kind = {"stat": _stat, "table": _table, "state-timeline": _timeline, "timeseries": _graph}
    body = kind[panel["type"]](
        panel, found, (start, end), (width - 26, height - 60 - 16 * (len(found) > MANY))
    )
    place = f"left:{at['x'] * COLUMN + 5}px;top:{at['y'] * ROW + 5}px"
    size = f"width:{width}px;height:{height}px"
    title = html.escape(panel["title"])
    return f'<section style="{place};{size}"><h2>{title}</h2>{body}</section>'


def _legend(form: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda it: labels.get(it[1], ""), form)


def _unit(panel: Mapping[str, Any]) -> Callable[[float], str]:
    """Return what writes a value in the unit of the panel."""
    unit = panel["fieldConfig"]["defaults"].get("unit", "")

    def write(value: float) -> str:
        if unit in {"bytes", "Bps"}:
            per = "/s" if unit == "Bps" else ""
            for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
                if abs(value) >= size:
                    return f"{value / size:.3g} {name}{per}"
            return f"{value:.3g} B{per}"
        if unit == "percentunit":
            return f"{value * 100:.2g} %"
        return f"{value:.3g}" + {"s": " s", "pps": " p/s"}.get(unit, "")

    return write


def _stat(panel: Mapping[str, Any], found: Sequence[tuple[str, Series]], *_: object) -> str:
    """Return names, or last values: in the words and colours of the panel's mappings."""
    lines, write = [], _unit(panel)
    for name, series in found:
        value, colour = write(float(series["value"][1])), ""
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
            chosen = mapping["options"].get(series["value"][1])
            value, colour = (chosen["text"], chosen["color"]) if chosen else (value, colour)
        text = name if panel["options"].get("textMode") == "name" else value
        lines.append(f'<div class="value {colour}">{html.escape(text)}</div>')
    return "".join(lines)


def _table(_panel: object, found: Sequence[tuple[str, Series]], *_: object) -> str:
    """Return the labels of each series."""
    names = ("code", "instance")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = (
        "".join(f"<td>{html.escape(series['metric'].get(name, ''))}</td>" for name in names)
        for _name, series in found
    )
    return f"<table><tr>{head}</tr><tr>{'</tr><tr>'.join(rows)}</tr></table>"


def _timeline(
    _panel: object,
    found: Sequence[tuple[str, Series]],
    times: tuple[float, float],
    size: tuple[int, int],
) -> str:
    """Return one bar for each state, where it was that of the gateway."""
    (start, end), (width, _), left = times, size, 80
    scale = (width - left) / (end - start)
    every = sorted({at for _, series in found for at, _ in series["values"]})
    step = min(after - before for before, after in pairwise(every))
    shapes = []
    for row, (name, series) in enumerate(found):
        shapes.append(f'<text x="0" y="{row * 20 + 12}">{html.escape(name)}</text>')
        shapes += (
            f'<rect x="{left + (at - start) * scale:.1f}" y="{row * 20}" height="16"'
            f' width="{step * scale + 0.5:.1f}" fill="{STATES.get(name, "#566172")}"/>'
            for at, _ in series["values"]
        )
    height = 20 * len(found) + 4
    return f'<svg width="{width}" height="{height}">{"".join(shapes)}</svg>'


def _graph(
    panel: Mapping[str, Any],
    found: Sequence[tuple[str, Series]],
    times: tuple[float, float],
    size: tuple[int, int],
) -> str:
    """Return a line for each series, with an axis and a legend."""
    (start, end), (width, height), left, write = times, size, 62, _unit(panel)
    values = [float(value) for _, series in found for _, value in series["values"]]
    low, high = min([0.0, *values]), max([0.0, *values])
    high = high if high > low else low + 1
    plot = height - 18

    def y(value: float) -> float:
        return plot - (value - low) / (high - low) * (plot - 8)

    shapes = []
    for value in (low, (low + high) / 2, high):
        line = f'x1="{left}" x2="{width}" y1="{y(value):.1f}" y2="{y(value):.1f}"'
        shapes.append(f'<line {line} stroke="#dfe3e9"/>')
        label = f'x="{left - 6}" y="{y(value) + 3:.1f}" text-anchor="end"'
        shapes.append(f"<text {label}>{html.escape(write(value))}</text>")
    for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        clock = datetime.fromtimestamp(start + part * (end - start), UTC).strftime("%H:%M:%S")
        at = f'x="{left + part * (width - left):.0f}" y="{height - 2}" text-anchor="{anchor}"'
        shapes.append(f"<text {at}>{clock}</text>")
    items = []
    for number, (name, series) in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{left + (at - start) / (end - start) * (width - left):.1f},{y(float(value)):.1f}"
            for at, value in series["values"]
        )
        shapes.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        items.append(f'<li><i style="color:{colour}"></i>{html.escape(name)}</li>')
    drawn = f'<svg width="{width}" height="{height}">{"".join(shapes)}</svg>'
    return f"{drawn}<ul>{''.join(items)}</ul>"
