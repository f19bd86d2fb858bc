"""Run the linters and every tier of tests, and print how long each took: the steps of scripts/test.

Each step has a budget in seconds, measured on two processors that have nothing else to do. A step
that takes more than 1.5 times its budget fails the run, so that the run cannot grow unnoticed. On a
machine that is slower, or busy, LAB_TIME multiplies every budget. LAB_PATIENCE does not: it is how
long a test may wait before it gives up, and CI sets it on the machine that the budgets are for.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLACK = 1.5
"""How many times its budget a step may take."""
LIMIT = 75 * 60
"""Seconds after which no other step begins: CI gives up after 90 minutes and then reports nothing.
"""
SHELL = (
    *("scripts/bench", "scripts/demo", "scripts/install-axe", "scripts/install-packages"),
    *("scripts/install-kubernetes-schemas", "scripts/install-promtool"),
    *("scripts/install-schemathesis", "scripts/mutate", "scripts/picture-dashboard"),
    *("scripts/python-environment", "docs/host/portcullis-netns"),
    *("scripts/soak", "scripts/test", ".ci/run"),
)
LABS = ("-n", "3", "--dist", "loadfile")
"""Three labs at a time on two processors, because each also waits. A file stays in one process."""
PYTEST = re.compile(r"^=+ (.*) in [\d.]+s.*=+$", re.MULTILINE)
REPEATS = 3
"""How many times a test that failed and may be repeated has to pass, alone, for the step to pass.
"""
AT_MOST = 3
"""In how many files of a step failed tests are repeated, because those of a file share a lab."""
REPEATABLE = re.compile(r"^may be repeated: (.+)$", re.MULTILINE)
BREAKS = re.compile(r"^(\d+) breaks of ", re.MULTILINE)
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)")


@dataclass(frozen=True)
class Step:
    """One step: its commands, one after the other, and the seconds that they may need."""

    name: str
    commands: Sequence[Sequence[str]]
    budget: int
    each: float = 0.0
    """The seconds that each break may need on top: how many there are, the ledger decides."""
    whole: int | None = None
    """The seconds of a run with `--everything`, or LAB_BREAKS=all; None where it is as long."""


def steps(*, fast: bool, everything: bool = False) -> list[list[Step]]:
    """Return the steps in order; those of one list run at the same time."""
    linters = [
        *(["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["codespell"]),
        *(["shellcheck", *SHELL], ["hadolint", "Dockerfile"], ["yamllint", "--strict", "."]),
        *(["actionlint"], ["zizmor", "--offline", "--persona=pedantic", ".github"]),
    ]
    hours = 6 * 3600
    first = [
        [Step("Linters", linters, 15)],
        [Step("Unit tests", [["pytest", "--full"]], 200)],
        [
            Step(
                "Promises",
                [["pytest", "tests/promises", "-m", "not breaking and not quiet", *LABS]],
                1200,
                whole=2400,
            )
        ],
        [
            Step(
                "Promises that need a quiet machine",
                [["pytest", "tests/promises", "-m", "quiet"]],
                30,
            )
        ],
        [
            Step(
                "Broken on purpose",
                [["pytest", "tests/promises", "-m", "breaking"]],
                120,
                each=2.0,
                whole=hours,
            )
        ],
    ]
    page = Step("The status page in a browser", [["pytest", "tests/page"]], 110)
    if fast:
        return [*first, [page]]
    return [
        *first,
        # The guest works on one processor, the engine mostly waits.
        [
            Step("The image on a Docker Engine", [["pytest", "tests/docker"]], 410, whole=900),
            Step("The kernel's own WireGuard", [["pytest", "tests/kernel"]], 375, whole=1500),
            page,
        ],
        *(
            [
                [Step("A pod on Podman", [["pytest", "tests/podman"]], 400)],
                [Step("Units of systemd, with Podman 5", [["pytest", "tests/systemd"]], 500)],
                [Step("The image, built again", [["pytest", "tests/image"]], 500)],
                [Step("arm64, emulated", [["pytest", "tests/arm64"]], 5100)],
            ]
            if everything
            else []
        ),
        [Step("The demonstration", [["scripts/demo"]], 45)],
        [Step("The benchmark, one run", [["scripts/bench", "--runs", "1"]], 60)],
    ]


@dataclass
class Outcome:
    """The result of a step."""

    step: Step
    seconds: float
    cpu: float
    load: float
    code: int
    output: str = field(repr=False)
    unsteady: Sequence[str] = ()
    """The tests that failed, and then passed each time that they ran alone."""

    def over(self, budget: float) -> bool:
        """Return whether it took more than its budget and the slack."""
        return self.seconds > budget * SLACK


def run(step: Step, *, live: bool) -> Outcome:
    """Run a step's commands until one fails; show their output as it comes where `live` is set."""
    began, cpu, code = time.monotonic(), 0.0, 0
    output = b""
    for command in step.commands:
        pipe, end = os.pipe()
        child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=end, stderr=subprocess.STDOUT
        )
        os.close(end)
        while part := os.read(pipe, 1 << 16):
            output += part
            if live:
                sys.stdout.buffer.write(part)
                sys.stdout.flush()
        os.close(pipe)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = code = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
        if code:
            break
    seconds, text = time.monotonic() - began, output.decode(errors="replace")
    return Outcome(step, seconds, cpu, os.getloadavg()[0], code, text)


