"""The list of unit tests that cannot pass on emulated arm64, of which a run takes an hour."""

import ast
from pathlib import Path

import pytest

from tests.arm64.test_units import LISTED, is_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("entry", [entry for lack in LISTED for entry in lack.tests])
def test_what_is_listed_is_there(entry: str) -> None:
    """The file, and the function in it."""
    path, _, rest = entry.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = {it.name for it in ast.walk(tree) if isinstance(it, ast.FunctionDef)}
    assert not rest or rest.partition("[")[0] in functions


def test_each_lack_has_a_reason_and_what_shows_it() -> None:
    """So that none is on the list only because it failed."""
    assert all(lack.reason and lack.shown_by and lack.tests for lack in LISTED)


def test_an_entry_is_a_test_a_function_or_a_file() -> None:
    """And nothing that only begins alike."""
    test = "tests/unit/test_x.py::test_y[1]"
    for entry in (test, "tests/unit/test_x.py::test_y", "tests/unit/test_x.py"):
        assert is_of(test, entry)
    for entry in ("tests/unit/test_x.py::test", "tests/unit/test_x", f"{test[:-2]}2]"):
        assert not is_of(test, entry)
