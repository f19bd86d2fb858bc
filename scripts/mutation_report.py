"""What a run of the mutants shows: the score, and the survivors that tests/survivors.toml explains.

An entry of that file is an `[[equivalent]]` mutant, which no test can distinguish from the right
program; one that needs the `[[kernel]]`, so that the named test in the lab kills it; or a
`[[message]]` for people, whose words a test would only repeat. It has a `file`, a `reason`, and the
`line` as it is written there, because numbers of lines change with each edit; the `change` is as
scripts/mutate prints it. An entry about the kernel may leave the change out, or have a `function`
in place of the line: that covers what no unit test executes in it.

The score is the part of all mutants that was killed, without the equivalent ones. The others that
are explained count as not killed.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.mutants import Mutant, mutants_of

KILLED, TIMED_OUT = "killed", "timed out"
SURVIVED, UNTESTED, UNCLEAR = "survived", "no test runs it", "its tests could not be run"
DEAD, ALIVE = {KILLED, TIMED_OUT}, {SURVIVED, UNTESTED, UNCLEAR}
KINDS = {
    "equivalent": {"file", "line", "change"},
    "kernel": {"file", "test"},
    "message": {"file", "line", "change"},
}
"""The kinds of entries, with what each has to have besides its reason."""
OPTIONAL = {"kernel": {"line", "change", "function"}}


@dataclass(frozen=True)
class Entry:
    """One explanation; `kind` is one of KINDS. Texts that an entry does not have are empty."""

    kind: str
    file: str
    reason: str
    line: str = ""
    change: str = ""
    function: str = ""
    test: str = ""

    def __str__(self) -> str:
        place = self.line or f"the function {self.function}"
        return f"{self.file}: {place}" + (f": {self.change}" if self.change else "")

    def is_about(self, mutant: Mutant) -> bool:
        """Return whether `mutant` is in this entry's place, and is its change if it has one."""
        if mutant.file != self.file or (self.change and mutant.change != self.change):
            return False
        if self.line:
            return mutant.code == self.line
        return mutant.function == self.function or mutant.function.startswith(f"{self.function}.")

    def explains(self, mutant: Mutant, result: str) -> bool:
        """Return whether this entry says why `mutant` had this `result`."""
        if result not in ALIVE or not self.is_about(mutant):
            return False
        return bool(self.line) or result == UNTESTED


def entries_in(text: str) -> tuple[Entry, ...]:
    """Return the entries of a survivors.toml. Raises ValueError for one that is not complete."""
    found = []
    for kind, tables in tomllib.loads(text).items():
        if kind not in KINDS:
            raise ValueError(f"[[{kind}]] is none of {', '.join(KINDS)}")
        for table in tables:
            wanted = KINDS[kind] | {"reason"}
            if missing := wanted - {key for key, value in table.items() if value}:
                raise ValueError(f"[[{kind}]] {table} lacks {', '.join(sorted(missing))}")
            if unknown := set(table) - wanted - OPTIONAL.get(kind, set()):
                raise ValueError(f"[[{kind}]] {table} has {', '.join(sorted(unknown))}")
            if ("line" in table) == ("function" in table):
                raise ValueError(f"[[{kind}]] {table} needs a line or a function, not both")
            found.append(Entry(kind=kind, **table))
    return tuple(found)


def entries_without_object(entries: Iterable[Entry], root: Path) -> list[str]:
    """Return what is wrong with entries whose mutant, or whose test, is not there any more."""
    problems, mutants = [], dict[str, list[Mutant]]()
    for entry in entries:
        file = root / entry.file
        if entry.file not in mutants:
            text = file.read_text("utf-8") if file.exists() else ""
            mutants[entry.file] = list(mutants_of(entry.file, text))
        if not any(entry.is_about(mutant) for mutant in mutants[entry.file]):
            problems.append(f"no mutant is like this any more: {entry}")
        if entry.test and not (root / entry.test).exists():
            problems.append(f"{entry.test} does not exist: {entry}")
    return problems


@dataclass
class Score:
    """How many mutants of one package were killed or explained; `unexplained` has the rest."""

    killed: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    @property
    def all(self) -> int:
        """How many mutants there were."""
        return self.killed + self.explained.total() + len(self.unexplained)

    @property
    def percent(self) -> float:
        """The killed ones in percent of those that a test could kill."""
        possible = self.all - self.explained["equivalent"]
        return 100 * self.killed / possible if possible else 100.0

    def __str__(self) -> str:
        explained = self.explained
        return (
            f"{self.percent:.1f} %: {self.all} mutants, {self.killed} killed,"
            f" {explained['equivalent']} equivalent, {explained['kernel']} need the kernel,"
            f" {explained['message']} messages, {len(self.unexplained)} unexplained"
        )

    def add(self, mutant: Mutant, result: str, entries: Sequence[Entry]) -> None:
        """Count one mutant."""
        if result in DEAD:
            self.killed += 1
            return
        entry = next((one for one in entries if one.explains(mutant, result)), None)
        if entry is None:
            place = f"{mutant.file}:{mutant.line}: in `{mutant.code}`"
            self.unexplained.append(f"{place}: {mutant.change} ({result})")
        else:
            self.explained[entry.kind] += 1


def scores(results: Mapping[Mutant, str], entries: Sequence[Entry]) -> dict[str, Score]:
    """Return the score of each package of the gateway, and then that of all."""
    found: dict[str, Score] = {}
    total = Score()
    for mutant, result in sorted(results.items(), key=lambda it: (it[0].file, it[0].number)):
        package = "/".join(Path(mutant.file).parts[:2])
        for score in (found.setdefault(package, Score()), total):
            score.add(mutant, result, entries)
    return found | {"all": total}


def entries_disproved(results: Mapping[Mutant, str], entries: Iterable[Entry]) -> list[str]:
    """Return the entries for a change that some test has killed, wherever it was tried."""
    disproved = []
    for entry in entries:
        tried = {result for mutant, result in results.items() if entry.is_about(mutant)}
        if entry.change and tried and tried <= DEAD:
            disproved.append(f"a test kills it, so this is not needed: {entry}")
    return disproved
