"""A Podman with the images of a Docker Engine, and the site around it, built once for all tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.docker import engine as engines
from tests.docker import site as sites
from tests.docker.engine import Engine, left_behind
from tests.docker.images import LAB, PROJECT, build_all
from tests.podman.engine import Podman, missing
from tests.podman.pod import Pod, PodSite

TIME_LIMIT = 900  # seconds: the first test waits for the build
_REPORT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what the tests print at the end."""
    config.stash[_REPORT] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this directory the time that building takes."""
    for item in items:
        if item.get_closest_marker("podman") is not None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("podman") is None:
        return
    if lacks := [*engines.missing(), *missing()]:
        skip_or_fail(f"the tests on Podman need {', '.join(lacks)}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the tests report in addition to passed and failed."""
    if lines := config.stash[_REPORT]:
        terminalreporter.section("a pod on Podman")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> list[str]:
    """Return the list of lines that are printed at the end of the run."""
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def archive() -> Iterator[Path]:
    """Yield the file with both images, as a Docker Engine has built and saved them."""
    engines.sweep()
    sites.sweep()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory) / "images.tar"
        engine = Engine()
        try:
            engine.start(None)
            build_all(engine)
            engine.docker("save", "-o", str(path), PROJECT, LAB, timeout=300)
        finally:
            engine.close()
        yield path


@pytest.fixture(scope="session")
def site(archive: Path, report: list[str]) -> Iterator[PodSite]:
    """Yield the machine with Podman, its networks, the server and the hosts around it."""
    podman = Podman(archive)
    try:
        with PodSite(podman) as site:
            report.append(podman.docker("--version").strip())
            yield site
    finally:
        podman.close()
    assert left_behind(podman.directory.name) == []


@pytest.fixture(scope="module")
def pod(site: PodSite) -> Iterator[Pod]:
    """Yield the pod of docs/layouts.md, up and running."""
    pod = Pod(site)
    try:
        pod.up()
        yield pod
    finally:
        pod.down()
