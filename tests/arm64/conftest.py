"""A root file system of arm64, made once, with the kernel running its programs by qemu-user."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm64 import emulator, root
from tests.conftest import skip_or_fail


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("arm64") is not None and (reason := emulator.obstacle()):
        skip_or_fail(reason)


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """Yield the root; afterwards it is gone, and the kernel runs programs of arm64 no more."""
    with (
        tempfile.TemporaryDirectory(prefix="portcullis-arm64-", dir="/var/tmp") as directory,
        emulator.emulated(),
    ):
        yield root.make(Path(directory))
    assert emulator.registered() == []
