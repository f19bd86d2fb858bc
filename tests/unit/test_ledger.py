"""The ledger of proven breaks, and the draw of a test's firewall: neither may hide anything."""

from pathlib import Path

import pytest

from tests.breaking import ledger
from tests.breaking.ledger import NOTHING_PROVEN, Ledger, meaning, of_the_gateway, read, write
from tests.firewalls import FIREWALLS, drawn, without_firewall

WORDS = "auto: stop: gateway: file: openat (no. 1): fails at app.py `open(x)`"
COMMITS = [f"{number:040x}" for number in range(400)]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of a project of its own."""
    monkeypatch.setattr(ledger, "PROJECT", tmp_path)
    ledger.meaning.cache_clear()
    path = tmp_path / "gateway" / "app.py"
    path.parent.mkdir()
    path.write_text('"""Say it."""\n\nX = 1\n\n\ndef f():\n    """Do it."""\n    return X  # so\n')
    return path


def due(known: Ledger, words: str = WORDS) -> bool:
    """Return whether a break that depends on app.py is due at a commit at which it is not drawn."""
    ledger.meaning.cache_clear()
    commits = (
        commit for commit in COMMITS if not Ledger(frozenset({words})).is_due(words, (), commit)
    )
    return known.is_due(words, ["gateway/app.py"], next(commits))


def test_what_is_proven_is_due_again_when_its_code_has_changed(code: Path, tmp_path: Path) -> None:
    """Another value, another statement, no file: all count. Comments and docstrings do not."""
    write(tmp_path / "ledger", {WORDS})
    known = read(tmp_path / "ledger")
    text = code.read_text()
    assert not due(known)
    assert due(known, WORDS.replace("open(x)", "open(y)"))
    assert due(NOTHING_PROVEN)
    for other in (text.replace("so", "thus"), text.replace("Do it", "Do"), "\n\n" + text):
        code.write_text(other)
        assert not due(known)
    for other in (text.replace("X = 1", "X = 2"), text + "\nf()\n", text.replace("f()", "f(a)")):
        code.write_text(other)
        assert due(known)
    code.unlink()
    assert due(known)


def test_each_commit_has_another_tenth_done_again() -> None:
    """About one of ten, the same ones at one commit, and each at some commit."""
    names = [f"{WORDS} {number}" for number in range(200)]
    known = Ledger(frozenset(names))
    drawn_at = [
        {name for name in names if known.is_due(name, (), commit)} for commit in COMMITS[:99]
    ]
    assert all(5 <= len(each) <= 40 for each in drawn_at)
    assert set.union(*drawn_at) == set(names)
    assert [name for name in names if known.is_due(name, (), COMMITS[0])] == [
        name for name in names if name in drawn_at[0]
    ]


def test_a_break_depends_on_all_that_is_the_gateway() -> None:
    """Also on what runs in emergencies alone; not on the programs next to it."""
    files = of_the_gateway()
    assert any("last_resort" in name for name in files)
    assert any("supervisor" in name or "loop" in name for name in files)
    assert not any(name.startswith(ledger.SEPARATE) for name in files)
    assert all(meaning(ledger.PROJECT / name) for name in files | ledger.harness())


def test_each_test_meets_both_firewalls_in_time() -> None:
    """The draw is stable at one commit, and about as often the one as the other."""
    assert drawn("a", COMMITS[0]) == drawn("a", COMMITS[0])
    for test in ("a", "tests/promises/test_health.py::test_x[4]"):
        times = [drawn(test, commit) for commit in COMMITS]
        assert all(times.count(firewall) > len(COMMITS) / 3 for firewall in FIREWALLS)
    assert len({drawn(name, COMMITS[0]) for name in "abcdefghij"}) == len(FIREWALLS)


def test_the_firewall_is_the_last_part_of_a_tests_id() -> None:
    """Without it the id is the one that the test has under LAB_FIREWALL."""
    assert without_firewall("f.py::t[auto]", "auto") == "f.py::t"
    assert without_firewall("f.py::t[4-nftables-nftables]", "nftables") == "f.py::t[4-nftables]"
