"""scripts/mutating.py: which tests a mutant meets, and what their end says about it."""

import sys
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from scripts.mutants import mutants_of
from scripts.mutating import Selection, result_of
from scripts.mutation_report import KILLED, SURVIVED, TIMED_OUT, UNCLEAR
from scripts.mutation_traces import (
    MOST_TESTS,
    ROOT,
    Traces,
    imports_of,
    is_called_by_test,
    module_of,
)

FILE = "gateway/policy/x.py"
TEXT = "LIMIT = 5\n\ndef wait(tries):\n    return min(tries, LIMIT + 1)\n"
MUTANTS = {mutant.change: mutant for mutant in mutants_of(FILE, TEXT)}
AT_IMPORT, INSIDE = MUTANTS["5 -> 6"], MUTANTS["1 -> 2"]


def record(**others: Any) -> dict[str, Any]:
    """Return what the trace of a file of tests has, with `others`."""
    empty = {"failing": [], "tests": {}, "collecting": {}, "importing": {}, "imports": []}
    return empty | others


def met(mutant: Any, *records: dict[str, Any]) -> list[str]:
    """Return the tests that `mutant` meets after these records."""
    traces = Traces()
    for one in records:
        traces.add(one)
    return traces.tests_of(mutant)


def test_a_mutant_in_a_function_meets_the_tests_that_execute_its_line() -> None:
    """The fastest first; one that fails by itself proves nothing."""
    tests = {
        "t.py::slow": (2.0, {FILE: [3, 4]}),
        "t.py::fast": (1.0, {FILE: [4]}),
        "t.py::other": (0.1, {FILE: [3], "gateway/policy/y.py": [4]}),
        "t.py::broken": (0.1, {FILE: [4]}),
    }
    assert met(INSIDE, record(tests=tests, failing=["t.py::broken"])) == [
        "t.py::fast",
        "t.py::slow",
    ]


def test_what_a_file_of_tests_calls_as_it_is_imported_is_for_all_of_its_tests() -> None:
    """Their constants are made of it."""
    tests: dict[str, Any] = {"t.py::one": (1.0, {}), "t.py::two": (0.5, {})}
    traced = record(tests=tests, collecting={FILE: [4]})
    assert met(INSIDE, traced) == ["t.py::two", "t.py::one"]
    assert met(INSIDE, record(tests=tests, imports=["gateway.policy.x"])) == []


def test_what_runs_at_the_import_meets_the_tests_that_import_the_module() -> None:
    """Those that name it come before those that only execute something of it."""
    tests = {"a.py::one": (3.0, {})}
    named = record(tests=tests, imports=["gateway.policy.x"])
    other = record(tests={"b.py::one": (0.1, {FILE: [4]}), "b.py::two": (0.1, {})})
    assert met(AT_IMPORT, named, other) == ["a.py::one", "b.py::one"]
    assert met(INSIDE, named) == []
    called = record(tests=tests, imports=["gateway.policy.x"], importing={FILE: [4]})
    assert met(INSIDE, called) == ["a.py::one"], "the import of the module calls the function"


def test_tests_that_take_long_in_all_are_left_out() -> None:
    """So that one survivor does not cost an hour."""
    tests = {f"t.py::{n}": (MOST_TESTS / 4, {FILE: [4]}) for n in range(9)}
    assert len(met(INSIDE, record(tests=tests))) == 3


@pytest.mark.parametrize(
    ("code", "result"),
    [(None, TIMED_OUT), (0, SURVIVED), (1, KILLED), (2, KILLED), (5, SURVIVED), (-11, KILLED)],
)
def test_the_end_of_the_tests_is_judged(code: int | None, result: str) -> None:
    """A mutant that leaves no test to run has not been killed."""
    assert result_of(code) == result


@pytest.mark.parametrize("code", [3, 4, 70])
def test_a_mutant_whose_tests_could_not_be_run_is_not_killed(code: int) -> None:
    """It is listed among the survivors."""
    assert result_of(code) == UNCLEAR


def test_the_modules_that_a_file_imports_are_found_by_name() -> None:
    """Wherever the import is, and in both of its forms."""
    text = (
        "import gateway.policy.y\nimport sys\nfrom gateway.policy import x\n"
        "def test():\n    from gateway.daemon.inbox import Inbox\n"
    )
    assert imports_of(text) == [
        "gateway.daemon.inbox",
        "gateway.daemon.inbox.Inbox",
        "gateway.policy",
        "gateway.policy.x",
        "gateway.policy.y",
    ]
    assert module_of(FILE) == "gateway.policy.x"
    assert module_of("gateway/policy/__init__.py") == "gateway.policy"


def test_the_chosen_tests_run_in_their_order_and_renamed_ones_last() -> None:
    """A parameter that the mutant has changed is in the test's id."""
    known = {"t.py::a[1]": 0.1, "t.py::a[2]": 0.1, "t.py::b": 0.1}
    items: list[Any] = [
        SimpleNamespace(nodeid=nodeid)
        for nodeid in ("t.py::a[1-mutant]", "t.py::a[2]", "t.py::a[1]", "t.py::b", "t.py::c")
    ]
    Selection(["t.py::b", "t.py::a[1]"], known).pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == ["t.py::b", "t.py::a[1]", "t.py::a[1-mutant]"]


def frame_of(source: str, file: str) -> FrameType:
    """Return the frame of the function that a module with this source calls."""
    found: list[FrameType] = []
    names: dict[str, Any] = {"note": lambda: found.append(sys._getframe(1))}  # noqa: SLF001
    exec(compile(source, file, "exec"), names)  # noqa: S102 - a module of this test
    return found[0]


def test_a_function_is_called_by_a_test_or_by_the_import_of_a_module() -> None:
    """Only the former is for the tests of the file."""
    source = "def work():\n    note()\nwork()\n"
    assert not is_called_by_test(frame_of(source, f"{ROOT}/gateway/policy/x.py"))
    assert is_called_by_test(frame_of(source, f"{ROOT}/tests/unit/test_x.py"))
