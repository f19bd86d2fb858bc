"""The guest's second disk: the project's wheel, the tests, and what to run; made for each run."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.image import ROOT, Image
from tests.lab.errors import LabError

_WHEEL_SOURCES = ("pyproject.toml", "README.md", "gateway", "healthcheck")
_TESTS = "tests"
_ROOM = 32  # MiB


@dataclass(frozen=True)
class Run:
    """One pytest session in the guest."""

    name: str
    tests: Sequence[str]
    """Node ids, as the guest's pytest knows them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    modules: Sequence[str] = ()
    """Kernel modules to load before."""


def write_disk(path: Path, image: Image, runs: Sequence[Run], workshop: Path) -> None:
    """Write the disk to `path`, an ext4 file; `workshop` is an empty directory to work in.

    The project is installed in the guest as a user installs it, from its wheel, so the disk has
    the tests but no source of the gateway.
    """
    tree = workshop / "tree"
    project = tree / "project"
    ignored = shutil.ignore_patterns("__pycache__", "docker", ".*")
    shutil.copytree(ROOT / _TESTS, project / _TESTS, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", project)
    shutil.copy(Path(__file__).parent / "guest" / "init", tree)
    for number, run in enumerate(runs):
        folder = tree / "runs" / f"{number:02}"
        folder.mkdir(parents=True)
        environment = {**run.environment, "GUEST_RUN": run.name}
        for name, lines in (
            ("environment", [f"{k}={shlex.quote(v)}" for k, v in environment.items()]),
            ("modules", run.modules),
            ("tests", run.tests),
        ):
            (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    _build_wheel(image.build_tools, workshop / "source", tree)
    size = sum(file.stat().st_size for file in tree.rglob("*") if file.is_file())
    room = f"{(size >> 20) + _ROOM}M"
    _call(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree), str(path), room])


def _build_wheel(tools: Path, source: Path, target: Path) -> None:
    """Build the wheel with the locked setuptools in `tools`, from a copy of the source.

    A build leaves files next to its source, and other test runs may be at it.
    """
    source.mkdir()
    for name in _WHEEL_SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source)
    _call(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--no-index", "--no-build-isolation", "-w", str(target), str(source),
        ],
        {"PYTHONPATH": str(tools)},
    )  # fmt: skip


def _call(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        argv,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"{argv[0]}: exit {done.returncode}: {done.stderr}{done.stdout}")
