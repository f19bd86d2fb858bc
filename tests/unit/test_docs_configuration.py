"""docs/configuration.md is generated from the settings model."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.settings.compat import check_names
from gateway.settings.findings import Findings
from gateway.settings.schema import FIELDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()


MIGRATING = (ROOT / "docs" / "migrating.md").read_text()


@pytest.mark.parametrize(("option", "page"), [("--print", PAGE), ("--print-migrating", MIGRATING)])
def test_the_page_is_the_one_that_the_model_makes(option: str, page: str) -> None:
    """Run scripts/document-configuration after a change of the model."""
    made = subprocess.run(
        [sys.executable, "scripts/document-configuration", option],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert made == page


def test_every_variable_of_gluetun_has_a_meaning_here() -> None:
    """Or a reason why it has none; not one is unknown, or refused as misspelt."""
    names = (ROOT / "scripts" / "gluetun-variables.txt").read_text().split()
    assert len(names) > 200
    table = MIGRATING.partition("### Every variable of gluetun")[2].partition("## From")[0]
    assert all(f"`{name}`" in table for name in names)
    assert "unknown" not in table
    findings = Findings()
    check_names(dict.fromkeys(names, "on"), findings)
    assert not findings.problems
    assert not any("unknown" in notice.message for notice in findings.notices)


def test_every_variable_has_a_row() -> None:
    """With its meaning and its default."""
    for field in FIELDS:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{field.upper()}` |")]
        assert all(len(cell.strip()) > 2 for cell in row.strip("|").split(" | "))
