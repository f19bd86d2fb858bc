"""Tests that run in the guest, as pytest items of the host with the guest's own reports."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    "LAB_PATIENCE": "8",
    "PYTEST_TIMEOUT": "240",
}
"""Environment of every run in the guest; emulation is about ten times slower."""
REPORTER = "tests.kernel.guest.reporter"
SILENCE = 300.0
"""Longest time without a report in seconds; the guest's own limit of a test is shorter."""
TOTAL = 600.0
"""Longest time of the whole guest in seconds, unless everything is asked for."""

_KEY = pytest.StashKey["Session | str"]()
_MACHINE = pytest.StashKey[Machine]()

Location = tuple[str, int | None, str]


class GuestList(pytest.File):
    """The file that lists the runs."""

    def collect(self) -> Iterator["GuestRun"]:
        """Yield the runs."""
        for name, table in tomllib.loads(self.path.read_text(encoding="utf-8"))["runs"].items():
            environment = ENVIRONMENT | table.get("environment", {})
            if "CI" in os.environ:
                environment["CI"] = os.environ["CI"]
            yield GuestRun.make(self, name, table["tests"], environment)


class GuestRun(pytest.Collector):
    """One pytest session in the guest, collected on the host."""

    tests: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def make(
        cls,
        parent: GuestList,
        name: str,
        tests: Sequence[str],
        environment: Mapping[str, str],
    ) -> Self:
        """Make the node."""
        node: Self = cls.from_parent(parent, name=name)
        node.tests = tests
        node.environment = environment
        return node

    def collect(self) -> Iterator["GuestModule"]:
        """Ask pytest which tests there are, with the run's environment."""
        modules: dict[str, list[tuple[str, Location]]] = {}
        for test, location in collected(self.tests, self.environment):
            modules.setdefault(test.partition("::")[0], []).append((test, location))
        for name, tests in modules.items():
            yield GuestModule.make(self, name, tests)


class GuestModule(pytest.Collector):
    """One file of tests."""

    tests: Sequence[tuple[str, Location]]

    @classmethod
    def make(cls, parent: GuestRun, name: str, tests: Sequence[tuple[str, Location]]) -> Self:
        """Make the node."""
        node: Self = cls.from_parent(parent, name=name)
        node.tests = tests
        return node

    def collect(self) -> Iterator["GuestItem"]:
        """Yield the tests."""
        for test, location in self.tests:
            yield GuestItem.make(self, test, location)


class GuestItem(pytest.Item):
    """One test in the guest."""

    test: str
    """Node id as the guest's pytest knows it."""
    where: Location
    run: GuestRun

    @classmethod
    def make(cls, parent: GuestModule, test: str, where: Location) -> Self:
        """Make the node."""
        node: Self = cls.from_parent(parent, name=test.partition("::")[2])
        node.test = test
        node.where = where
        run = parent.parent
        if not isinstance(run, GuestRun):
            raise TypeError(run)
        node.run = run
        node.add_marker("kernel")
        node.add_marker(pytest.mark.timeout(0))  # the first one waits for the image and the boot
        return node

    def runtest(self) -> None:
        """Do nothing here: `reports` replaces the host's own protocol."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the test stands, for headlines."""
        name, line, _ = self.where
        return self.config.rootpath / name, line, f"{self.name} (guest, {self.run.name})"

    def reports(self) -> Iterator[pytest.TestReport]:
        """Yield the guest's reports of this test, or one that says why there are none."""
        if (reason := image.obstacle()) is not None:
            yield self._skipped(f"tests/kernel cannot run here: {reason}")
            return
        session = _session(self)
        if isinstance(session, str):
            yield self._failed(session)
            return
        try:
            for report in session.reports(self.run.name, self.test):
                yield self._translated(report)
        except NoReport as err:
            yield self._failed(str(err), self.session.stash[_MACHINE].console())

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
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as results:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", REPORTER, *tests],
            cwd=image.ROOT,
            env=os.environ | environment | {"REPORT_DESCRIPTOR": str(writing)},
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        os.close(writing)
        output = process.communicate()[0]
        if process.returncode:
            raise pytest.Collector.CollectError(output)
        events = [json.loads(line) for line in results]
    return [
        (test, tuple(location))
        for event in events
        if event["event"] == "collected"
        for test, location in event["tests"]
    ]


def end(session: pytest.Session) -> None:
    """Switch the guest off, if there is one."""
    machine = session.stash.get(_MACHINE, None)
    if machine is not None:
        machine.close()


def _session(item: GuestItem) -> Session | str:
    """Return the guest's session, started for the first item, or why it could not start."""
    stash = item.session.stash
    if _KEY not in stash:
        try:
            stash[_KEY] = _start(item.session)
        except (LabError, OSError) as err:
            stash[_KEY] = f"the guest could not be started: {err}"
    return stash[_KEY]


def _start(session: pytest.Session) -> Session:
    tell = _teller(session.config)
    built = image.image(tell)
    chosen: dict[GuestRun, list[str]] = {}
    for item in session.items:
        if isinstance(item, GuestItem):
            chosen.setdefault(item.run, []).append(item.test)
    runs = [Run(run.name, tests, run.environment) for run, tests in chosen.items()]
    session.stash[_MACHINE] = machine = Machine(built, runs)
    return Session(machine, silence=SILENCE, total=TOTAL, tell=tell)


def _teller(config: pytest.Config) -> Callable[[str], None]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")

    def tell(line: str) -> None:
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"kernel guest: {line}")

    return tell


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"
