"""The harness itself: what the guest does is what the report says, also when it does nothing."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.kernel import image
from tests.kernel.session import NoReport, Session
from tests.lab.errors import LabError


class ScriptedGuest:
    """A guest that reports a list of events, one a second, and then ends or goes silent."""

    def __init__(self, events: Sequence[dict[str, Any]], *, ends: bool = True) -> None:
        """Report `events`; then end, or stay without a word."""
        self.events = list(events)
        self.ends = ends
        self.now = 0.0

    def event(self, timeout: float) -> dict[str, Any] | None:
        """Return the next event."""
        self.now += 1 if self.events else timeout
        return self.events.pop(0) if self.events else None

    @property
    def ended(self) -> bool:
        """Return whether all has been reported."""
        return self.ends and not self.events


def report(test: str, when: str, **fields: Any) -> dict[str, Any]:
    """Return a report as the guest sends it."""
    return {"event": "report", "report": {"nodeid": test, "when": when, **fields}}


def listen(guest: ScriptedGuest, silence: float = 10, total: float = 100) -> Session:
    """Return a session on the guest's own clock."""
    return Session(
        guest, silence=silence, total=total, notify=lambda _: None, clock=lambda: guest.now
    )


def test_reports_are_sorted_by_test() -> None:
    """Each test gets its own reports, whatever came in between and in whatever order."""
    reported = [(test, when) for when in ("setup", "call", "teardown") for test in "ab"]
    session = listen(ScriptedGuest([report(test, when) for test, when in reported]))
    for test in "ba":
        assert [r["when"] for r in session.reports(test)] == ["setup", "call", "teardown"]


def test_a_test_of_two_runs_has_reports_of_each() -> None:
    """The second run has not reported what the first has, and the end of one is not the other's."""
    events = [
        {**report("a", "teardown", nodes="first"), "run": "first"},
        {"event": "ended", "run": "first", "status": 0, "after": 1.0},
        {**report("a", "teardown", nodes="second"), "run": "second"},
    ]
    session = listen(ScriptedGuest(events))
    assert [each["nodes"] for each in session.reports("a", "second")] == ["second"]
    assert [each["nodes"] for each in session.reports("a", "first")] == ["first"]
    with pytest.raises(NoReport, match="exit code 0 and did not report"):
        session.reports("b", "first")
    with pytest.raises(NoReport, match="ended early"):
        session.reports("b", "second")


def test_test_that_was_not_reported_has_a_reason_instead() -> None:
    """A pytest that ends without the test says so, with its error for the file."""
    events = [
        report("f.py", "collect", longrepr="SyntaxError: here"),
        {"event": "ended", "status": 2, "after": 9.0},
    ]
    session = listen(ScriptedGuest(events, ends=False))
    with pytest.raises(NoReport, match=r"(?s)exit code 2.*SyntaxError: here"):
        session.reports("f.py::a")


def test_guest_that_ends_fails_the_tests_that_it_owes() -> None:
    """The test at hand and all that follow fail; what was reported before is kept."""
    session = listen(ScriptedGuest([report("a", "teardown"), report("b", "setup")]))
    for test in "bc":
        with pytest.raises(NoReport, match="ended early"):
            session.reports(test)
    assert session.reports("a")


def test_silent_guest_is_given_up() -> None:
    """No word for too long ends the wait."""
    session = listen(ScriptedGuest([report("a", "setup")], ends=False))
    with pytest.raises(NoReport, match="silent for 10 s"):
        session.reports("a")


def test_guest_that_never_ends_is_given_up() -> None:
    """The limit of the whole counts also while the guest talks."""
    guest = ScriptedGuest([report(str(number), "teardown") for number in range(1000)])
    with pytest.raises(NoReport, match="100 s are over"):
        listen(guest).reports("500")


def test_guest_gets_the_test_tools_of_the_lock_with_their_hashes() -> None:
    """Only pytest and what it needs come from requirements-dev.lock, hash by hash."""
    lock = "pytest==9 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\nmypy==2 \\\n    --hash=x\n"
    others = "".join(
        f"{name}==1 \\\n    --hash=y\n" for name in image.TEST_TOOLS if name != "pytest"
    )
    chosen = image.tool_requirements(lock + others)
    assert "mypy" not in chosen
    assert chosen.startswith("pytest==9 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n")
    with pytest.raises(LabError, match=r"requirements-dev\.lock has 1 of"):
        image.tool_requirements(lock)


@pytest.mark.kernel
@pytest.mark.timeout(900)
def test_every_outcome_in_the_guest_reads_like_one_outside() -> None:
    """A guest with failing, skipping and crashing tests gives the report that pytest gives."""
    if (reason := image.obstacle()) is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "tests/kernel/checks/outcomes.toml"],
        cwd=image.ROOT,
        env=os.environ | {"CI": "true", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = dict(
        re.findall(
            r"^tests/kernel/checks/outcomes\.toml::.*\.py::(\S+) ([A-Z]+) ",
            done.stdout,
            re.MULTILINE,
        )
    )
    assert outcomes == {
        "test_fails[192.0.2.1]": "FAILED",
        "test_fails[2001:db8::1]": "FAILED",
        "test_skips": "FAILED",
        "test_fails_as_expected": "XFAIL",
        "test_passes_with_the_runs_environment": "PASSED",
        "test_passes_and_ends_badly": "ERROR",
        "test_crashes_the_guest": "FAILED",
        "test_comes_too_late": "FAILED",
    }
    source = (image.ROOT / "tests/kernel/checks/outcomes.py").read_text(encoding="utf-8")
    line = source[: source.index("assert answer")].count("\n") + 1
    for expected in (
        "asked 2001:db8::1",  # captured output
        'assert answer["seen"] == "refused"',  # the source
        "E       AssertionError: assert 'leaked' == 'refused'",  # the values
        f"tests/kernel/checks/outcomes.py:{line}: AssertionError",  # the place
        "a skip in CI is a failure: Skipped: for a reason of the guest",
        "RuntimeError: the teardown went wrong",
        "the guest ended early",
        "Kernel panic - not syncing: sysrq triggered crash",
    ):
        assert expected in done.stdout, done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.strip("= ").startswith("5 failed, 2 passed, 1 xfailed, 1 error")
