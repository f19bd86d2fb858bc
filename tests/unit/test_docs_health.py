"""docs/health.md lists every field, reason and limit of the health answer, and no others."""

import json
import re
from pathlib import Path

from gateway.model.lease import Lease
from gateway.policy.diagnosis import TEXTS, Cause
from gateway.policy.history import History
from gateway.policy.limits import LimitCode
from gateway.policy.reload import LONGEST_FAULT, MOST_FAULTS, Outcome
from gateway.policy.remedies import REMEDIES
from gateway.policy.report import REASONS, Status
from gateway.policy.reports import ListReport, ResolverReport, ServiceReport
from gateway.policy.states import Reason
from gateway.services.health import metrics
from gateway.services.health.board import Board, describe

PAGE = (Path(__file__).parents[2] / "docs" / "health.md").read_text("utf-8")

CODE = re.compile(r"`(\w+)`")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of each row of the table in the section `heading`, without its head."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    assert lines, heading
    return [line.strip("| ").split(" | ") for line in lines[1:]]


def codes(heading: str) -> list[str]:
    """Return every code in the first column of a table."""
    return [code for row in rows(heading) for code in CODE.findall(row[0])]


def test_every_reason_is_explained_with_its_text() -> None:
    """Both ways: a row for each code, a code for each row; the text is the one in the answer."""
    assert sorted(codes("Reasons")) == sorted(Reason)
    for row in rows("Reasons"):
        (code,) = CODE.findall(row[0])
        assert row[1].startswith(REASONS[Reason(code)]), code
        assert len(row[2]) > len("says why"), code
        assert row[3:] == [REMEDIES[Reason(code)]] or (row[3:] == [] and not REMEDIES[Reason(code)])


def test_every_cause_of_a_failed_handshake_is_explained() -> None:
    """Both ways; the text for people has a remedy too."""
    assert sorted(codes("No handshake")) == sorted(Cause)
    assert set(TEXTS) == set(Cause)


def test_every_limit_is_explained() -> None:
    """Both ways, so that a monitoring rule for a code can be written from the page."""
    assert sorted(codes("Limits")) == sorted(LimitCode)


def test_every_outcome_of_a_reload_is_explained_and_how_many_problems_are_reported() -> None:
    """Both ways; the figures are those of the code."""
    assert sorted(codes("`gateway reload`")) == sorted(Outcome)
    assert f"the first {MOST_FAULTS} of the `found` ones" in PAGE
    limits = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")
    assert f"{MOST_FAULTS} in the health answer, {LONGEST_FAULT} characters each" in limits


def test_every_field_of_the_answer_is_explained() -> None:
    """Both ways."""
    status = Status(0.0, "starting", healthy=False, reason=Reason.STARTING, since=0.0)
    assert sorted(codes("The answer")) == sorted(describe(status, 1.0))


def test_the_example_is_an_answer() -> None:
    """It has every field, and values that could be real."""
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]
    status = Status(0.0, "starting", healthy=False, reason=Reason.STARTING, since=0.0)
    assert example.keys() == describe(status, 1.0).keys()
    assert example["reason"] == REASONS[Reason(example["reason_code"])]
    assert {limit["code"] for limit in example["limits"]} <= set(LimitCode)
    assert all(limit.keys() == {"code", "text", "remedy"} for limit in example["limits"])


def test_every_metric_is_named() -> None:
    """Both ways, without the prefix; counters end in _total."""
    text = metrics.exposition(
        Status(
            1.0,
            "connected",
            healthy=True,
            reason=Reason.ANSWERS,
            since=0.0,
            handshake_age=1.0,
            mtu=1,
            path_mtu=1,
            verified_age=1,
            leases=(Lease(40123, 40123, 60.0),),
            services=(ServiceReport("proxy"),),
            resolver=ResolverReport(
                "x", questions=(("asked", 1),), lists=(ListReport("https://x", 1, 1),)
            ),
        ),
        History(),
        1.0,
        healthy=True,
    ).decode()
    served = set(re.findall(r"^# TYPE portcullis_(\w+) ", text, re.MULTILINE))
    listed = PAGE.partition("## Metrics\n")[2].partition("\nThe gateway reads")[0]
    named = {name.removesuffix("_total") for name in re.findall(r"`(?!portcullis_)(\w+)", listed)}
    assert named == {name.removesuffix("_total") for name in served}


def test_metrics_list_every_state() -> None:
    """A state without a series would be missing from a graph."""
    states = {name.__name__.lower() for name in metrics.ALL_STATES}
    assert states == {
        "locked",
        "resolving",
        "fetching",
        "connecting",
        "connected",
        "paused",
        "stopping",
    }
    board = Board(lambda: 1.0)
    text = board.metrics()[2].decode()
    assert set(re.findall(r'portcullis_state\{state="(\w+)"\}', text)) == states
