"""What a packet in the tunnel costs, at the same rate for all and in both directions."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.benching.figures import Figure
from scripts.benching.programs import Holes, Program, Running, built
from tests.lab.server import INSIDE

FLOW = str(Path(__file__).with_name("datagrams.py"))
RATE = 4000
"""Datagrams a second, 42 Mbit/s of large ones."""
LARGE, SMALL = 1300, 64
"""Bytes of a datagram."""
SECONDS = 1.0
"""How long a flow lasts. Many short ones in turn are disturbed alike by what else is running."""
SETTLE, IDLE = 4.0, 6.0
"""Seconds to wait after the start, and those whose processor time is not that of packets."""
LOST, ATTEMPTS = 0.02, 5
"""The share of datagrams that may be lost, and how often to try: a busy machine loses more."""
GIB = 1 << 30
MANY = Holes(1000, 1000)
FIRST_PORT, PORTS = 7000, 1000
"""The first port, and how many each attempt has."""

WAYS: Mapping[str, tuple[int, str, float]] = {
    "up": (LARGE, "send", GIB / LARGE),
    "down": (LARGE, "receive", GIB / LARGE),
    "small_up": (SMALL, "send", 1e6),
    "small_down": (SMALL, "receive", 1e6),
}
"""By figure: size, what the gateway's side does, and the datagrams that its unit is for."""
WITH_HOLES = {"up": "holes_up", "down": "holes_down"}
"""By figure: the one that compares the gateway with many holes."""


def traffic_figures(programs: Sequence[Program], flows: int, *, holes: bool) -> list[Figure]:
    """Send `flows` of each kind through each program's tunnel in turn.

    Counted are all processes of the gateway and the one that sends or receives in its namespace.
    With `holes` ours is measured with 1000 ports and 1000 subnets as well. Everything runs on one
    processor: with two, it depends on the moment how often one wakes the other.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        return measure(programs, flows, holes=holes)
    finally:
        os.sched_setaffinity(0, allowed)


def measure(programs: Sequence[Program], flows: int, *, holes: bool) -> list[Figure]:
    """Do what `traffic_figures` does, on the processors of the calling thread."""
    found: dict[str, dict[str, list[float | None]]] = {way: {} for way in WAYS}
    with ExitStack() as stack:
        carriers: dict[str, Running] = {}
        wanted = [(program.name, program, Holes()) for program in programs]
        if holes:
            wanted.append(("", programs[0], MANY))
        for name, program, given in wanted:
            running = program.start(stack.enter_context(built()), given)
            if running.wait():
                running.lab.capture.close()
                carriers[name] = running
        idle = without_traffic(carriers)
        for turn in range(flows):
            for number, (way, values) in enumerate(found.items()):
                for name, running in carriers.items():
                    port = FIRST_PORT + turn * len(WAYS) + number
                    cost = one_flow(running, way, port, idle[name])
                    values.setdefault(name, []).append(cost)
    rows = []
    for way, values in found.items():
        many = values.pop("", None)
        rows.append(Figure(way, values))
        if many is not None and way in WITH_HOLES:
            ours = programs[0].name
            ratios = [
                cost / without
                for cost, without in zip(many, values[ours], strict=True)
                if cost and without
            ]
            rows.append(Figure(WITH_HOLES[way], {ours: ratios}))
    return rows


def without_traffic(carriers: Mapping[str, Running]) -> dict[str, float]:
    """Return the seconds of a processor that each uses in a second, idle."""
    time.sleep(SETTLE)
    before = {name: one.account.cpu() for name, one in carriers.items()}
    time.sleep(IDLE)
    return {name: (one.account.cpu() - before[name]) / IDLE for name, one in carriers.items()}


def one_flow(running: Running, way: str, port: int, idle: float) -> float | None:
    """Return what one flow cost, in the unit of the figure `way`; None where too much was lost."""
    for attempt in range(ATTEMPTS):
        cost, lost = attempt_flow(running, way, port + attempt * PORTS, idle)
        if lost <= LOST:
            return cost
    return None


def attempt_flow(running: Running, way: str, port: int, idle: float) -> tuple[float, float]:
    """Return what one flow cost, and the share of it that was lost."""
    size, near, units = WAYS[way]
    far = {"send": "receive", "receive": "send"}[near]
    words = [INSIDE.ipv4, str(port), str(size), str(RATE), str(SECONDS)]
    lab, script = running.lab, [sys.executable, "-I", "-S", FLOW]
    there = lab.household.start(
        lab.server.namespace.command([*script, "listen", far, *words]), "far"
    )
    there.wait_for("ready")
    began, before = time.monotonic(), running.account.cpu()
    here = lab.household.start(
        lab.gateway_namespace.command([*script, "connect", near, *words]), "near"
    )
    here.wait(20)
    there.wait(20)
    used = running.account.cpu() - before - idle * (time.monotonic() - began)
    ends = [json.loads(end.output().splitlines()[-1]) for end in (here, there)]
    numbers = [end["datagrams"] for end in ends]
    cost = float((used + ends[0]["cpu"]) / max(numbers) * units)
    return cost, 1 - min(numbers) / max(numbers)
