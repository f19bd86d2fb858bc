"""A Docker Engine that builds, for the tests that build the image more than once."""

from collections.abc import Iterator

import pytest

from tests.conftest import skip_or_fail
from tests.docker import engine as engines
from tests.docker.engine import Engine, left_behind, missing
from tests.docker.images import base_archive, import_base

TIME_LIMIT = 900  # seconds: one test builds twice, with nothing kept


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this directory the time that building takes."""
    for item in items:
        if item.get_closest_marker("image") is not None:
            item.add_marker(pytest.mark.timeout(TIME_LIMIT))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("image") is not None and (lacks := missing()):
        skip_or_fail(f"the tests that build the image need {', '.join(lacks)}")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Yield an engine with the machine's network and the base; it is gone at the end."""
    engines.sweep()
    engine = Engine()
    try:
        engine.start(None)
        import_base(engine, base_archive())
        yield engine
    finally:
        engine.close()
    assert left_behind(engine.directory.name) == []
