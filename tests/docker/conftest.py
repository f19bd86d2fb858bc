"""The engine, the images and the site, built once for all tests marked `docker`."""

import os
from collections.abc import Iterator

import pytest

from tests.conftest import skip_or_fail
from tests.docker import engine as engines
from tests.docker import site as sites
from tests.docker.engine import Engine, left_behind, missing
from tests.docker.images import build_all
from tests.docker.project import Project
from tests.docker.providers import playing
from tests.docker.site import Site

collect_ignore = [] if os.environ.get("LAB_EVERYTHING") == "1" else ["test_torrent_clients.py"]
REPORT = pytest.StashKey[list[str]]()
TIME_LIMIT = 900  # seconds: the first test waits for debootstrap and the build


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what the tests print at the end."""
    config.stash[REPORT] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this directory the time that building takes."""
    for item in items:
        if item.get_closest_marker("docker") is not None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("docker") is not None and (lacks := missing()):
        skip_or_fail(f"the tests on Docker need {', '.join(lacks)}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the tests report in addition to passed and failed."""
    if lines := config.stash[REPORT]:
        terminalreporter.section("the image on Docker")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> list[str]:
    """Return the list of lines that are printed at the end of the run."""
    return pytestconfig.stash[REPORT]


@pytest.fixture(scope="session")
def engine(report: list[str]) -> Iterator[Engine]:
    """Yield an engine that has built all images, stopped; it is gone at the end."""
    engines.sweep()
    sites.sweep()
    engine = Engine()
    try:
        engine.start(None)
        seconds = build_all(engine)
        engine.stop()
        report.append(", ".join(f"{step} {took:.0f} s" for step, took in seconds.items()))
        yield engine
    finally:
        engine.close()
    assert left_behind(engine.directory.name) == []


@pytest.fixture(scope="session")
def site(engine: Engine) -> Iterator[Site]:
    """Yield the machine, its networks, the server and the hosts around it."""
    with Site(engine) as site:
        yield site


@pytest.fixture(scope="session")
def providers(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Play the providers of VPNs; their lists are served until the end of the run."""
    with playing(site, tmp_path_factory.mktemp("providers")):
        yield


@pytest.fixture(scope="module")
def project(site: Site) -> Iterator[Project]:
    """Yield compose.example.yml, up and running, for the tests of one module."""
    project = Project(site)
    try:
        project.up()
        yield project
    finally:
        project.down()
