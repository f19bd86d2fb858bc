"""Which steps are broken in which way, by several labs side by side, and what is reported.

    python -m tests.breaking.campaign [--all|--prove] [--case CASE] [--labs N] [--only WORDS]

Every step that a run makes is counted first, so that code which is written tomorrow is broken the
day it is written: whatever system call it makes, but those that `calls.PASSES` names. Without
`--all`, of the steps that look alike (same phase, maker, kind and words) some are chosen, evenly
spread; the same ones in each run of the same code. Of these, a run of the tests does what the
ledger does not prove, and a tenth of the others; see ledger.py.
"""

import argparse
import hashlib
import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from tests.breaking.bench import CASES, PHASES, Bench, Case, Result, summary
from tests.breaking.ledger import NOTHING_PROVEN, PROJECT, Ledger, path_of, source_of, write
from tests.breaking.watch import CRASH, FAIL, KILL, Break, Step

LABS = 3
"""Labs side by side: on two processors a third one fills the pauses of the others."""

OF_A_CHANGE = 2
"""How many are broken of the steps that look alike and change something; of the others one."""
CHANGES = {"netlink message", "table commit", "child process"}
ONLY_ASKS = re.compile(r"GET\w+$|ADD_COUNTERS|nftables \d+$|clone3|prctl|capset|kill 0")

BATCH = 12
"""Breaks that a lab gets at a time."""


def chosen(steps: Sequence[Step], case: Case, *, everything: bool) -> list[Break]:
    """Return what to break of the `steps` that were counted in `case`.

    Without `everything`, of each sort a few are broken in one way each. A sort that changes
    something is met in another way with the other family; of the rest each family has its half.
    Which, is drawn from the sort itself: one that comes or goes moves none of the others.
    """
    sorts: dict[tuple[str, str, str, str], list[Step]] = defaultdict(list)
    for step in steps:
        sorts[step.phase, step.role, step.kind, step.what].append(step)
    if everything:
        return [Break(step, how) for step in steps for how in ways(step)]
    turn = case.family // 2
    breaks = []
    for name, sort in sorts.items():
        place = int.from_bytes(hashlib.sha256(" ".join(name).encode()).digest()[:4])
        changes = sort[0].kind in CHANGES and not ONLY_ASKS.search(sort[0].what)
        if not changes and place % 2 != turn % 2:
            continue
        for at, step in enumerate(spread(sort, OF_A_CHANGE if changes else 1)):
            possible = ways(step)
            breaks.append(Break(step, possible[(at + place // 2 + turn) % len(possible)]))
    return breaks


def ways(step: Step) -> tuple[str, ...]:
    """Return what can become of a step."""
    return (FAIL, KILL) if step.role == "gateway" else (FAIL, KILL, CRASH)


def spread(steps: Sequence[Step], number: int) -> list[Step]:
    """Return at most `number` of `steps`: the first, the last, and between them evenly."""
    if number >= len(steps):
        return list(steps)
    return [steps[at * (len(steps) - 1) // max(number - 1, 1)] for at in range(number)]


def count(case: Case) -> list[Step]:
    """Return the steps of one run of all phases."""
    with Bench(case) as bench:
        return bench.steps()


def work(case: Case, breaks: Sequence[Break]) -> list[Result]:
    """Do `breaks` one after the other in a lab of their own, and see the flood in the end."""
    with Bench(case) as bench:
        results = [bench.do(wanted) for wanted in breaks]
        bench.open()
    return results


@dataclass
class Outcome:
    """What came of the breaks that were chosen in one case."""

    case: Case
    chosen: Sequence[Break]
    results: list[Result]

    @property
    def proven(self) -> set[str]:
        """The breaks of this run that went well, in the words of the ledger."""
        return {words(one.wanted) for one in self.results if one.done and not one.problems}


def words(wanted: Break) -> str:
    """Return a break in the words of the ledger, the same wherever line and checkout are."""
    firewall = os.environ.get("LAB_FIREWALL", "auto")
    step, place = wanted.step, source_of(wanted.step.place)
    what = step.what.replace(str(PROJECT), ".")
    named = f"{step.phase}: {step.role}: {step.kind}: {what} (no. {step.number})"
    return f"{firewall}: {named}: {wanted.how}" + (f" at {place}" if place else "")


def run(
    case: Case,
    *,
    everything: bool = False,
    labs: int = LABS,
    only: str = "",
    known: Ledger = NOTHING_PROVEN,
    commit: str = "",
) -> Outcome:
    """Count the steps and break those chosen; `only` leaves those whose description has it.

    Of what the ledger `known` proves, only what is due at `commit`.
    """
    with ProcessPoolExecutor(labs, mp_context=get_context("spawn")) as pool:
        steps = pool.submit(count, case).result()
        picked = [b for b in chosen(steps, case, everything=everything) if only in str(b)]
        breaks = [b for b in picked if known.is_due(words(b), b.step.files, commit)]
        number = -(-len(breaks) // BATCH)
        batches = [breaks[at::number] for at in range(number)]
        futures = [pool.submit(work, case, batch) for batch in batches]
        results = []
        for future in as_completed(futures):
            results += future.result()
            sys.stderr.write(f"{len(results)} of {len(breaks)}\n{wrong(future.result())}")
    return Outcome(case, picked, results)


def report(outcome: Outcome) -> str:
    """Return what was broken, in numbers, and what went wrong, each with its step."""
    results = outcome.results
    done = [result for result in results if result.done]
    lines = [
        f"{len(done)} breaks of {outcome.case}",
        f"  chosen: {len(outcome.chosen)}",
        f"  not done, because the ledger proves them: {len(outcome.chosen) - len(results)}",
    ]
    for title, numbers in summary(results).items():
        listed = ", ".join(f"{word} {number}" for word, number in numbers.most_common())
        lines.append(f"  {title}: {listed}")
    missed = [str(result.wanted) for result in results if not result.done]
    lines.append(f"  not reached, because no two runs are quite the same: {len(missed)}")
    lines += [f"    {wanted}" for wanted in missed]
    return "\n".join(lines) + "\n" + wrong(results)


def wrong(results: Sequence[Result]) -> str:
    """Return what went wrong, each with its step."""
    return "".join(
        f"WRONG: {result.wanted}: {result.outcome}\n"
        + "".join(f"    {problem}\n" for problem in result.problems)
        for result in results
        if result.problems
    )


def main() -> int:
    """Run the campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every step in every way: hours")
    parser.add_argument("--prove", action="store_true", help="write the ledger of this case")
    parser.add_argument("--case", choices=CASES, default="ipv4")
    parser.add_argument("--labs", type=int, default=LABS)
    parser.add_argument("--only", default="", help=f"words of a step, such as {PHASES[1]}:")
    given = parser.parse_args()
    if given.prove and (given.all or given.only):
        parser.error("a ledger has all that are chosen: --prove goes with neither --all nor --only")
    case = CASES[given.case]
    os.environ.setdefault("LAB_FIREWALL", case.firewall)
    outcome = run(case, everything=given.all, labs=given.labs, only=given.only)
    sys.stdout.write(report(outcome))
    if given.prove:
        write(path_of(case.name), outcome.proven)
    return int(any(result.problems for result in outcome.results))


if __name__ == "__main__":
    raise SystemExit(main())
