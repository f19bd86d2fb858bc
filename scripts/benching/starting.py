"""The start: exposure, time to traffic and to health, its processor time, memory afterwards."""

import time
from collections.abc import Sequence

from scripts.benching.figures import Figure
from scripts.benching.programs import LIMIT, NO_HOLES, Program, built
from tests.lab.frames import is_multicast_report

SETTLED = 0.3
"""Seconds that the capture continues after the program is done, so that a late leak is seen."""
REST = 3.0
"""Seconds from health to the measurement of memory."""
FLOOD = 2000
"""Packets a second in each family."""
MS = 1000


def start_figures(programs: Sequence[Program], runs: int) -> list[Figure]:
    """Measure `runs` starts of each program, in turn, after one that warms the caches."""
    names = ("exposed", "carrying", "healthy", "cpu_start", "proportional", "resident")
    found: dict[str, dict[str, list[float | None]]] = {
        name: {program.name: [] for program in programs} for name in names
    }
    for run in range(runs + 1):
        for program in programs:
            values = measure_start(program, rest=run == runs)
            if run:
                values["exposed"] = measure_exposure(program)
                for name, value in values.items():
                    found[name][program.name].append(value)
    return [Figure(name, values, limit=MS * LIMIT) for name, values in found.items()]


def measure_exposure(program: Program) -> float:
    """Return how long after exec the last frame of a flood in both families got out, in ms."""
    with built() as place:
        lab = place.lab
        since = time.monotonic()
        flood = lab.workload.flood("udp4", "udp6", rate=FLOOD)
        lab.capture.wait_for(lambda frame: b" udp4 " in frame.raw, since=since)
        lab.capture.wait_for(lambda frame: b" udp6 " in frame.raw, since=since)
        running = program.start(place)
        running.wait()
        time.sleep(SETTLED)
        leaks = lab.leaks(running.began, allowed=[is_multicast_report])
        flood.close()
        last = max((frame.at for frame in leaks), default=running.began)
        return MS * (last - running.began)


def measure_start(program: Program, *, rest: bool) -> dict[str, float | None]:
    """Start once and return the figures in ms and, where `rest` is set, those of memory in MiB."""
    with built() as place:
        running = program.start(place, NO_HOLES)
        ready = running.wait()
        values: dict[str, float | None] = {
            "carrying": None if running.carrying is None else MS * running.carrying,
            "cpu_start": MS * running.cpu() if ready else None,
        }
        if program.has_health:
            values["healthy"] = None if running.healthy is None else MS * running.healthy
        if rest and ready:
            time.sleep(REST)
            values["proportional"], values["resident"] = place.account.memory()
        return values
