"""The project as `pip install` puts it on a host without a compiler."""

import re
import shutil
import sys
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.process import run

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("gateway", "healthcheck", "pyproject.toml", "README.md", "LICENSE")


def install(directory: Path) -> Path:
    """Build a wheel, install it without python-iptables, and return the directory of the programs.

    What it requires comes as wheels, in the versions of requirements.lock; nothing is compiled.
    Raises LabError.
    """
    source = directory / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(directory), str(source)]
    run([*pip, *built])
    (wheel,) = directory.glob("portcullis-*.whl")
    versions = directory / "versions"
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    versions.write_text("\n".join(re.findall(r"^[\w.-]+==\S+", locked, re.MULTILINE)), "utf-8")
    programs = directory / "environment/bin"
    run([sys.executable, "-m", "venv", "--without-pip", str(programs.parent)])
    into = ["--python", str(programs / "python")]
    run([*pip, *into, "install", "--only-binary", ":all:", "-c", str(versions), str(wheel)])
    if any(programs.parent.glob("lib/*/site-packages/iptc")):
        raise LabError("python-iptables was installed, too")
    return programs
