"""A pytest plugin that writes each report as one line of JSON to a descriptor.

Used in the guest, where the descriptor is a port of the virtual machine, and on the host, where a
collection reports which tests there are. Standard library and pytest only.
"""

import json
import os
from typing import Any

import pytest

DESCRIPTOR = int(os.environ["REPORT_DESCRIPTOR"])
RUN = os.environ.get("GUEST_RUN", "")
"""The list that this session works through."""


class Reporter:
    """The hooks that report something."""

    def __init__(self, config: pytest.Config) -> None:
        """Keep `config`, which turns reports into plain data."""
        self.config = config

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Return which tests there are: node id, file, line and name of each."""
        self._notify("collected", tests=[(item.nodeid, item.location) for item in session.items])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Report a file that cannot be collected."""
        if report.failed:
            self._notify("report", report=self._plain(report))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Report the outcome of a test's setup, call or teardown."""
        self._notify("report", report=self._plain(report))

    def _plain(self, report: pytest.CollectReport | pytest.TestReport) -> dict[str, Any]:
        hook = self.config.hook
        plain: dict[str, Any] = hook.pytest_report_to_serializable(
            config=self.config, report=report
        )
        return plain

    def _notify(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "run": RUN, **fields}, default=str) + "\n"
        rest = line.encode()
        while rest:
            rest = rest[os.write(DESCRIPTOR, rest) :]


def pytest_configure(config: pytest.Config) -> None:
    """Register the reporter."""
    config.pluginmanager.register(Reporter(config))
