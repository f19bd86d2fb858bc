"""Failures: how soon a dead server shows, and how soon a deleted interface carries traffic."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from scripts.benching.figures import Figure
from scripts.benching.programs import LIMIT, Program, Running, answered, built, is_healthy
from tests.lab.errors import LabError
from tests.lab.process import eventually
from tests.lab.server import INSIDE

RED_LIMIT = 60.0
TRAFFIC_LIMIT = 20.0
"""Seconds after which either counts as never."""
STEADY = 2.0
"""Seconds of health before anything is broken."""
EXCHANGE = 0.5
"""Seconds between two packets of a workload that uses the tunnel while the server dies."""


def recovery_figures(programs: Sequence[Program], runs: int) -> list[Figure]:
    """Break the tunnel of `runs` of each program: first the interface, then the server.

    All of them run at the same time, because nearly all of the time is that of timers.
    """
    with ExitStack() as stack:
        started = [
            running
            for program in programs
            for _ in range(runs)
            if (running := program.start(stack.enter_context(built()))).wait()
        ]
        time.sleep(STEADY)
        with ThreadPoolExecutor(len(started)) as pool:
            back_after = list(pool.map(delete_interface, started))
        recovered = collect(programs, list(zip(started, back_after, strict=True)))
        back = [one for one in started if one.program.has_health and answered(one.lab)]
        for one in back:
            one.box.wait_healthy(LIMIT)
            one.lab.workload.stream(INSIDE.ipv4, protocol="udp", interval=EXCHANGE)
        time.sleep(STEADY)
        red = collect([p for p in programs if p.has_health], cut_servers(back))
    return [
        Figure("recovered", recovered, limit=TRAFFIC_LIMIT),
        Figure("red", red, limit=RED_LIMIT),
    ]


def collect(
    programs: Sequence[Program], seconds: Sequence[tuple[Running, float | None]]
) -> dict[str, list[float | None]]:
    """Return the values of each program."""
    return {
        program.name: [value for one, value in seconds if one.program is program]
        for program in programs
    }


def delete_interface(running: Running) -> float | None:
    """Delete the tunnel's interface; return the seconds until traffic passes again."""
    namespace = running.lab.gateway_namespace
    words = namespace.run("ip", "route", "get", INSIDE.ipv4).split()
    namespace.ip(f"link del {words[words.index('dev') + 1]}")
    began = time.monotonic()
    try:
        eventually(
            lambda: answered(running.lab), timeout=TRAFFIC_LIMIT, what="traffic", interval=0.01
        )
    except LabError:
        return None
    return time.monotonic() - began


def cut_servers(started: Sequence[Running]) -> list[tuple[Running, float | None]]:
    """Silence the server of each; return the seconds until each is red."""
    began = {id(one): time.monotonic() for one in started}
    for one in started:
        one.lab.server.cut()
        began[id(one)] = time.monotonic()
    seconds: dict[int, float] = {}
    end = time.monotonic() + RED_LIMIT
    while len(seconds) < len(started) and time.monotonic() < end:
        for one in started:
            if id(one) not in seconds and not is_healthy(one.box):
                seconds[id(one)] = time.monotonic() - began[id(one)]
        time.sleep(0.1)
    return [(one, seconds.get(id(one))) for one in started]
