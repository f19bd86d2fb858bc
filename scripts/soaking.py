"""Lose the tunnel many times, and print what the gateway's process holds.

Exit code 1 when it grew: more descriptors, children or threads than after the first reconnects, or
more memory than half way. In a thousand reconnects the first half took 5 MiB, in a few steps as
the allocator takes them, and the second 0.1 MiB.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.lab.soak import Holding, reconnects
from tests.lab.topology import Lab

STEPS = 20
"""Into how many lines the run is divided."""

LEEWAY = 1024
"""KiB by which memory may differ between half way and the end: one step of the allocator."""


def main() -> int:
    """Run, print a line now and then, and judge."""
    times = int(sys.argv[1])
    started = time.monotonic()
    lines: list[Holding] = []
    print("reconnects  memory KiB  descriptors  children  threads  seconds")
    with Lab() as lab:
        gateway = lab.gateway()
        gateway.start(gateway.env(DNS_SERVER="on"))  # as users have it
        gateway.wait_healthy()
        for held in reconnects(lab, gateway, times, max(1, times // STEPS)):
            lines.append(held)
            print(
                f"{held.reconnects:10}  {held.memory:10}  {held.descriptors:11}  {held.children:8}"
                f"  {held.threads:7}  {time.monotonic() - started:7.0f}",
                flush=True,
            )
        print(f"healthy: {gateway.status().body['healthy']}")
    return 0 if is_flat(lines) else 1


def is_flat(lines: list[Holding]) -> bool:
    """Return whether nothing has gone on growing."""
    # The first line is from before anything was ever lost.
    first, middle, last = lines[1], lines[len(lines) // 2], lines[-1]
    return (
        last.descriptors <= first.descriptors
        and last.children <= first.children
        and last.threads <= first.threads
        and last.memory <= middle.memory + LEEWAY
    )


if __name__ == "__main__":
    raise SystemExit(main())
