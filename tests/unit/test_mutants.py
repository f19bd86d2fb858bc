"""scripts/mutants.py: which wrong programs it makes of a right one."""

import ast

import pytest

from scripts.mutants import mutants_of, source_of

TEXT = '''"""What it does."""

LIMITS: tuple[int, ...] = (1, 2)


def judge(age: int | None, *, strict: bool = False) -> str:
    """Return the verdict."""
    if age is None or age < 0:
        raise ValueError("no age" + str(age))
    log.info("judged", age=age + 1)
    return "old" if age > LIMITS[0] and not strict else "young"
'''


def changed() -> set[tuple[int, str, str]]:
    """Return line, code before and code after of each mutant."""
    return {(one.line, *one.change.split(" -> ")) for one in mutants_of("x.py", TEXT)}


def test_each_kind_of_change_is_made() -> None:
    """Constants, displays, operators, conditions, results."""
    assert {
        (3, "1", "2"),
        (3, "(1, 2)", "(2,)"),
        (3, "(1, 2)", "(1,)"),
        (6, "False", "True"),
        (8, "age is None", "age is not None"),
        (8, "age < 0", "age <= 0"),
        (8, "age is None or age < 0", "age is None and age < 0"),
        (11, "not strict", "strict"),
        (11, "'old'", "'old-mutant'"),
    } <= changed()
    results = {after for line, before, after in changed() if before.startswith("return ")}
    assert results == {"return None"}


def test_what_people_read_and_types_stay() -> None:
    """Docstrings, annotations, and the arguments of `raise` and of the log."""
    assert not {line for line, *_ in changed()} & {1, 7, 9, 10}
    assert not [before for _, before, _ in changed() if before in {"int | None", "str", "..."}]


@pytest.mark.parametrize(
    ("result", "others"),
    [("None", []), ("False", ["True"]), ("0", ["1"]), ("''", ["'mutant'"]), ("", [])],
)
def test_what_is_false_is_not_replaced_by_none(result: str, others: list[str]) -> None:
    """Conditions treat both the same, so most of these mutants would be equivalent."""
    found = [one.change for one in mutants_of("x.py", f"def empty():\n    return {result}\n")]
    assert found == [f"{result} -> {other}" for other in others]


def test_a_mutant_differs_in_one_place_and_can_be_compiled() -> None:
    """The next one does not have the change of the one before."""
    original = ast.unparse(ast.parse(TEXT)).splitlines()
    for one in mutants_of("x.py", TEXT):
        source = source_of(TEXT, one.number)
        compile(source, one.file, "exec")
        lines = source.splitlines()
        differing = [a for a, b in zip(original, lines, strict=True) if a != b]
        assert len(differing) == 1, one.change


def test_a_mutant_is_found_again_after_lines_have_moved() -> None:
    """By the text of its line, its change and the function that it is in."""
    inside = "class Door:\n    WIDTH = 1\n\n    def is_open(self):\n        return self.width > 2\n"
    found = {(one.code, one.change, one.function) for one in mutants_of("x.py", inside)}
    assert ("WIDTH = 1", "1 -> 2", "") in found
    assert ("return self.width > 2", "2 -> 3", "Door.is_open") in found
    moved = {(m.code, m.change, m.function) for m in mutants_of("x.py", f"\n\n{inside}")}
    assert moved == found


@pytest.mark.parametrize("log", ["log", "self._log", "structlog.get_logger()"])
def test_an_entry_of_the_log_does_not_change(log: str) -> None:
    """Wherever the logger comes from; what looks like it and is something else does."""
    entry = "def work(self):\n    {}.info('begun', number=1)\n"
    assert not list(mutants_of("x.py", entry.format(log)))
    assert list(mutants_of("x.py", entry.format("self._queue")))
    assert list(mutants_of("x.py", entry.format("work()")))


def test_a_long_change_is_shown_where_it_differs() -> None:
    """So that two changes of one line have different texts, which tests/survivors.toml needs."""
    call = f"work({', '.join(f'option_number_{n}=value_{n}' for n in range(20))})"
    changes = [one.change for one in mutants_of("x.py", f"x = {call}\n")]
    assert len(set(changes)) == len(changes) == 20
    assert all("…" in change for change in changes)
    assert max(map(len, changes)) < 250
