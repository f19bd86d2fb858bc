"""Shortages, made by the kernel's own limits: no more processes, no more descriptors."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.lab.errors import LabError
from tests.lab.process import eventually

CGROUPS = Path("/sys/fs/cgroup")


class ProcessLimit:
    """A control group of the kernel's pids controller, version 1 or 2; a context manager."""

    def __init__(self, name: str) -> None:
        """Refer to the group `name`; entering makes it."""
        parent = CGROUPS / "pids" if (CGROUPS / "pids").is_dir() else CGROUPS
        self.directory = parent / name

    def __enter__(self) -> Self:
        """Make the group, without a limit."""
        control = self.directory.parent / "cgroup.subtree_control"
        if control.exists() and "pids" not in control.read_text("ascii").split():
            control.write_text("+pids", "ascii")
        self.directory.mkdir()
        if not (self.directory / "pids.max").exists():
            raise LabError("this machine has no pids controller")
        return self

    def __exit__(self, *_: object) -> None:
        """Put what is left of its members back, and remove the group."""
        self.lift()
        for pid in self._members():
            with suppress(OSError):
                (self.directory.parent / "cgroup.procs").write_text(str(pid), "ascii")
        eventually(lambda: not self._members(), timeout=5, what="an empty control group")
        self.directory.rmdir()

    def add(self, pid: int) -> None:
        """Put the process `pid` into the group; its children of now stay where they are."""
        (self.directory / "cgroup.procs").write_text(str(pid), "ascii")

    def exhaust(self, *, tasks: int | None = None) -> None:
        """Let no member fork: by default there may be as many tasks as there are."""
        current = (self.directory / "pids.current").read_text("ascii").strip()
        self._limit(current if tasks is None else str(tasks))

    def lift(self) -> None:
        """Let members fork again."""
        self._limit("max")

    @property
    def refusals(self) -> int:
        """How many forks the kernel has refused."""
        words = (self.directory / "pids.events").read_text("ascii").split()
        return int(words[words.index("max") + 1])

    def _limit(self, value: str) -> None:
        (self.directory / "pids.max").write_text(value, "ascii")

    def _members(self) -> list[int]:
        return [int(pid) for pid in (self.directory / "cgroup.procs").read_text("ascii").split()]


@contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """Leave the process `pid` no descriptor beyond those that it has, as prlimit(1) does.

    The kernel limits their numbers (getrlimit(2), RLIMIT_NOFILE), so gaps below the highest one
    are filled by the limit's being just above the first gap only where there is one.
    """
    former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    numbers = {int(entry) for entry in os.listdir(f"/proc/{pid}/fd")}  # noqa: PTH208
    free = next(number for number in range(len(numbers) + 1) if number not in numbers)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, former[1]))
    try:
        yield
    finally:
        if Path(f"/proc/{pid}").exists():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, former)
