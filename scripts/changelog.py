"""What CHANGELOG.md says of a version: python -m scripts.changelog v1.2.3 prints it for a release.

That fails if the tag is not the version of the code, or has no dated entry.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway import __version__

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
SECTION = re.compile(r"^### (.+)$", re.MULTILINE)
UNRELEASED = "Unreleased"

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """What one version changes: its name, its date ("" before the release), and the text."""

    name: str
    date: str
    text: str

    def section(self, name: str) -> str:
        """Return the text of a section such as `Breaking`, "" if there is none."""
        parts = SECTION.split(self.text)
        return dict(zip(parts[1::2], parts[2::2], strict=True)).get(name, "")


def numbers(version: str) -> Version:
    """Return the numbers of a version. Raises ValueError for anything but X.Y.Z."""
    first, second, third = map(int, version.split("."))
    return first, second, third


def entries(text: str) -> list[Entry]:
    """Return the entries of a changelog, the newest first."""
    parts = HEADING.split(text)
    found = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    return [Entry(name, date or "", said.strip()) for name, date, said in found]


def released(text: str) -> str | None:
    """Return the newest version that was released, None before the first one."""
    return next((entry.name for entry in entries(text) if entry.date), None)


def notes(text: str, tag: str, version: str) -> str:
    """Return the text for the release `tag` of the code's `version`. Raises ValueError."""
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but gateway/__init__.py has {version}")
    newest = next(iter(entries(text)), None)
    if newest is None or newest.name != version or not newest.date:
        raise ValueError(f"CHANGELOG.md has to begin with ## [{version}] and the day")
    return newest.text


def main() -> int:
    """Print the text for the release of the tag that is given."""
    try:
        print(notes((ROOT / "CHANGELOG.md").read_text("utf-8"), sys.argv[1], __version__))
    except ValueError as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
