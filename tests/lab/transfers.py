"""Transfers in the lab: a source and a sink of `transfer.py`, and what the sink has received."""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.process import Child, Household, eventually
from tests.lab.workload import Workload

TRANSFER = str(Path(__file__).with_name("transfer.py"))


class Transfer:
    """One connection, from the side that receives."""

    def __init__(self, name: str, child: Child) -> None:
        """Wrap the sink, and wait for its first data."""
        self.name = name
        self._child = child
        eventually(self.moments, timeout=5, what=f"the first data of {name}; {child.output()}")

    def moments(self) -> list[float]:
        """Return when each block came. Raises LabError when the connection has ended."""
        lines = [json.loads(it) for it in self._child.output().splitlines() if it.endswith("}")]
        if ends := [line["error"] for line in lines if "error" in line]:
            raise LabError(f"{self.name} has ended: {ends[0]}")
        return [line["at"] for line in lines]

    def continues_after(self, since: float, timeout: float) -> None:
        """Wait until data has come after `since`."""
        eventually(
            lambda: self.moments()[-1] > since, timeout=timeout, what=f"more data of {self.name}"
        )

    def longest_gap(self, since: float) -> float:
        """Return the longest time without data after `since`, in seconds."""
        found = [since, *(at for at in self.moments() if at > since), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(found))

    def close(self) -> None:
        """End it."""
        self._child.close()


def source(place: Workload, household: Household, address: str, port: int) -> Child:
    """Serve at `place`; return once it listens."""
    child = _start(place, household, "source", address, str(port))
    child.wait_for("ready")
    return child


def sink(
    name: str, place: Workload, household: Household, host: str, port: int, *own: str
) -> Transfer:
    """Connect from `place` to a source; return once it has received something."""
    return Transfer(name, _start(place, household, "sink", host, str(port), *own))


def _start(place: Workload, household: Household, *words: str) -> Child:
    argv = [sys.executable, "-I", "-S", TRANSFER, *words]
    return household.start(place.command(argv), words[0])
