"""Tests that run in the guest, as pytest items of the host with the guest's own reports."""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.kernel import image
from tests.kernel.machine import Machine
from tests.kernel.project import Run
from tests.kernel.session import NoReport, Report, Session
from tests.lab.errors import LabError

ENVIRONMENT = {
    "LAB_WIREGUARD": "kernelspace",
    "LAB_FIREWALL": "auto",
    "LAB_PATIENCE": "20",  # emulation is slower by 10, and its host may have other things to do
    "PYTEST_TIMEOUT": "400",
}
"""Environment of every run in the guest."""
REPORTER = "tests.kernel.guest.reporter"
COLLECTION = 120.0
"""Longest time for collecting the tests of one run on the host in seconds."""
SILENCE = 500.0
"""Longest time without a report in seconds; the guest's own limit of a test is shorter."""
TOTAL = 1200.0
"""Longest time of a guest in seconds; on an idle processor it needs less than half of that."""
TOTAL_OF_EVERYTHING = 6 * 3600.0

_GUEST = pytest.StashKey["Guest | str"]()

Location = tuple[str, int | None, str]


@dataclass
class Guest:
    """A machine and what it reports."""

    machine: Machine
    session: Session
    heard: bool = False

    def last_words(self) -> str:
        """Return the end of the console, once; the tests that follow need not repeat it."""
        if self.heard:
            return ""
        self.heard = True
        return self.machine.console()


class GuestList(pytest.File):
    """The file that lists the runs."""

    def collect(self) -> Iterator["GuestRun"]:
        """Yield the runs."""
        listed = tomllib.loads(self.path.read_text(encoding="utf-8"))
        everything = listed.get("everything", ()) if _everything() else ()
        for name, table in listed["runs"].items():
            environment = ENVIRONMENT | table.get("environment", {})
            if "CI" in os.environ:
                environment["CI"] = os.environ["CI"]
            more = table.get("more", ()) if _more() else ()
            tests = [*table["tests"], *more, *everything]
            yield GuestRun.make(self, Run(name, tests, environment, table.get("modules", ())))


class GuestRun(pytest.Collector):
    """One pytest session in the guest, collected on the host."""

    run: Run

    @classmethod
    def make(cls, parent: GuestList, run: Run) -> Self:
        """Make the node for `run`, whose tests are files or node ids."""
        node: Self = cls.from_parent(parent, name=run.name)
        node.run = run
        return node

    def collect(self) -> Iterator["GuestModule"]:
        """Ask pytest which tests there are, with the run's environment."""
        modules: dict[str, dict[str, Location]] = {}
        for test, location in collected(self.run.tests, self.run.environment):
            modules.setdefault(test.partition("::")[0], {})[test] = location
        for name, tests in modules.items():
            yield GuestModule.make(self, name, tests)


class GuestModule(pytest.Collector):
    """One file of tests."""

    tests: Mapping[str, Location]

    @classmethod
    def make(cls, parent: GuestRun, name: str, tests: Mapping[str, Location]) -> Self:
        """Make the node."""
        node: Self = cls.from_parent(parent, name=name)
        node.tests = tests
        return node

    def collect(self) -> Iterator["GuestItem"]:
        """Yield the tests."""
        for test, location in self.tests.items():
            yield GuestItem.make(self, test, location)


