"""scripts/testing.py: what it counts, when it fails, and that a run cannot grow unnoticed."""

import sys
from collections.abc import Sequence

import pytest

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
    """Also of a step that runs beside another one, and of the guest's own closing lines none."""
    one = run(Step("x", [says("==== 2 failed, 7 passed, 1 error in 3.21s ====")], 60), live=False)
    two = run(Step("y", [says("=== 3 passed in 70.02s (0:01:10) ===", "3 passed")], 60), live=False)
    assert counted([one, two]) == {"passed": 10, "failed": 2, "error": 1}


def test_a_step_may_take_half_as_long_again_and_no_more() -> None:
    """Each break that the ledger does not prove has its own time; with all of them it is hours."""
    step = Step(
        "x", [says("7 breaks with an IPv4 endpoint", "5 breaks with an IPv6 endpoint")], 1, each=0.5
    )
    done = run(step, live=False)
    assert budget_of(done, whole=False) == 7
    done.seconds = 10.4
    assert not done.over(7)
    done.seconds = 10.6
    assert done.over(7)
    assert "OVER BUDGET" in table([done], {"x": 7})


def test_budgets_of_a_whole_run_are_within_the_goal() -> None:
    """25 minutes on two processors where the ledger proves all but a tenth."""
    ordinary = [max(step.budget for step in group) for group in steps(fast=False)]
    a_tenth = 2 * 40 * max(step.each for group in steps(fast=False) for step in group)
    assert sum(ordinary) + a_tenth <= 25 * 60


@pytest.mark.parametrize("code", [0, 1])
def test_the_run_ends_with_the_table_and_a_line_that_machines_read(
    code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A step that fails ends the run and counts, whatever its closing line says."""
    first = Step("first", [says("= 4 passed in 1.00s =", code=code)], 60)
    groups = [
        [first, Step("beside", [says("= 2 passed in 1.00s =")], 60)],
        [Step("last", [says()], 60)],
    ]
    monkeypatch.setattr(testing, "steps", lambda **_: groups)
    monkeypatch.setattr(sys, "argv", ["scripts/test"])
    assert testing.main() == code
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == f"6 passed, {code} failed"
    assert bool([line for line in lines if line.startswith("last ")]) == (code == 0)
