"""The picture of the dashboard: every panel is drawn from what Prometheus scraped of a gateway."""

import json
import re
from pathlib import Path

import pytest

from scripts.dashboard_drawing import draw
from scripts.picturing import DASHBOARD, PICTURE, take

pytestmark = [pytest.mark.lab]

LARGEST = 150_000
MAY_BE_EMPTY = {"Limits of this host"}
"""The machine may have none."""


def test_every_panel_of_the_dashboard_gets_its_data(tmp_path: Path) -> None:
    """From a gateway in the lab, in a short run of what takes the picture of the documentation."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    picture = tmp_path / "dashboard.png"
    drawn = empty_ones(take(25, picture))
    assert set(drawn) == {panel["title"] for panel in panels}
    assert {title for title, is_empty in drawn.items() if is_empty} <= MAY_BE_EMPTY
    for one in (picture, PICTURE):
        assert one.read_bytes().startswith(b"\x89PNG")
        assert one.stat().st_size < LARGEST


def test_a_panel_without_data_is_found() -> None:
    """Control: Prometheus answers nothing."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    dashboard["panels"] = [it for it in dashboard["panels"] if it["type"] != "state-timeline"]
    drawn = empty_ones(draw(dashboard, lambda _expression, _is_instant: (), 0.0, 1.0))
    assert all(drawn.values())
    assert len(drawn) == len(dashboard["panels"])


def empty_ones(page: str) -> dict[str, bool]:
    """Return whether each panel of the drawing has nothing in it, by its title."""
    sections = re.findall(r"<section.*?><h2>(.*?)</h2>(.*?)</section>", page, re.DOTALL)
    shapes = ('class="value', "<polyline", "<rect", "<td>")
    return {title: not any(it in body for it in shapes) for title, body in sections}
