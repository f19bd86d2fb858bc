"""docs/configuration.md is generated from the settings model."""

import subprocess
import sys
from pathlib import Path

from gateway.settings.schema import FIELDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()


def test_the_page_is_the_one_that_the_model_makes() -> None:
    """Run scripts/document-configuration after a change of the model."""
    made = subprocess.run(
        [sys.executable, "scripts/document-configuration", "--print"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert made == PAGE


def test_every_variable_has_a_row() -> None:
    """With its meaning and its default."""
    for field in FIELDS:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{field.upper()}` |")]
        assert all(len(cell.strip()) > 2 for cell in row.strip("|").split(" | "))
