"""The gateways that are compared, and one of them running in a lab."""

import os
import socket
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from subprocess import check_output

from scripts.benching.accounts import Account
from tests.lab.errors import LabError
from tests.lab.gateway import PROJECT, Gateway
from tests.lab.process import eventually
from tests.lab.server import INSIDE
from tests.lab.topology import Lab

STAMP = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write(f"{time.monotonic()} {time.process_time()}")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Notes the moment and becomes the program: what is measured begins with its exec."""

KILL_SWITCH = (
    "{0} -I OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark)"
    " -m addrtype ! --dst-type LOCAL -j REJECT"
)
"""wg-quick(8), the example for a kill switch, as people copy it."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT = 30.0
"""Seconds to wait for a program to be healthy."""


@dataclass(frozen=True)
class Holes:
    """How many input ports and LAN subnets a gateway is given. No two of them can be merged."""

    ports: int = 0
    subnets: int = 0

    def environment(self) -> dict[str, str]:
        """Return the variables."""
        ports = ",".join(str(20000 + 2 * number) for number in range(self.ports))
        subnets = ",".join(
            f"10.{128 + number // 128}.{number % 128 * 2}.0/24" for number in range(self.subnets)
        )
        given = {"FIREWALL_INPUT_PORTS": ports, "FIREWALL_OUTBOUND_SUBNETS": subnets}
        return {name: text for name, text in given.items() if text}


NO_HOLES = Holes()


@dataclass(frozen=True)
class Place:
    """A lab, and the account of what will run in its gateway's container."""

    lab: Lab
    account: Account


@contextmanager
def built() -> Iterator[Place]:
    """Build a lab; remove it, and then its account, at the end."""
    with ExitStack() as stack:
        lab = Lab()
        account = Account(lab.prefix)
        stack.callback(account.close)
        stack.enter_context(lab)
        yield Place(lab, account)


@dataclass(frozen=True)
class Program:
    """A gateway: this one, another commit of it, wg-quick, or the peer of the command line."""

    name: str
    argv: tuple[str, ...]
    tree: Path | None = PROJECT
    """Where the modules of a gateway of ours are; None for a program of others."""
    has_health: bool = True
    has_holes: bool = True
    resolver: bool = False
    """Whether its own resolver runs, as for users who set nothing."""

    def start(self, place: Place, holes: Holes = NO_HOLES) -> "Running":
        """Start it in the lab's namespace; the clock runs from its exec."""
        lab, account = place.lab, place.account
        stamp = lab.household.file("exec")
        stamped = (sys.executable, "-I", "-S", "-c", STAMP, str(stamp), *self.argv)
        capabilities = {} if self.has_health else {"capabilities": None}
        box = lab.gateway(argv=stamped, outside=account.words, **capabilities)
        box.start(self._environment(box) | holes.environment())
        return Running(self, lab, box, account, *read_stamp(stamp))

    def _environment(self, box: Gateway) -> dict[str, str]:
        if self.has_health:
            found = {} if self.tree is None else {"PYTHONPATH": str(self.tree)}
            given = box.env(DNS_SERVER="on" if self.resolver else "off")
            return given | found | {"PATH": PATH, "LOG_LEVEL": "info"}
        switch = " && ".join(KILL_SWITCH.format(name) for name in ("iptables", "ip6tables"))
        text = box.wg_quick(extra=f"PostUp = {switch}").splitlines()
        box.write("/run/wg0.conf", "\n".join(ln for ln in text if not ln.startswith("DNS")))
        return {"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go", "PATH": PATH}


OURS = Program("gateway", (sys.executable, "-P", "-m", "gateway"))
"""-P, because the working directory would come before the tree of another commit."""
WG_QUICK = Program(
    "wg-quick", ("wg-quick", "up", "/run/wg0.conf"), None, has_health=False, has_holes=False
)


def at_commit(commit: str, directory: Path) -> Program:
    """Return the gateway of another commit, whose files are put into `directory`."""
    archive = check_output(["git", "archive", commit], cwd=PROJECT)
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extractall(directory, filter="data")
    return Program(commit[:7], OURS.argv, directory)


def peer(program: str) -> Program:
    """Return another gateway that takes the same variables and answers on the same port."""
    return Program(Path(program).name, (os.path.abspath(program),), None)  # noqa: PTH100 - no symlink is followed


@dataclass
class Running:
    """A program in its lab. Times are in seconds from its exec."""

    program: Program
    lab: Lab
    box: Gateway
    account: Account
    began: float
    cpu_before: float
    """The seconds of a processor that were used before its exec."""
    carrying: float | None = field(default=None, init=False)
    healthy: float | None = field(default=None, init=False)

    def elapsed(self) -> float:
        """Return the seconds since the exec."""
        return time.monotonic() - self.began

    def cpu(self) -> float:
        """Return the seconds of a processor used since the exec, by all its processes."""
        return self.account.cpu() - self.cpu_before

    def wait(self, limit: float = LIMIT) -> bool:
        """Wait until traffic passes and health is green, and note both; False after `limit`.

        A program without a health endpoint is ready when its tunnel carries traffic.
        """

        def ready() -> bool:
            if self.carrying is None and answered(self.lab):
                self.carrying = self.elapsed()
            if self.healthy is None and self.program.has_health and is_healthy(self.box):
                self.healthy = self.elapsed()
            return self.carrying is not None and (
                self.healthy is not None or not self.program.has_health
            )

        try:
            # Each question costs the gateway something too: more would show in what is measured.
            return eventually(ready, timeout=limit, what=self.program.name, interval=0.01)
        except LabError:
            return False


def is_healthy(box: Gateway) -> bool:
    """Return whether the gateway answers that it is healthy."""
    return box.status().code == HTTPStatus.OK


def answered(lab: Lab) -> bool:
    """Ask the server's inner address once; return whether it answered."""
    with lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.02)
        try:
            asking.connect((INSIDE.ipv4, 7))
            asking.send(b"bench")
            return bool(asking.recv(64))
        except OSError:
            return False


def read_stamp(stamp: Path) -> tuple[float, float]:
    """Return the moment of the exec and the processor time until then, in seconds."""

    def written() -> str:
        return stamp.read_text("ascii") if stamp.exists() else ""

    moment, used = eventually(written, timeout=5, what="the exec", interval=0.001).split()
    return float(moment), float(used)
