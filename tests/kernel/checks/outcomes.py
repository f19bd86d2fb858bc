"""Tests with every outcome there is, to be run in the guest and judged by test_harness.py."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def bad_end() -> Iterator[None]:
    """Fail after the test."""
    yield
    raise RuntimeError("the teardown went wrong")


def test_passes_with_the_runs_environment() -> None:
    """Pass."""
    assert os.environ["OUTCOME"] == "from the list"


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_fails(address: str) -> None:
    """Fail with values to show and output to capture."""
    print(f"asked {address}")  # noqa: T201 - captured and shown with the failure
    answer = {"address": address, "seen": "leaked"}
    assert answer["seen"] == "refused"


def test_skips() -> None:
    """Skip."""
    pytest.skip("for a reason of the guest")


@pytest.mark.xfail(reason="expected", strict=True)
def test_fails_as_expected() -> None:
    """Fail, as announced."""
    assert os.getpid() == 0


def test_passes_and_ends_badly(bad_end: None) -> None:
    """Pass with an error in the teardown."""


def test_crashes_the_guest() -> None:
    """Make the guest's kernel panic."""
    Path("/proc/sysrq-trigger").write_text("c", encoding="ascii")
    time.sleep(60)


def test_comes_too_late() -> None:
    """Never run."""
