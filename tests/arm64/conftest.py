"""A root file system of arm64, and an engine, with the kernel running its programs by qemu-user."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm64 import emulator, root
from tests.conftest import skip_or_fail
from tests.docker import tiers
from tests.docker.engine import Engine, missing


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("arm64") is None:
        return
    if reason := emulator.obstacle():
        skip_or_fail(reason)
    if "engine" in getattr(item, "fixturenames", ()) and (lacks := missing()):
        skip_or_fail(f"the image needs {', '.join(lacks)}")


@pytest.fixture(scope="session")
def emulation() -> Iterator[None]:
    """Have the kernel run programs of arm64, and no more of them afterwards."""
    with emulator.emulated():
        yield
    assert not emulator.is_registered()


@pytest.fixture(scope="session")
def made(emulation: None) -> Iterator[Path]:  # noqa: ARG001 - it runs the programs
    """Yield the root; afterwards it is gone."""
    with tempfile.TemporaryDirectory(prefix="portcullis-arm64-", dir="/var/tmp") as directory:
        yield root.make(Path(directory))


@pytest.fixture(scope="session")
def engine(emulation: None) -> Iterator[Engine]:  # noqa: ARG001 - it runs the programs
    """Yield an engine with the machine's network. It looks at its start what it can build for."""
    with tiers.building() as engine:
        yield engine
