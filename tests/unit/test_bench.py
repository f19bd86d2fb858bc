"""scripts/bench: what it computes and writes. What it measures, it measures in the lab."""

import json
import socket
import struct
import sys
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE, Popen
from xml.etree import ElementTree as ET

import pytest

from gateway.settings import assemble
from scripts.benching import datagrams, document
from scripts.benching.__main__ import SECTIONS, SHORT, arguments
from scripts.benching.accounts import EVENT, FORK, FORKED, Births
from scripts.benching.chart import Line, chart
from scripts.benching.checking import of_image
from scripts.benching.figures import LABELS, Figure, Run, table
from scripts.benching.programs import Holes
from tests.configurations import COMPLETE

PROJECT = Path(__file__).resolve().parents[2]
ABOUT = {
    "when": "2026-01-02 03:04 UTC",
    "kernel": "6.12",
    "processors": 2,
    "python": "3.13",
    "firewall": "auto",
    "commit": "abc",
    "runs": 3,
    "load": [0.1, 0.4],
}
FIGURES = [
    Figure("healthy", {"gateway": [300.0, 310.0, 320.0], "old": [600.0, 900.0, 700.0]}),
    Figure("idle", {"gateway": [50.0], "wg-quick": [9.0]}),
    Figure("births", {"gateway": [2.0], "wg-quick": [0.0]}),
    Figure("red", {"gateway": [17.0, 18.0], "wg-quick": []}, limit=60.0),
    Figure("healthy", {"gateway": [300.0], "old": [400.0]}, "1 input ports", 30000.0),
    Figure("healthy", {"gateway": [500.0], "old": [None]}, "1000 input ports", 30000.0),
    Figure("idle", {"gateway": [50.0], "wg-quick": [9.0]}, "1 input ports"),
    Figure("idle", {"gateway": [0.0], "wg-quick": [9.0]}, "1000 input ports"),
]
RUN = Run(ABOUT, ["gateway", "wg-quick", "old"], "old", FIGURES)


def test_a_ratio_compares_what_was_measured_next_to_each_other() -> None:
    """300/600, 310/900 and 320/700: the median, not the ratio of the medians."""
    assert FIGURES[0].ratio("gateway", "old") == pytest.approx(320 / 700)
    assert FIGURES[0].ratio("gateway", "wg-quick") is None
    assert FIGURES[5].ratio("gateway", "old") is None


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "at most 0.5 times the baseline: met"),
        (1, "at most 5 times wg-quick: MISSED"),
        (2, "at most 0: MISSED"),
        (3, ""),
        (5, ""),
    ],
)
def test_a_target_is_met_or_missed(number: int, said: str) -> None:
    """A multiple of another program, or a number; without a target nothing is said."""
    assert FIGURES[number].verdict("gateway", "old") == said


def test_a_target_without_its_baseline_is_not_measured() -> None:
    """Nothing is said about what was not measured."""
    assert FIGURES[0].verdict("gateway", "").endswith("not measured")


def test_what_did_not_happen_within_the_limit_has_no_median() -> None:
    """The median is beyond the limit if half of the values are."""
    assert FIGURES[5].text("old") == "> 30000"
    assert Figure("red", {"a": [1.0, 2.0, None]}, limit=60.0).text("a") == "2 (1 to > 60)"
    assert Figure("red", {"a": [1.0, None, None]}, limit=60.0).text("a") == "> 60"
    assert FIGURES[3].text("wg-quick") == "-"
    assert FIGURES[3].text("old") == "-"


def test_a_run_survives_its_json() -> None:
    """`--from` reads what `--json` printed, and the table is the same."""
    again = Run.from_json(json.loads(json.dumps(RUN.as_json())))
    assert table(again) == table(RUN)
    assert "0.457" in table(RUN)


def test_the_page_has_every_figure_and_no_mark_left(tmp_path: Path) -> None:
    """One row for each, in one of its two tables, and the charts that it shows."""
    document.write(RUN, tmp_path)
    text = (tmp_path / "performance.md").read_text("utf-8")
    assert text.count("| healthy, after exec") == 3
    assert "Linux 6.12" in text
    assert "load 0.1 before and 0.4 after" in text
    assert not any(mark in text for mark in "{}")
    for name in document.CHARTS:
        assert f"({name})" in text
        assert ET.parse(tmp_path / name).getroot().tag.endswith("svg")  # noqa: S314 - written above


