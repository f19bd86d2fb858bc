"""Which steps are broken in which way, by several labs side by side, and what is told of it.

    python -m tests.breaking.campaign [--all] [--family 4|6] [--labs N] [--only WORDS]

Every step that a run makes is counted first, so that code which is written tomorrow is broken the
day it is written: whatever system call it makes, but those that `calls.PASSES` names. Without
`--all`, of the steps that look alike (same phase, maker, kind and words) some are chosen, evenly
spread; the same ones in each run of the same code.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.breaking.bench import PHASES, Bench, Result, summary
from tests.breaking.watch import CRASH, FAIL, KILL, Break, Step

LABS = 3
"""Labs side by side: on two processors a third one fills the pauses of the others."""

OF_A_CHANGE = 2
"""How many are broken of the steps that look alike and change something; of the others one."""
CHANGES = {"netlink message", "table commit", "child process"}
ONLY_ASKS = re.compile(r"GET\w+$|ADD_COUNTERS|nftables \d+$|clone3|prctl|capset|kill 0")

BATCH = 12
"""Breaks that a lab gets at a time."""


def chosen(steps: Sequence[Step], family: int, *, everything: bool) -> list[Break]:
    """Return what to break of the `steps` that were counted with an endpoint of `family`.

    Without `everything`, of each sort a few are broken in one way each. A sort that changes
    something is met in another way with the other family; of the rest each family has its half.
    """
    sorts: dict[tuple[str, str, str, str], list[Step]] = defaultdict(list)
    for step in steps:
        sorts[step.phase, step.role, step.kind, step.what].append(step)
    if everything:
        return [Break(step, how) for step in steps for how in ways(step)]
    turn = family // 2
    breaks = []
    for place, sort in enumerate(sorts.values()):
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


def count(family: int) -> list[Step]:
    """Return the steps of one run of all phases."""
    with Bench(family) as bench:
        return bench.steps()


def work(family: int, breaks: Sequence[Break]) -> list[Result]:
    """Do `breaks` one after the other in a lab of their own, and see the flood in the end."""
    with Bench(family) as bench:
        results = [bench.do(wanted) for wanted in breaks]
        bench.open()
    return results


def run(family: int, *, everything: bool, labs: int = LABS, only: str = "") -> list[Result]:
    """Count the steps and break those chosen; `only` leaves those whose description has it."""
    with ProcessPoolExecutor(labs, mp_context=get_context("spawn")) as pool:
        steps = pool.submit(count, family).result()
        breaks = [b for b in chosen(steps, family, everything=everything) if only in str(b)]
        number = -(-len(breaks) // BATCH)
        batches = [breaks[at::number] for at in range(number)]
        futures = [pool.submit(work, family, batch) for batch in batches]
        results = []
        for future in as_completed(futures):
            results += future.result()
            sys.stderr.write(f"{len(results)} of {len(breaks)}\n{wrong(future.result())}")
    return results


def report(results: Sequence[Result], family: int) -> str:
    """Return what was broken, in numbers, and what went wrong, each with its step."""
    done = [result for result in results if result.done]
    lines = [f"{len(done)} breaks with an IPv{family} endpoint"]
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
    parser.add_argument("--family", type=int, choices=(4, 6), default=4)
    parser.add_argument("--labs", type=int, default=LABS)
    parser.add_argument("--only", default="", help=f"words of a step, such as {PHASES[1]}:")
    given = parser.parse_args()
    results = run(given.family, everything=given.all, labs=given.labs, only=given.only)
    sys.stdout.write(report(results, given.family))
    return int(any(result.problems for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
