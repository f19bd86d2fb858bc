"""A named network namespace: made, entered, described and removed."""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.lab.errors import LabError
from tests.lab.process import run

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
NETNS_DIRECTORY = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace by its name under /run/netns."""

    def __init__(self, name: str) -> None:
        """Refer to the namespace; `create` makes it."""
        self.name = name
        self.path = NETNS_DIRECTORY / name
        self.is_others = False
        """Whether another user namespace than ours is to own it."""

    def create(self) -> None:
        """Make the namespace with loopback up and without duplicate address detection.

        Detection would keep every IPv6 address unusable for a second. Even without it an address
        stays tentative until a work queue has run, hence the `nodad` wherever one is added.
        """
        if self.is_others:
            self._attach_that_of_others()
        else:
            run(["ip", "netns", "add", self.name])
        for name, value in {
            "ipv6/conf/default/accept_dad": 0,
            "ipv6/conf/all/accept_ra": 0,
            "ipv6/conf/default/accept_ra": 0,
            "ipv4/ping_group_range": "1 0",
        }.items():
            self.sysctl(name, value)
        self.ip("link set lo up")

    def _attach_that_of_others(self) -> None:
        """Give the name to a namespace of a process that has made a user namespace before."""
        words = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo ready; read it"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
            if not keeper.stdout or not keeper.stdout.readline():
                raise LabError("no user namespace can be made here")
            run(["ip", "netns", "attach", self.name, str(keeper.pid)])

    def delete(self) -> None:
        """End whatever still runs inside and remove the namespace."""
        self.kill_all()
        run(["ip", "netns", "del", self.name], check=False)

    def pids(self) -> list[int]:
        """Return the processes whose main thread is inside."""
        if not self.path.exists():
            return []
        return [int(pid) for pid in run(["ip", "netns", "pids", self.name], check=False).split()]

    def kill_all(self) -> None:
        """Kill every process inside, and wait until they have left."""
        for _ in range(100):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list that runs `argv` inside; the process id stays the same."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        """Run a short command inside and return its output."""
        return run(self.command(argv), stdin=stdin, check=check)

    def ip(self, *commands: str) -> None:
        """Run several `ip` commands (without the word ip) in one process inside."""
        run(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(commands) + "\n")

    def nft(self, script: str) -> None:
        """Load nftables commands inside as one transaction."""
        self.run("nft", "-f", "-", stdin=script)

    def sysctl(self, name: str, value: object) -> None:
        """Write /proc/sys/net/`name` inside."""
        self.inside(lambda: Path("/proc/sys/net", name).write_text(f"{value}\n", encoding="ascii"))

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that belongs to this namespace, for use from any thread."""
        return self.inside(lambda: socket.socket(family, kind, protocol))

    def inside(self, function: Callable[[], T]) -> T:
        """Call `function` on a thread of its own inside the namespace and return its result."""
        outcome: list[T] = []
        failure: list[Exception] = []

        def enter() -> None:
            try:
                _enter(self.path)
                outcome.append(function())
            except Exception as err:  # noqa: BLE001 - handed over to the calling thread
                failure.append(err)

        thread = threading.Thread(target=enter, name=f"inside-{self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        if not outcome:
            raise LabError(f"nothing came back from {self.name}")
        return outcome[0]


def _enter(path: Path) -> None:
    """Move the calling thread into a namespace (setns(2))."""
    with path.open("rb") as handle:
        if _libc.setns(handle.fileno(), CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))


def connect(left: Namespace, left_link: str, right: Namespace, right_link: str) -> None:
    """Join two namespaces by a pair of veth links, both of them down."""
    left.ip(f"link add {left_link} type veth peer name {right_link} netns {right.name}")
