"""scripts/mutation_report.py: which survivors are explained, and the score."""

from pathlib import Path

import pytest

from scripts.mutants import Mutant, mutants_of
from scripts.mutation_report import (
    KILLED,
    SURVIVED,
    TIMED_OUT,
    UNTESTED,
    entries_disproved,
    entries_in,
    entries_without_object,
    scores,
)

FILE = "gateway/policy/x.py"
TEXT = """
def wait(tries):
    return min(tries, 10)

def load(table):
    commit(table)
    check(table)
"""
MUTANTS = {mutant.change: mutant for mutant in mutants_of(FILE, TEXT)}
TEN, COMMIT = MUTANTS["10 -> 11"], MUTANTS["commit(table) -> pass"]
EQUIVALENT = f"""
[[equivalent]]
file = "{FILE}"
line = "return min(tries, 10)"
change = "10 -> 11"
reason = "Both are more than there can be."
"""
LOADING = f"""
[[kernel]]
file = "{FILE}"
function = "load"
test = "tests/promises/test_x.py"
reason = "It writes a table."
"""


def unexplained(mutant: Mutant, result: str, text: str) -> bool:
    """Return whether a mutant with this result lacks an explanation in `text`."""
    return bool(scores({mutant: result}, entries_in(text))["all"].unexplained)


@pytest.mark.parametrize("result", [SURVIVED, UNTESTED])
def test_a_survivor_is_explained_by_the_entry_for_its_line_and_change(result: str) -> None:
    """Another line, another change or another file is not meant."""
    assert not unexplained(TEN, result, EQUIVALENT)
    assert unexplained(TEN, result, "")
    assert unexplained(TEN, result, EQUIVALENT.replace("tries, 10)", "tries, 12)"))
    assert unexplained(TEN, result, EQUIVALENT.replace("10 -> 11", "10 -> 9"))
    assert unexplained(TEN, result, EQUIVALENT.replace("x.py", "y.py"))


def test_an_entry_for_a_function_covers_only_what_no_unit_test_executes() -> None:
    """What a test executes and accepts is a gap in that test."""
    assert not unexplained(COMMIT, UNTESTED, LOADING)
    assert unexplained(COMMIT, SURVIVED, LOADING)
    assert unexplained(TEN, UNTESTED, LOADING)


def test_an_entry_about_the_kernel_may_cover_every_change_of_a_line() -> None:
    """Such as the call that writes a table."""
    line = LOADING.replace('function = "load"', 'line = "commit(table)"')
    assert not unexplained(COMMIT, SURVIVED, line)
    assert unexplained(MUTANTS["check(table) -> pass"], SURVIVED, line)


def test_the_score_leaves_out_what_no_test_could_kill_and_nothing_else() -> None:
    """A mutant that hangs is killed; one that only the lab kills is not."""
    other = next(iter(mutants_of("gateway/daemon/y.py", "def f():\n    g()\n")))
    results = {
        TEN: SURVIVED,
        COMMIT: UNTESTED,
        MUTANTS["check(table) -> pass"]: KILLED,
        MUTANTS["return min(tries, 10) -> return None"]: TIMED_OUT,
        other: SURVIVED,
    }
    found = scores(results, entries_in(EQUIVALENT + LOADING))
    policy, daemon, whole = (found[it] for it in ("gateway/policy", "gateway/daemon", "all"))
    assert (policy.all, policy.killed) == (4, 2)
    assert policy.explained == {"equivalent": 1, "kernel": 1}
    assert policy.percent == pytest.approx(100 * 2 / 3)
    assert (daemon.percent, len(daemon.unexplained)) == (0.0, 1)
    assert whole.percent == pytest.approx(50.0)
    message = scores({TEN: SURVIVED}, entries_in(EQUIVALENT.replace("equivalent", "message")))
    assert (message["all"].percent, message["all"].unexplained) == (0.0, [])
    (line,) = daemon.unexplained
    assert line == "gateway/daemon/y.py:2: in `g()`: g() -> pass (survived)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            EQUIVALENT.replace("[[equivalent]]", "[[tedious]]"),
            "none of equivalent, kernel, message",
        ),
        (EQUIVALENT.replace('change = "10 -> 11"', ""), "lacks change"),
        (EQUIVALENT.replace("Both are more than there can be.", ""), "lacks reason"),
        (EQUIVALENT + 'test = "tests/x.py"', "has test"),
        (LOADING.replace('test = "tests/promises/test_x.py"', ""), "lacks test"),
        (LOADING + 'line = "commit(table)"', "not both"),
        (LOADING.replace('function = "load"', ""), "a line or a function"),
    ],
)
def test_an_entry_that_is_not_complete_is_refused(text: str, said: str) -> None:
    """An explanation without a reason would only hide a survivor."""
    with pytest.raises(ValueError, match=said):
        entries_in(text)


def test_an_entry_whose_mutant_or_test_is_gone_is_reported(tmp_path: Path) -> None:
    """It would explain something else one day."""
    entries = entries_in(EQUIVALENT + LOADING)
    for path, text in ((FILE, TEXT), ("tests/promises/test_x.py", "")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text, "utf-8")
    assert entries_without_object(entries, tmp_path) == []
    (tmp_path / FILE).write_text(TEXT.replace("10", "12").replace("load", "store"), "utf-8")
    assert len(entries_without_object(entries, tmp_path)) == 2
    (tmp_path / FILE).write_text(TEXT, "utf-8")
    (tmp_path / "tests/promises/test_x.py").unlink()
    assert len(entries_without_object(entries, tmp_path)) == 1
    (tmp_path / FILE).unlink()
    assert len(entries_without_object(entries, tmp_path)) == 3


def test_an_entry_for_what_a_test_kills_is_reported() -> None:
    """Its reason is wrong by now."""
    entries = entries_in(EQUIVALENT)
    assert entries_disproved({TEN: SURVIVED}, entries) == []
    assert entries_disproved({}, entries) == [], "it was not in the sample"
    assert len(entries_disproved({TEN: KILLED}, entries)) == 1
