"""All unit tests on arm64, under qemu-user.

`cannot_pass.toml` lists those that cannot pass there, with what is missing, and a line of Python
that shows it. The list is compared with the run in both directions.
"""

import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.arm64.root import PROJECT, ROOT, command
from tests.lab.process import PATIENCE

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(0)]  # each run has its own limit

REPORT: Final = "report.xml"
RUN_TIME: Final = 3 * 3600
"""Seconds. Under qemu-user Python takes some twenty times as long."""
OPTIONS: Final = (
    *("-q", "-p", "no:cacheprovider", "--assert=plain", "-m", "not long"),
    *("--timeout=1500", f"--junit-xml={REPORT}"),
)
PATIENCE_THERE: Final = "LAB_PATIENCE=10"
LEAST: Final = 8000
"""Tests of a whole run."""


@dataclass(frozen=True)
class Lack:
    """What the emulation or this root lacks; `shown_by` raises there, and not here."""

    name: str
    reason: str
    tests: Sequence[str]
    shown_by: str


LISTED: Final = [
    Lack(name, **entry)
    for name, entry in tomllib.loads(
        Path(__file__).with_name("cannot_pass.toml").read_text("utf-8")
    ).items()
]


def is_of(test: str, entry: str) -> bool:
    """Return whether an entry names the test: by itself, its function or its file."""
    return test == entry or test.startswith((f"{entry}[", f"{entry}::"))


def run(root: Path, *arguments: str) -> Mapping[str, bool]:
    """Run unit tests in the root; return whether each passed, by its name."""
    words = ("env", "-C", PROJECT, "CI=true", PATIENCE_THERE, "python3", "-m", "pytest", *OPTIONS)
    done = subprocess.run(
        command(root, *words, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_TIME * PATIENCE,
        check=False,
    )
    report = root / PROJECT.lstrip("/") / REPORT
    assert report.exists(), done.stdout
    outcomes: dict[str, bool] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - of our own tests
        file = case.attrib["classname"].replace(".", "/")
        name = f"{file}.py::{case.attrib['name']}"
        outcomes[name] = outcomes.get(name, True) and not any(
            case.find(kind) is not None for kind in ("failure", "error", "skipped")
        )
    report.unlink()
    sys.stdout.write(done.stdout)
    return outcomes


def unexpected(outcomes: Mapping[str, bool]) -> Sequence[str]:
    """Return the tests that have not passed and are not listed."""
    entries = [entry for lack in LISTED for entry in lack.tests]
    failed = [test for test, passed in outcomes.items() if not passed]
    return [test for test in failed if not any(is_of(test, entry) for entry in entries)]


@pytest.fixture(scope="module")
def outcomes(made: Path) -> Mapping[str, bool]:
    """Return whether each test passed. Those that should and did not have one more try, alone."""
    found = dict(run(made, "-n", "2", "--dist", "loadfile", "tests/unit"))
    if again := unexpected(found):
        found |= run(made, *again)
    return found


def test_every_unit_test_passes_that_is_not_listed(outcomes: Mapping[str, bool]) -> None:
    """A test that is skipped has not passed."""
    assert len(outcomes) > LEAST
    assert unexpected(outcomes) == []


def test_the_list_has_no_test_that_passes(outcomes: Mapping[str, bool]) -> None:
    """Nor one that is gone."""
    for lack in LISTED:
        for entry in lack.tests:
            found = {test: passed for test, passed in outcomes.items() if is_of(test, entry)}
            assert found, entry
            assert not any(found.values()), found


@pytest.mark.parametrize("lack", LISTED, ids=lambda it: it.name)
def test_what_is_missing_is_missing(made: Path, lack: Lack) -> None:
    """And this machine has it."""
    here = [sys.executable, "-c", lack.shown_by]
    there = command(made, "env", "-C", PROJECT, "python3", "-c", lack.shown_by)
    assert subprocess.run(here, cwd=ROOT, check=False, timeout=60).returncode == 0
    assert subprocess.run(there, check=False, timeout=600).returncode != 0
