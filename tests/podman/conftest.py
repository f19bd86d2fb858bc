"""A Podman with the images of a Docker Engine, and the site around it, built once for all tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import tiers
from tests.docker.engine import left_behind
from tests.docker.images import LAB, PROJECT, build_all
from tests.podman.engine import Podman
from tests.podman.pod import Pod, PodSite

pytest_collection_modifyitems = tiers.pytest_collection_modifyitems
pytest_configure = tiers.pytest_configure
pytest_runtest_setup = tiers.pytest_runtest_setup
pytest_terminal_summary = tiers.pytest_terminal_summary
report = tiers.report


@pytest.fixture(scope="session")
def archive() -> Iterator[Path]:
    """Yield the file with both images, as a Docker Engine has built and saved them."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory) / "images.tar"
        with tiers.building() as engine:
            build_all(engine)
            engine.docker("save", "-o", str(path), PROJECT, LAB, timeout=300)
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
