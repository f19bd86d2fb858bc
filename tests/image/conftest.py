"""A Docker Engine that builds, for the tests that build the image more than once."""

from collections.abc import Iterator

import pytest

from tests.docker import tiers
from tests.docker.engine import Engine
from tests.docker.images import base_archive, import_base

pytest_collection_modifyitems = tiers.pytest_collection_modifyitems
pytest_runtest_setup = tiers.pytest_runtest_setup


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Yield an engine with the machine's network and the base."""
    with tiers.building() as engine:
        import_base(engine, base_archive())
        yield engine
