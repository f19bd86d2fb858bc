"""Rest: processor time and processes while nothing happens, and what a thousand holes change."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from scripts.benching.accounts import Births
from scripts.benching.figures import WG_QUICK, Figure
from scripts.benching.programs import LIMIT, Holes, Program, Running, built

SIZES = (1, 100, 1000)
MOST = SIZES[-1]
SETTLE = 12.0
"""Seconds from the last start to the first look: what follows a start is over."""
MS = 1000
MINUTE = 60

BOTH = "of each kind"
KINDS: Mapping[str, tuple[int, int]] = {
    "input ports": (1, 0),
    "LAN subnets": (0, 1),
    BOTH: (1, 1),
}
"""How many ports and how many subnets each hole of a kind is."""

Found = dict[str, dict[str, list[float | None]]]


def idle_figures(programs: Sequence[Program], window: float) -> list[Figure]:
    """Have one of each program rest for `window` seconds, all at the same time."""
    with ExitStack() as stack:
        resting = {}
        for program in programs:
            running = program.start(stack.enter_context(built()))
            if running.wait():
                resting[program.name] = running
        cpu, births = rest(resting, window)
    figures = [Figure("idle", {name: [value] for name, value in cpu.items()})]
    if births is not None:
        figures.append(Figure("births", {name: [value] for name, value in births.items()}))
    return figures


def rest(
    resting: Mapping[str, Running], window: float
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Return the ms of a processor and the processes started, both each minute, by name."""
    time.sleep(SETTLE)
    with Births({name: one.account.pids() for name, one in resting.items()}) as births:
        began = time.monotonic()
        before = {name: one.account.cpu() for name, one in resting.items()}
        time.sleep(window)
        after = {name: one.account.cpu() for name, one in resting.items()}
        minutes = (time.monotonic() - began) / MINUTE
    cpu = {name: MS * (after[name] - before[name]) / minutes for name in resting}
    if births.count is None:
        return cpu, None
    return cpu, {name: number / minutes for name, number in births.count.items()}


def hole_figures(programs: Sequence[Program], runs: int, window: float) -> list[Figure]:
    """Start each program with 1, 100 and 1000 holes of each kind, then have all of them rest.

    Ours is started `runs` times, the others once: an attempt that fails takes LIMIT seconds.
    """
    healthy: Found = {}
    with ExitStack() as stack:
        resting: dict[str, Running] = {}
        for program in programs:
            for label, holes in listed() if program.has_holes else ():
                values = healthy.setdefault(label, {}).setdefault(program.name, [])
                for left in reversed(range(runs if program is programs[0] else 1)):
                    if running := keep(stack, program, holes, values, rest=not left):
                        resting[f"{program.name} {label}"] = running
            if program.name == WG_QUICK:
                running = program.start(stack.enter_context(built()))
                if running.wait():
                    resting[program.name] = running
        cpu, births = rest(resting, window)
    healthy = {label: healthy[label] for kind in KINDS for label in healthy if label.endswith(kind)}
    figures = [Figure("healthy", values, label, MS * LIMIT) for label, values in healthy.items()]
    figures += later(healthy)
    measured = {"idle": cpu} if births is None else {"idle": cpu, "births": births}
    for name, found in measured.items():
        for label, started in healthy.items():
            keys = {who: f"{who} {label}" for who in started} | {WG_QUICK: WG_QUICK}
            rested = {who: [found[key]] for who, key in keys.items() if key in found}
            figures.append(Figure(name, rested, label))
    return figures


def listed() -> list[tuple[str, Holes]]:
    """Return what to start with, each with its label; what may load the machine comes last."""
    return [
        (f"{size} {kind}", Holes(size * ports, size * subnets))
        for size in SIZES
        for kind, (ports, subnets) in KINDS.items()
        if kind != BOTH or size in {1, MOST}
    ]


def keep(
    stack: ExitStack, program: Program, holes: Holes, values: list[float | None], *, rest: bool
) -> Running | None:
    """Start once, add the ms to `values`; return what runs, in `stack`, where `rest` is set."""
    with ExitStack() as own:
        running = program.start(own.enter_context(built()), holes)
        running.wait()
        values.append(None if running.healthy is None else MS * running.healthy)
        if not rest or running.healthy is None:
            return None
        stack.enter_context(own.pop_all())
        return running


def later(healthy: Found) -> list[Figure]:
    """Return how much later a gateway is healthy with the most holes of each kind than with one."""
    few, many = (Figure("healthy", healthy.get(f"{n} {BOTH}", {})) for n in (1, MOST))
    values: dict[str, list[float | None]] = {}
    for name in many.values:
        first, last = few.median(name), many.median(name)
        values[name] = [None if first is None or last is None else last - first]
    return [Figure("more", values, limit=MS * LIMIT)]