def test_every_figure_has_a_row_of_every_program() -> None:
    """Two columns for each but ours, and one for the target."""
    widths = {len(row) for row in RUN.rows()}
    assert widths == {1 + 1 + 2 * 2 + 1}


def test_a_chart_draws_what_is_beyond_the_limit_and_leaves_out_zero() -> None:
    """A triangle at the limit; the logarithm of zero has no place."""
    text = chart(
        "A & B",
        {"x": "x", "y": "y"},
        [Line("one", 0, 0, [(1, 2.0), (100, 0.0), (1000, None)]), Line("two", 1, 1, [(1, 3.0)])],
        30.0,
    )
    root = ET.fromstring(text)  # noqa: S314 - made above
    kinds = [child.get("class", "") for child in root]
    assert kinds.count("line c0") == 2  # the line and its legend
    assert sum(child.tag.endswith("circle") for child in root) == 2
    assert sum(child.tag.endswith("path") for child in root) == 1
    assert "A &amp; B" in text
    assert "prefers-color-scheme: dark" in text


def test_holes_are_accepted_and_cannot_be_merged() -> None:
    """A thousand of each are a thousand ports and a thousand subnets for the gateway."""
    environment = Holes(1000, 1000).environment()
    config = assemble.load(COMPLETE | environment).config
    assert len({ports.first for ports in config.input_ports}) == 1000
    assert len(config.outbound_subnets) == 1000
    ports = [int(port) for port in environment["FIREWALL_INPUT_PORTS"].split(",")]
    assert all(after - before > 1 for before, after in pairwise(ports))
    assert max(ports) < 32768  # below those that the kernel gives to programs
    assert not Holes().environment()


def test_the_default_is_short_and_a_section_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """CI runs the default; the page has everything."""
    assert arguments(["--runs", "1"]).only == SHORT
    assert arguments(["--quick"]).runs == 1
    assert arguments(["--document"]).only == tuple(SECTIONS)
    assert arguments(["--only", "idle,holes"]).only == ("idle", "holes")
    with pytest.raises(SystemExit):
        arguments(["--only", "sleep"])
    assert "'sleep' is not one of start," in capsys.readouterr().err


def test_the_health_check_is_started_as_the_image_does() -> None:
    """The arguments come from the Dockerfile, so that they cannot differ."""
    assert of_image((PROJECT / "Dockerfile").read_text("utf-8"))[-1].endswith("healthcheck.pyc")
    with pytest.raises(SystemExit):
        of_image("HEALTHCHECK NONE")


def test_processes_and_their_children_are_counted_and_threads_are_not() -> None:
    """From the events of the kernel; a process of no family does not count."""
    births = Births({"one": [10], "two": [20]})

    def born(parent: int, child: int, group: int, what: int = FORK) -> None:
        births._take(EVENT.pack(what, 0, 0) + FORKED.pack(parent, parent, child, group))  # noqa: SLF001

    born(10, 11, 11)
    born(11, 12, 12)
    born(20, 21, 20)
    born(30, 31, 31)
    born(10, 13, 13, what=2)
    assert births.count == {"one": 2, "two": 0}
    assert struct.calcsize("=IIQIIII") == EVENT.size + FORKED.size


def test_both_ends_of_a_flow_count_the_same_datagrams() -> None:
    """At the rate that was asked for, with the processor time of each end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def end(role: str, task: str) -> Popen[str]:
        words = ["127.0.0.1", str(port), "100", "1000", "0.3"]
        argv = [sys.executable, "-I", "-S", datagrams.__file__, role, task, *words]
        return Popen(argv, stdout=PIPE, text=True)

    with end("listen", "receive") as there:
        assert there.stdout
        assert there.stdout.readline() == "ready\n"
        with end("connect", "send") as here:
            sent = json.loads(here.communicate(timeout=20)[0].splitlines()[-1])
        came = json.loads(there.communicate(timeout=20)[0].splitlines()[-1])
    assert 250 < sent["datagrams"] == came["datagrams"] <= 301
    assert 0 < sent["cpu"] < sent["seconds"]


def test_every_figure_has_a_unit() -> None:
    """A row says what its numbers are."""
    assert all(label and unit for label, unit, _ in LABELS.values())
