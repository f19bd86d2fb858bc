"""Which failed tests scripts/testing.py runs again, alone.

A test in the lab can fail because the machine was busy: a wait ran out, or a control did not get
through. Such a test is run again, and reported as unsteady. What may be a leak is never run again:
a packet that got out once is one too many.
"""

import re

import pytest

from tests.lab.errors import LabError

PROPERTY = "may be repeated"
_PACKETS = re.compile(r"\bFrame\(|\bleaks\b|\bcontaining\b")


def may_be_repeated(error: BaseException, *, of_promise: bool) -> bool:
    """Return whether a test that failed with `error` may be run again.

    `of_promise` says that it has the mark `promise`: then only a wait that ran out (LabError) and
    a failed control do not count. In other tests an assertion does not either, unless it is about
    packets.
    """
    if isinstance(error, LabError):
        return True
    if not isinstance(error, AssertionError):
        return False
    text = str(error)
    return text.startswith("control") or not (of_promise or _PACKETS.search(text))


def noted(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Note in the report of a failure that the test may be repeated; it crosses processes so.

    Hypothesis may not find a random example a second time, so such a failure is final too.
    """
    random = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if report.failed and call.excinfo is not None and not random:
        promise = item.get_closest_marker("promise") is not None
        if may_be_repeated(call.excinfo.value, of_promise=promise):
            report.user_properties.append((PROPERTY, True))


def listed(failures: list[pytest.TestReport]) -> list[str]:
    """Return a line for each failed test that may be repeated in all that failed of it."""
    final = {report.nodeid for report in failures if (PROPERTY, True) not in _pairs(report)}
    return [f"{PROPERTY}: {name}" for name in sorted({r.nodeid for r in failures} - final)]


def _pairs(report: pytest.TestReport | pytest.CollectReport) -> list[tuple[str, object]]:
    """Return the properties; from another process they come as lists, a file's report has none."""
    return [(name, value) for name, value in getattr(report, "user_properties", ())]
