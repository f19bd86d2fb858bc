"""docs/health.md lists every log event of the gateway with its levels and fields, and no others."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from gateway.log import LEVELS
from tests.events import Events, events, is_logger

PROJECT = Path(__file__).parents[2]


@cache
def in_page() -> Events:
    """Return the events that the page lists."""
    page = (PROJECT / "docs" / "health.md").read_text("utf-8")
    section = page.partition("## Log\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert all(len(row) == 4 and row[3] for row in rows)
    return {
        row[0].strip("`"): (set(row[1].split(", ")), set(re.findall(r"`(\w+)`", row[2])))
        for row in rows
    }


@pytest.mark.parametrize("event", sorted(events().keys() | in_page().keys()))
def test_every_event_is_listed_with_its_levels_and_fields(event: str) -> None:
    """Both ways: users filter the log by what the page says."""
    assert in_page().get(event) == events().get(event)


def test_events_are_stable_phrases() -> None:
    """Short, and not sentences."""
    assert [event for event in events() if len(event.split()) > 7 or event.endswith(".")] == []


def test_every_logger_is_found() -> None:
    """Control: events of `structlog.get_logger()`, of a bound logger, and of each sink."""
    known = events()
    assert known["could not clean up"] == ({"error"}, {"problem"})
    assert known["command timed out"] == ({"warning"}, {"variable", "seconds"})
    assert known["configuration notice"] == ({"info", "warning"}, {"variable", "notice"})
    assert known["applied"] == ({"debug"}, {"command", "input"})
    assert known["child started"] == ({"debug"}, {"command"})
    assert known["log lines lost"] == ({"warning"}, {"lines"})


def test_every_event_is_a_literal() -> None:
    """An event made at run time could not be listed. `gateway.log` passes on those of a sink."""
    made = {
        path.name
        for path in (PROJECT / "gateway").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and is_logger(call, *LEVELS, "critical")
        and not isinstance(call.args[0], ast.Constant)
    }
    assert made == {"log.py"}