def run_together(group: Sequence[Step]) -> list[Outcome]:
    """Run the steps of one list; the first one's output is shown as it comes."""
    done: dict[str, Outcome] = {}

    def work(step: Step) -> None:
        done[step.name] = run(step, live=step is group[0])

    threads = [threading.Thread(target=work, args=(step,)) for step in group]
    print(f"\n== {' || '.join(step.name for step in group)}", flush=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in group[1:]:
        print(f"\n== {step.name}\n{done[step.name].output}", flush=True)
    return [done[step.name] for step in group]


def again(outcome: Outcome) -> Outcome:
    """Run the failed tests of a step again, alone, if all that failed may be repeated.

    What may be repeated is decided in tests/repeating.py: never a leak. Each has to pass REPEATS
    times. The seconds do not count for the budget, which is that of a run without failures.
    """
    tests = REPEATABLE.findall(outcome.output)
    files = {test.partition("::")[0] for test in tests}
    if not 0 < len(files) <= AT_MOST or counted(outcome)["failed"] != len(tests):
        return outcome
    print(f"\n== {outcome.step.name}: {REPEATS} times again: {', '.join(tests)}", flush=True)
    repeat = Step(outcome.step.name, [["pytest", "-m", "", *tests]] * REPEATS, 0)
    if run(repeat, live=True).code:
        return outcome
    return replace(outcome, code=0, unsteady=tests)


def counted(outcome: Outcome) -> Counter[str]:
    """Return how many tests of a step passed, failed and were skipped.

    From pytest's closing line. A step that fails without a failed test, such as a linter or a step
    without tests, is one failure.
    """
    closing = PYTEST.findall(outcome.output)
    numbers: Counter[str] = Counter()
    for number, word in COUNT.findall(closing[-1] if closing else ""):
        numbers["failed" if word.startswith("error") else word] += int(number)
    if outcome.unsteady:
        numbers["failed"] -= len(outcome.unsteady)
    if outcome.code and not numbers["failed"]:
        numbers["failed"] = 1
    return numbers


def table(outcomes: Sequence[Outcome], budgets: dict[str, float]) -> str:
    """Return the time of each step as a table for a person."""
    lines = [f"{'step':38} {'seconds':>8} {'budget':>7} {'CPU':>6} {'load':>6}"]
    for one in outcomes:
        budget = budgets[one.step.name]
        said = "FAILED" if one.code else "OVER BUDGET" if one.over(budget) else ""
        numbers = f"{one.seconds:8.0f} {budget:7.0f} {one.cpu:6.0f} {one.load:6.1f}"
        lines.append(f"{one.step.name:38} {numbers}  {said}".rstrip())
    return "\n".join(lines)


def budget_of(outcome: Outcome, *, whole: bool) -> float:
    """Return the seconds that a step may need, by what it had to do."""
    step = outcome.step
    if whole and step.whole is not None:
        return step.whole
    return step.budget + sum(step.each * int(number) for number in BREAKS.findall(outcome.output))


def main() -> int:
    """Run every step; print the table, and how many tests passed and failed.

    A step that fails does not hide what comes after it. Steps that would begin after LIMIT are not
    run, and count as failed.
    """
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="without the guest and without Docker")
    parser.add_argument(
        "--everything",
        action="store_true",
        help="both firewalls for each test, the full lists, Podman, arm64, a repeated build",
    )
    given = parser.parse_args()
    if given.everything:
        os.environ["LAB_EVERYTHING"] = "1"
    slower = float(os.environ.get("LAB_TIME", "1"))
    outcomes: list[Outcome] = []
    left = []
    began = time.monotonic()
    for group in steps(fast=given.fast, everything=given.everything):
        if not given.everything and time.monotonic() - began > LIMIT:
            left += [step.name for step in group]
        else:
            outcomes += [again(outcome) for outcome in run_together(group)]
    everything_broken = os.environ.get("LAB_BREAKS") == "all"
    budgets = {
        one.step.name: slower
        * budget_of(one, whole=given.everything or (everything_broken and bool(one.step.each)))
        for one in outcomes
    }
    print(f"\n{table(outcomes, budgets)}")
    print(f"in all {sum(one.seconds for one in outcomes):.0f} s of steps")
    late = [one.step.name for one in outcomes if one.over(budgets[one.step.name])]
    if late:
        print(f"more than {SLACK:g} times the budget: {', '.join(late)}")
    if left:
        print(f"not run, because {LIMIT} s were over: {', '.join(left)}")
    for test in (test for one in outcomes for test in one.unsteady):
        print(f"unsteady, failed once and then passed {REPEATS} times alone: {test}")
    numbers = sum(map(counted, outcomes), Counter())
    failed = numbers["failed"] + len(late) + len(left)
    print(f"{numbers['passed']} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
