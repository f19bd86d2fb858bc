"""What all tests share: the lab's fixtures, and the rule that CI may not skip.

A test marked `lab` needs root and the programs below. Where they are missing it is skipped with
the reason, but under CI=true it fails: a skip there would be a promise that nobody checked.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.lab.topology import Lab, sweep

LAB_PROGRAMS = ("ip", "nft", "wg", "wireguard-go", "nsenter", "unshare", "setpriv", "mount")


def lab_obstacle() -> str | None:
    """Return why this machine cannot run the lab, or None."""
    if os.geteuid() != 0:
        return "the lab needs root"
    missing = [program for program in LAB_PROGRAMS if shutil.which(program) is None]
    return f"the lab needs {', '.join(missing)}" if missing else None


def skip_or_fail(reason: str) -> None:
    """Skip on a laptop, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a skip in CI is a failure)", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("lab") is not None and (reason := lab_obstacle()):
        skip_or_fail(reason)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remove what a killed run left behind, once, before the first lab."""
    if any(item.get_closest_marker("lab") for item in session.items) and lab_obstacle() is None:
        sweep()


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Return a function that builds a lab with the options of `Lab`; it ends with the test."""
    with ExitStack() as stack:

        def build(**options: Any) -> Lab:
            return stack.enter_context(Lab(**options))

        yield build


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a lab with one uplink and one server, up and running."""
    return make_lab()
