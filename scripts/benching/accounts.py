"""What programs cost: processor time of a cgroup, memory of its processes, processes they start."""

import errno
import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MICRO = 1e-6
KIB_OF_MIB = 1024
PATIENCE, PAUSE = 200, 0.01
"""How often to try, and the seconds in between."""


def hierarchy() -> Path:
    """Return where the machine has its cgroups of version 2; SystemExit where it has none."""
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise SystemExit("mount cgroups to count processor time: mount -t cgroup2 none /sys/fs/cgroup")


class Account:
    """A cgroup: what it has used counts all its processes, also those that have ended."""

    def __init__(self, name: str) -> None:
        """Make the cgroup; `close` removes it when its processes are gone."""
        self._path = hierarchy() / f"portcullis-{name}"
        self._path.mkdir()

    @property
    def words(self) -> list[str]:
        """The beginning of a command line that runs the rest of it in this cgroup."""
        return ["sh", "-c", 'echo 0 >"$0" && exec "$@"', str(self._path / "cgroup.procs")]

    def cpu(self) -> float:
        """Return the seconds of a processor used so far."""
        words = (self._path / "cpu.stat").read_text("ascii").split()
        return int(words[words.index("usage_usec") + 1]) * MICRO

    def pids(self) -> list[int]:
        """Return the processes that are in it now."""
        return [int(pid) for pid in (self._path / "cgroup.procs").read_text("ascii").split()]

    def memory(self) -> tuple[float, float]:
        """Return the proportional and the resident memory of all its processes, in MiB."""
        sizes = [_sizes(pid) for pid in self.pids()]
        return (
            sum(size["Pss"] for size in sizes) / KIB_OF_MIB,
            sum(size["Rss"] for size in sizes) / KIB_OF_MIB,
        )

    def close(self) -> None:
        """Remove the cgroup, whose last processes may be about to end."""
        for _ in range(PATIENCE):
            with suppress(OSError):
                self._path.rmdir()
                return
            time.sleep(PAUSE)


def _sizes(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}


CONNECTOR = 11  # NETLINK_CONNECTOR, linux/netlink.h
GROUP = 1  # CN_IDX_PROC, linux/connector.h
LISTEN = 1  # PROC_CN_MCAST_LISTEN, linux/cn_proc.h
FORK = 1  # PROC_EVENT_FORK
HEADERS = 16 + 20  # struct nlmsghdr, struct cn_msg
EVENT = struct.Struct("=IIQ")  # struct proc_event: what, cpu, timestamp_ns
FORKED = struct.Struct("=IIII")  # fork_proc_event: parent's pid and tgid, child's pid and tgid
BUFFER = 1 << 23


class Births:
    """Counts the processes that others start, from the kernel's process events (cn_proc).

    A context manager. `count` is None where the kernel has no such events for us, as in a
    namespace of processes that is not the machine's own.
    """

    def __init__(self, families: dict[str, list[int]]) -> None:
        """Watch what the processes in `families` start; those of each name are counted together."""
        self._family = {pid: name for name, pids in families.items() for pid in pids}
        self.count: dict[str, int] | None = dict.fromkeys(families, 0)
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._follow, name="births")
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Begin."""
        try:
            outlet = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, CONNECTOR)
            self._socket = outlet
            outlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            outlet.bind((os.getpid(), GROUP))
            wanted = struct.pack("=IIIIHHI", GROUP, 1, 0, 0, 4, 0, LISTEN)
            head = struct.pack("=IHHII", 16 + len(wanted), 3, 0, 0, os.getpid())
            outlet.send(head + wanted)
        except OSError:
            self.count = None
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        os.write(self._end, b"x")
        self._thread.join()
        os.close(self._end)
        os.close(self._ended)
        if self._socket is not None:
            self._socket.close()

    def _follow(self) -> None:
        while self.count is not None and self._socket is not None:
            ready, _, _ = select.select([self._socket.fileno(), self._ended], [], [])
            if self._ended in ready:
                return
            try:
                self._take(self._socket.recv(4096)[HEADERS:])
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise
                self.count = None  # some were lost

    def _take(self, event: bytes) -> None:
        what, _, _ = EVENT.unpack_from(event)
        if what != FORK or self.count is None:
            return
        _, parent, _, child = FORKED.unpack_from(event, EVENT.size)
        family = self._family.get(parent)
        if family is not None and child != parent:  # a thread has its parent's tgid
            self._family[child] = family
            self.count[family] += 1
