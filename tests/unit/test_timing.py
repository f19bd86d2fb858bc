"""The figures in the documents are the defaults of `Timing`."""

import ast
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from gateway.policy import timing as module
from gateway.policy.timing import Timing

DOCS = Path(__file__).resolve().parents[2] / "docs"
TIMING = Timing()

FIGURES = {
    "patience": 8.0,
    "trial_limit": 2.0,
    "return_after": 1800.0,
    "rebuild_pause": 1.0,
    "stable_after": 10.0,
    "backoff_first": 1.0,
    "backoff_last": 60.0,
    "silent_after": 16.0,
    "doubt_after": 3.0,
    "handshake_expires": 210.0,
    "heartbeat": 1.0,
    "sample_calm": 20.0,
    "eager": 0.02,
    "eager_for": 2.0,
    "settle": 0.02,
    "verify_every": 4.0,
    "verify_again": 1.0,
    "work_limit": 8.0,
    "fetch_limit": 45.0,
    "fetch_first": 5.0,
    "fetch_last": 300.0,
    "fetch_useless": 3600.0,
    "login_again": 3600.0,
    "register_first": 30.0,
    "register_last": 900.0,
    "names_again": 1.0,
    "probe_every": 20.0,
    "probe_moving": 5.0,
    "probe_in_doubt": 1.0,
    "measure_again": 600.0,
    "read_limit": 15.0,
    "read_again": 1.0,
    "retry_first": 0.25,
    "retry_last": 4.0,
    "closing_time": 5.0,
    "closing_pause": 0.1,
    "bind_again": 5.0,
}
"""Written a second time: a change of a figure is a change here and in the documents too."""

WORDS = {
    "half an hour": 1800.0,
    "an hour": 3600.0,
    "15 minutes": 900.0,
    "ten minutes": 600.0,
    "sixteen seconds": 16.0,
    "four": 4.0,
    "within a second": 1.0,
}

SENTENCES = [
    ("health.md", r"so (sixteen seconds) of silence mean that it is gone", "silent_after"),
    (
        "health.md",
        r"and every (\d+) s otherwise, the gateway sends one probe into the tunnel",
        "probe_every",
    ),
    ("health.md", r"has not answered within (\d+) s", "patience"),
    ("health.md", r"in their order, (\d+) s each", "patience"),
    ("health.md", r"another one was connected for (half an hour)", "return_after"),
    ("health.md", r"(half an hour) after another server has connected", "return_after"),
    ("health.md", r"before the next round: (\d+) s at first", "backoff_first"),
    ("health.md", r"doubled up to (\d+) s", "backoff_last"),
    ("health.md", r"never twice (within a second)", "rebuild_pause"),
    ("security.md", r"a list has (\d+) s to arrive", "fetch_limit"),
    ("security.md", r"tried again after (\d+) s", "fetch_first"),
    ("security.md", r"then after up to (\d+) s", "fetch_last"),
    ("security.md", r"at least (\d+) s between two logins", "register_first"),
    ("security.md", r"between two logins, later up to (15 minutes)", "register_last"),
    ("security.md", r"a refused login is not repeated for (an hour)", "login_again"),
    ("health.md", r"it is tried again after at least (\d+) s", "register_first"),
    ("health.md", r"only looks every (\d+) s whether a packet has passed", "verify_every"),
    ("health.md", r"reads WireGuard's counters then, and every (\d+) s", "sample_calm"),
    ("health.md", r"at most every (ten minutes), while data moves", "measure_again"),
    ("health.md", r"kernel and found as wanted: (four) at most", "verify_every"),
    (
        "known-issues.md",
        r"holds them with the next comparison, up to (\d+) s later",
        "verify_every",
    ),
    ("security.md", r"within (\d+) s\. A stop during a shortage", "retry_last"),
    ("security.md", r"A stop during a shortage closes within (\d+) s", "closing_time"),
]
"""Where a document states a figure: the document, the words around it, and the field."""

BOUNDS = [
    (
        "health.md",
        r"within (\d+) s of the server dying under traffic",
        TIMING.silent_after + 2 * TIMING.heartbeat,
    ),
    (
        "health.md",
        r"under traffic, within (\d+) s when idle",
        TIMING.probe_every + TIMING.verify_every + TIMING.silent_after + 2 * TIMING.heartbeat,
    ),
    ("security.md", r"reverts a change within (\d+) s", TIMING.verify_every + TIMING.verify_again),
    ("health.md", r"tries the first one again.*costs some (ten) seconds", TIMING.patience),
]
"""Figures that follow from several fields: what the document promises is not less."""


def text(name: str) -> str:
    """Return a document of docs/ in lower case, with each paragraph on one line."""
    return " ".join((DOCS / name).read_text("utf-8").split()).lower()


def found(name: str, pattern: str) -> float:
    """Return the figure that `pattern` finds in the document `name`, in seconds."""
    match = re.search(pattern.lower().replace(r"\D", r"\d"), text(name))
    assert match, f"{name} no longer says {pattern!r}"
    words = match[1]
    return float(words) if words.isdigit() else (WORDS | {"ten": 10.0})[words]


def test_each_default_is_the_figure_that_was_measured_and_documented() -> None:
    """A slip of the finger in one of them changes what the promises mean."""
    assert {field.name: getattr(TIMING, field.name) for field in fields(Timing)} == FIGURES


@pytest.mark.parametrize(("name", "pattern", "field"), SENTENCES)
def test_a_document_states_the_default(name: str, pattern: str, field: str) -> None:
    """In the sentence that users read."""
    assert found(name, pattern) == getattr(TIMING, field)


@pytest.mark.parametrize(("name", "pattern", "least"), BOUNDS)
def test_a_document_promises_no_less_than_the_defaults_take(
    name: str, pattern: str, least: float
) -> None:
    """The time until health turns red is a sum of several."""
    assert least <= found(name, pattern)


def test_a_timing_does_not_change() -> None:
    """One value from the composition root holds for the life of the process."""
    with pytest.raises(FrozenInstanceError):
        TIMING.patience = 1.0  # type: ignore[misc]


def test_each_figure_has_its_reason() -> None:
    """A sentence after each field, since the figure alone explains nothing."""
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    [body] = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Timing"]
    for field, sentence in zip(body[1::2], body[2::2], strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(sentence, ast.Expr), ast.unparse(field)
