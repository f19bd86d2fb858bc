"""Losing the tunnel again and again, and what the gateway's process holds meanwhile."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.gateway import Gateway
from tests.lab.topology import Lab

INTERFACE = "wg0"

LOOKS = 5
BETWEEN = 0.03
"""How often descriptors are counted, and seconds in between: some are open for a moment only."""


@dataclass(frozen=True)
class Holding:
    """What the gateway's process holds: memory in KiB, file descriptors, children, threads."""

    reconnects: int
    memory: int
    descriptors: int
    children: int
    threads: int


def reconnects(lab: Lab, gateway: Gateway, times: int, every: int) -> Iterator[Holding]:
    """Delete the tunnel's interface `times` times; yield the holding before, and `every` so often.

    Each time it is waited for until health is green again.
    """
    yield holding(gateway, 0)
    for number in range(1, times + 1):
        lab.operator.run("ip", "link", "del", INTERFACE)
        gateway.wait_unhealthy()
        gateway.wait_healthy()
        if number % every == 0:
            yield holding(gateway, number)


def holding(gateway: Gateway, reconnects: int) -> Holding:
    """Return what the process holds now (proc(5))."""
    process = Path(f"/proc/{gateway.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    children = [(task / "children").read_text().split() for task in (process / "task").iterdir()]
    return Holding(
        reconnects,
        int(status["VmRSS"].split()[0]),
        min(_descriptors(process) for _ in range(LOOKS)),
        sum(map(len, children)),
        int(status["Threads"]),
    )


def _descriptors(process: Path) -> int:
    """Return how many descriptors are open, after a moment."""
    time.sleep(BETWEEN)
    return len(list((process / "fd").iterdir()))
