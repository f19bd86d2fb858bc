"""Lose the tunnel many times, and print what the gateway's process holds.

Exit code 1 when it grew: more descriptors, children or threads than after the first reconnects, or
more than two megabytes of memory.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.lab.soak import Holding, reconnects
from tests.lab.topology import Lab

STEPS = 20
"""Into how many lines the run is divided."""

LEEWAY = 2048
"""KiB by which memory may differ at the end: what allocators give back late."""


def main() -> int:
    """Run, print a line now and then, and judge."""
    times = int(sys.argv[1])
    started = time.monotonic()
    lines: list[Holding] = []
    print("reconnects  memory KiB  descriptors  children  threads  seconds")
    with Lab() as lab:
        gateway = lab.gateway().start()
        gateway.wait_healthy()
        for held in reconnects(lab, gateway, times, max(1, times // STEPS)):
            lines.append(held)
            print(
                f"{held.reconnects:10}  {held.memory:10}  {held.descriptors:11}  {held.children:8}"
                f"  {held.threads:7}  {time.monotonic() - started:7.0f}",
                flush=True,
            )
        print(f"healthy: {gateway.status().body['healthy']}")
    # The first line is from before anything was ever lost: what is imported and cached by then.
    return 0 if is_flat(lines[1], lines[-1]) else 1


def is_flat(former: Holding, latter: Holding) -> bool:
    """Say whether nothing has grown from one to the other."""
    return (
        latter.descriptors <= former.descriptors
        and latter.children <= former.children
        and latter.threads <= former.threads
        and latter.memory <= former.memory + LEEWAY
    )


if __name__ == "__main__":
    raise SystemExit(main())
