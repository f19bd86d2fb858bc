"""CHANGELOG.md has the form that a release reads, and fits the version of the code."""

import subprocess
import sys

import pytest

from gateway import __version__
from scripts import changelog
from scripts.changelog import SECTION, UNRELEASED, entries, notes, numbers, released

TEXT = (changelog.ROOT / "CHANGELOG.md").read_text("utf-8")
SECTIONS = ("Breaking", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""Those of Keep a Changelog, and what a user has to read before an update."""

SAMPLE = """# Changelog

## [0.2.0] - 2027-01-02

### Breaking

- `A` is gone.

### Added

- B

## [0.1.0] - 2026-12-01

First.
"""


def test_only_the_first_entry_may_be_unreleased_and_versions_descend() -> None:
    """Each other one has a day; days and versions have one order."""
    first, *others = entries(TEXT)
    assert (first.name == UNRELEASED) == (not first.date)
    dated = [one for one in (first, *others) if one.date]
    assert all(one.date for one in others)
    assert [one.name for one in dated] == sorted(
        (one.name for one in dated), key=numbers, reverse=True
    )
    assert [one.date for one in dated] == sorted((one.date for one in dated), reverse=True)


def test_sections_have_the_names_that_people_know_in_their_order() -> None:
    """What breaks comes first."""
    for entry in entries(TEXT):
        names = SECTION.findall(entry.text)
        assert names == sorted(names, key=SECTIONS.index)
        assert all(entry.section(name).strip() for name in names)


def test_the_code_has_the_version_of_the_newest_release_or_a_later_one() -> None:
    """Without an unreleased entry it is that version."""
    newest = entries(TEXT)[0]
    if newest.date:
        assert newest.name == __version__
    assert numbers(__version__) >= numbers(released(TEXT) or "0.0.0")


def test_the_text_of_a_release_is_its_entry() -> None:
    """With the tag, the version of the code and the day in agreement."""
    assert notes(SAMPLE, "v0.2.0", "0.2.0").splitlines()[0] == "### Breaking"
    assert entries(SAMPLE)[0].section("Breaking").strip() == "- `A` is gone."
    assert released(SAMPLE) == "0.2.0"
    assert released(SAMPLE.replace("[0.2.0] - 2027-01-02", "[Unreleased]")) == "0.1.0"


@pytest.mark.parametrize(
    ("tag", "version", "text"),
    [
        ("v0.1.0", "0.2.0", SAMPLE),
        ("v0.1.0", "0.1.0", SAMPLE),
        ("v0.2.0", "0.2.0", SAMPLE.replace(" - 2027-01-02", "")),
        ("v0.2.0", "0.2.0", ""),
    ],
    ids=["another version", "not the newest", "no day", "no entry"],
)
def test_a_release_without_its_entry_is_refused(tag: str, version: str, text: str) -> None:
    """Before anything is built."""
    with pytest.raises(ValueError, match=r"the tag is|has to begin with"):
        notes(text, tag, version)


def test_the_command_of_the_workflow_refuses_another_tag_in_words() -> None:
    """It runs without what the gateway is installed with."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "scripts.changelog", "v99.0.0"],
        cwd=changelog.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"the tag is v99.0.0, but gateway/__init__.py has {__version__}\n"
