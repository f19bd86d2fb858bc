"""The words of the packages that have had their language pass; docs and logs follow."""

import re
from pathlib import Path

import pytest

GATEWAY = Path(__file__).resolve().parents[2] / "gateway"
DONE = [
    "settings",
    "commands/check",
    "commands/status.py",
    "daemon/ending.py",
    "daemon/inbox.py",
    "daemon/jobs.py",
    "daemon/loop.py",
    "daemon/names.py",
    "daemon/patience.py",
    "daemon/ports.py",
    "daemon/producers.py",
    "daemon/reporter.py",
    "daemon/setback.py",
    "daemon/workers.py",
    "policy/actions.py",
    "policy/agenda.py",
    "policy/events.py",
    "policy/machine.py",
    "policy/moves.py",
    "policy/retry.py",
    "policy/situation.py",
    "policy/states.py",
    "policy/timing.py",
]
FILES = sorted(
    path
    for place in DONE
    for path in ([GATEWAY / place] if place.endswith(".py") else (GATEWAY / place).iterdir())
    if path.suffix in {".py", ".toml"}
)

BANNED = re.compile(
    r"\b(tells|told|anew|beside|whom|whoever|nobody|somebody|belongs into|by comma|stands)\b"
    r"|(?<!there )\bis no\b(?! (other|such)\b)",
    re.IGNORECASE,
)
"""German idiom in English words. Write: reports, again, next to, anyone, belongs in, is not a."""


@pytest.mark.parametrize("text", ["it is no key", "whoever answers", "Told once", "stands twice"])
def test_the_list_finds_what_it_should(text: str) -> None:
    """Positive control."""
    assert BANNED.search(text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_messages_comments_and_names_are_in_plain_english(path: Path) -> None:
    """Every line, because users read the messages and maintainers the rest."""
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)
    found = [f"{number}: {line.strip()}" for number, line in lines if BANNED.search(line)]
    assert not found
