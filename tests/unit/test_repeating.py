"""tests/repeating.py: which failures scripts/testing.py may repeat, and which are final."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.errors import LabError
from tests.repeating import may_be_repeated

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "of_promise", "may"),
    [
        (LabError("waited 9 s for the tunnel"), True, True),
        (AssertionError("control: the flood gets out\nassert not []"), True, True),
        (AssertionError("assert 1 == 2"), False, True),
        (AssertionError("assert 1 == 2"), True, False),
        (AssertionError("assert [Frame(at=1.0)] == []"), False, False),
        (AssertionError("assert not [b'x']\n +  where [b'x'] = containing('xdp')"), False, False),
        (
            AssertionError("assert ['10.0.0.1 > 1.1.1.1'] == []\n + where = leaks(3.0)"),
            False,
            False,
        ),
        (KeyError("endpoint"), False, False),
    ],
)
def test_leaks_promises_and_errors_of_the_code_are_final(
    error: BaseException, *, of_promise: bool, may: bool
) -> None:
    """A wait that ran out, a failed control, and an assertion that is about neither may pass."""
    assert may_be_repeated(error, of_promise=of_promise) is may


FAILING = """
import pytest
from hypothesis import given, strategies
from tests.lab.errors import LabError

@pytest.mark.parametrize("case", ["a b", "c"])
def test_waits(case): raise LabError(case)

@pytest.mark.promise("P1")
def test_promise(): assert 1 == 2

def test_figure(): assert 1 == 2

@pytest.fixture(scope="module")
def lab(): raise LabError("no lab")

def test_in_lab(lab): pass

def test_passes(): pass

@given(strategies.just(1))
def test_found(one): assert one == 2
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_pytest_lists_what_may_be_repeated(tmp_path: Path, processes: str) -> None:
    """The same from one process and from several, with the names that pytest takes."""
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import pytest_runtest_makereport, pytest_terminal_summary\n", "utf-8"
    )
    (tmp_path / "test_it.py").write_text(FAILING, "utf-8")
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-n", processes]
    command = [sys.executable, "-m", "pytest", *config, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    listed = [line for line in done.stdout.splitlines() if line.startswith("may be repeated: ")]
    assert [line.partition("::")[2] for line in listed] == [
        "test_figure", "test_in_lab", "test_waits[a b]", "test_waits[c]",
    ], done.stdout  # fmt: skip