class GuestItem(pytest.Item):
    """One test in the guest."""

    test: str
    """Node id as the guest's pytest knows it."""
    where: Location
    run: Run

    @classmethod
    def make(cls, parent: GuestModule, test: str, where: Location) -> Self:
        """Make the node."""
        node: Self = cls.from_parent(parent, name=test.partition("::")[2])
        node.test = test
        node.where = where
        run = parent.parent
        if not isinstance(run, GuestRun):
            raise TypeError(run)
        node.run = run.run
        node.add_marker("kernel")
        node.add_marker(pytest.mark.timeout(0))  # the first one waits for the image and the boot
        return node

    def runtest(self) -> None:
        """Do nothing here: `reports` replaces the host's own protocol."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the test is, for headlines."""
        name, line, _ = self.where
        return self.config.rootpath / name, line, f"{self.name} (guest, {self.run.name})"

    def reports(self) -> Iterator[pytest.TestReport]:
        """Yield the guest's reports of this test, or one that says why there are none."""
        if (reason := image.obstacle()) is not None:
            yield self._skipped(f"tests/kernel cannot run here: {reason}")
            return
        guest = _guest(self.session)
        if isinstance(guest, str):
            yield self._failed(guest)
            return
        try:
            for report in guest.session.reports(self.test, self.run.name):
                yield self._translated(report)
        except NoReport as err:
            yield self._failed(str(err), guest.last_words())

    def _translated(self, plain: Report) -> pytest.TestReport:
        """Return a report of the guest under this item's name."""
        plain = plain | {"nodeid": self.nodeid, "location": self.location}
        if isinstance(plain["longrepr"], list):  # a skip's place and reason, a tuple before JSON
            plain["longrepr"] = tuple(plain["longrepr"])
        if plain["outcome"] == "skipped" and "wasxfail" not in plain and _in_ci():
            plain["outcome"] = "failed"
            plain["longrepr"] = f"a skip in CI is a failure: {plain['longrepr'][2]}"
        report: pytest.TestReport = self.config.hook.pytest_report_from_serializable(
            config=self.config, data=plain
        )
        return report

    def _skipped(self, reason: str) -> pytest.TestReport:
        if _in_ci():
            return self._failed(f"{reason} (a skip in CI is a failure)")
        path, line, _ = self.location
        return self._report("skipped", (path, line or 0, f"Skipped: {reason}"))

    def _failed(self, reason: str, console: str = "") -> pytest.TestReport:
        report = self._report("failed", reason)
        if console:
            report.sections.append(("the guest's console", console))
        return report

    def _report(self, outcome: Any, longrepr: str | tuple[str, int, str]) -> pytest.TestReport:
        return pytest.TestReport(
            self.nodeid, self.location, dict.fromkeys(self.keywords, 1), outcome, longrepr, "call"
        )


def collected(tests: Sequence[str], environment: Mapping[str, str]) -> list[tuple[str, Location]]:
    """Return node id and location of each test that pytest finds, as the guest will find them."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as results:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", REPORTER, *tests],
            cwd=image.ROOT,
            env=os.environ | environment | {"REPORT_DESCRIPTOR": str(results.fileno())},
            pass_fds=(results.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COLLECTION,
        )
        if done.returncode:
            raise pytest.Collector.CollectError(done.stdout)
        results.seek(0)
        events = [json.loads(line) for line in results]
    return [
        (test, tuple(location))
        for event in events
        if event["event"] == "collected"
        for test, location in event["tests"]
    ]


def end(session: pytest.Session) -> None:
    """Switch the guest off."""
    guest = session.stash.get(_GUEST, "")
    if not isinstance(guest, str):
        guest.machine.close()


def _guest(session: pytest.Session) -> "Guest | str":
    """Return the guest, started for the first item, or why it is not."""
    if _GUEST not in session.stash:
        try:
            session.stash[_GUEST] = _start(session)
        except (LabError, OSError) as err:
            session.stash[_GUEST] = f"the guest could not be started: {err}"
    return session.stash[_GUEST]


def _start(session: pytest.Session) -> "Guest":
    """Start one guest for all runs of which there are items, in their order."""
    built = image.image(_notifier(session.config, "image"))
    runs: dict[str, Run] = {}
    for item in session.items:
        if isinstance(item, GuestItem):
            run = runs.get(item.run.name) or replace(item.run, tests=())
            runs[run.name] = replace(run, tests=(*run.tests, item.test))
    total = TOTAL_OF_EVERYTHING if _everything() else TOTAL
    machine = Machine(built, tuple(runs.values()))
    notify = _notifier(session.config, ", ".join(runs))
    return Guest(machine, Session(machine, silence=SILENCE, total=total, notify=notify))


def _notifier(config: pytest.Config, name: str) -> Callable[[str], None]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")

    def notify(line: str) -> None:
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"kernel guest {name}: {line}")

    return notify


def _everything() -> bool:
    return os.environ.get("KERNEL_ALL") == "1"


def _more() -> bool:
    return os.environ.get("LAB_EVERYTHING") == "1"


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"
