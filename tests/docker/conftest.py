"""The engine, the images and the site, built once for all tests marked `docker`."""

import os
from collections.abc import Iterator

import pytest

from tests.docker import tiers
from tests.docker.engine import Engine
from tests.docker.images import build_all, build_more
from tests.docker.project import Project
from tests.docker.providers import playing
from tests.docker.site import Site

collect_ignore = [] if os.environ.get("LAB_EVERYTHING") == "1" else ["test_torrent_clients.py"]

pytest_collection_modifyitems = tiers.pytest_collection_modifyitems
pytest_configure = tiers.pytest_configure
pytest_runtest_setup = tiers.pytest_runtest_setup
pytest_terminal_summary = tiers.pytest_terminal_summary
report = tiers.report
site = tiers.site


@pytest.fixture(scope="session")
def engine(report: list[str]) -> Iterator[Engine]:
    """Yield an engine that has built all images, stopped."""
    with tiers.building() as engine:
        seconds = build_all(engine) | build_more(engine)
        engine.stop()
        report.append(", ".join(f"{step} {took:.0f} s" for step, took in seconds.items()))
        yield engine


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
