"""The lock files: every dependency of pyproject.toml is in one, pinned and with hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WANTED = {
    "requirements.lock": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["iptables"],
    ],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
    "requirements-dev.lock": PROJECT["dependency-groups"]["dev"],
    "requirements-fuzz.lock": PROJECT["dependency-groups"]["fuzz"],
    "requirements-kubernetes.lock": PROJECT["dependency-groups"]["kubernetes"],
}
APART = {"requirements-fuzz.lock", "requirements-kubernetes.lock"}
"""Those that have an environment of their own."""


def pins(name: str) -> dict[str, str]:
    """Return the version of each package in a lock file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    starts = [line for line in lines if line and not line.startswith((" ", "#"))]
    found = (re.fullmatch(r"([\w.-]+)==(\S+)( ; .*)? \\", line) for line in starts)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize("name", WANTED)
def test_every_requirement_of_the_project_is_pinned_as_it_asks(name: str) -> None:
    """A dependency that is added or moved without `scripts/lock` is noticed here."""
    pinned = pins(name)
    for text in WANTED[name]:
        wanted = Requirement(text)
        version = pinned.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted.name} is not in {name}: run scripts/lock"
        assert wanted.specifier.contains(version), f"{text}, but {name} has {version}"


@pytest.mark.parametrize("name", WANTED)
def test_every_pin_has_hashes_and_no_file_names_an_index(name: str) -> None:
    """What is installed is what was locked, from whatever index the machine uses."""
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = [part for part in re.split(r"\n(?=\w)", text) if re.match(r"\w", part)]
    assert len(entries) == len(pins(name)) > 0
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_the_lock_files_agree_with_each_other() -> None:
    """All but those with an environment of their own can be installed into one."""
    together: dict[str, str] = {}
    for name in WANTED.keys() - APART:
        for package, version in pins(name).items():
            assert together.setdefault(package, version) == version, package
