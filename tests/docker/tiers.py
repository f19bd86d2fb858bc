"""What tests/docker, image, podman and systemd share: when a test can run, and the engine for it.

Each of their conftest.py takes the hooks and fixtures that it needs from here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.conftest import skip_or_fail
from tests.docker import engine as engines
from tests.docker import site as sites
from tests.docker.engine import Engine, left_behind
from tests.docker.site import Site
from tests.lab.process import PATIENCE
from tests.podman import engine as podmans

REPORT = pytest.StashKey[list[str]]()
TIME_LIMIT = 900
"""Seconds for a test (times LAB_PATIENCE): the first one waits for debootstrap and the builds."""

TIERS: Mapping[str, Callable[[], list[str]]] = {
    "docker": engines.missing,
    "image": engines.missing,
    "podman": lambda: [*engines.missing(), *podmans.missing()],
    "systemd": engines.missing,
}
"""What this machine lacks, for each mark."""


def tier_of(item: pytest.Item) -> str | None:
    """Return which of these marks a test has."""
    return next((mark for mark in TIERS if item.get_closest_marker(mark) is not None), None)


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what the tests print at the end."""
    config.stash.setdefault(REPORT, [])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests the time that building takes."""
    for item in items:
        if tier_of(item) is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT * PATIENCE))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    tier = tier_of(item)
    if tier is not None and (lacks := TIERS[tier]()):
        skip_or_fail(f"the tests marked {tier} need {', '.join(lacks)}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the tests report in addition to passed and failed, once."""
    if lines := config.stash[REPORT]:
        terminalreporter.section("measured on the engine")
        for line in lines:
            terminalreporter.write_line(line)
        lines.clear()


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> list[str]:
    """Return the list of lines that are printed at the end of the run."""
    return pytestconfig.stash[REPORT]


@contextmanager
def building() -> Iterator[Engine]:
    """Yield an engine with the machine's network, for builds; it is gone at the end."""
    engines.sweep()
    sites.sweep()
    engine = Engine()
    try:
        engine.start(None)
        yield engine
    finally:
        engine.close()
    assert left_behind(engine.directory.name) == []


@pytest.fixture(scope="session")
def site(engine: Engine) -> Iterator[Site]:
    """Yield the machine, its networks, the server and the hosts around it."""
    with Site(engine) as site:
        yield site
