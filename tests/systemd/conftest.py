"""A machine that runs systemd, on an engine with the site around it, built once for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.docker import engine as engines
from tests.docker import site as sites
from tests.docker.engine import Engine, left_behind, missing
from tests.docker.images import LAB, PROJECT, build_all
from tests.docker.site import Site
from tests.systemd.machine import Machine, build

TIME_LIMIT = 900  # seconds: the first test waits for the build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this directory the time that building takes."""
    for item in items:
        if item.get_closest_marker("systemd") is not None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("systemd") is not None and (lacks := missing()):
        skip_or_fail(f"the tests with systemd need {', '.join(lacks)}")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield an engine that has built all images and saved two of them, stopped."""
    engines.sweep()
    sites.sweep()
    engine = Engine()
    try:
        engine.start(None)
        build_all(engine)
        build(engine)
        engine.docker("save", "-o", str(archive_of(engine)), PROJECT, LAB, timeout=300)
        engine.stop()
        yield engine
    finally:
        engine.close()
    assert left_behind(engine.directory.name) == []


@pytest.fixture(scope="session")
def site(engine: Engine) -> Iterator[Site]:
    """Yield the networks, the server and the hosts around the machine."""
    with Site(engine) as site:
        yield site


@pytest.fixture(scope="module")
def machine(site: Site) -> Iterator[Machine]:
    """Yield a machine on which systemd runs, another one for each module."""
    made = Machine(site.engine, "machine")
    try:
        made.up(site, archive_of(site.engine))
        yield made
    finally:
        made.remove()


def archive_of(engine: Engine) -> Path:
    """Return the file with the images, which goes with the engine."""
    return engine.directory / "images.tar"
