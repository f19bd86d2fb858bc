"""A machine that runs systemd, on an engine with the site around it, built once for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import tiers
from tests.docker.engine import Engine
from tests.docker.images import LAB, PROJECT, build_all
from tests.docker.site import Site
from tests.systemd.machine import Machine, build

pytest_collection_modifyitems = tiers.pytest_collection_modifyitems
pytest_runtest_setup = tiers.pytest_runtest_setup
site = tiers.site


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield an engine that has built the images and saved two of them, stopped."""
    with tiers.building() as engine:
        build_all(engine)
        build(engine)
        engine.docker("save", "-o", str(archive_of(engine)), PROJECT, LAB, timeout=300)
        engine.stop()
        yield engine


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
