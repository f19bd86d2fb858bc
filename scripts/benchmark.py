"""The figures of scripts/bench, measured in the lab, each in a namespace built for it.

The two that are compared get the same machine, server and traffic, one after the other in each
run. `wg-quick` is the program of wireguard-tools with the kill switch of its manual page. A first
run of each warms the caches and does not count.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from tests.lab.frames import is_multicast_report
from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.server import INSIDE
from tests.lab.topology import Lab

STAMP = """
import os, sys, time
with open(sys.argv[1], "w") as file:
    file.write(repr(time.monotonic()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Notes the moment and becomes the program: what is measured begins with its exec."""

KILL_SWITCH = (
    "{0} -I OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark)"
    " -m addrtype ! --dst-type LOCAL -j REJECT"
)
"""wg-quick(8), the example for a kill switch, as people copy it."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETTLED = 0.3
"""Seconds that the capture continues after the program is done, so that a late leak is seen."""

HEALTH_CHECKS = 20
KIB = 1024
IDLE = 0.5
"""The load average above which a machine is not idle."""


@dataclass(frozen=True)
class Start:
    """One start, in milliseconds from exec. None: not that program's to give."""

    closed: float
    carrying: float
    healthy: float | None


@dataclass(frozen=True)
class Rest:
    """A gateway that is connected and idle: memory in MiB by process, health checks in ms."""

    resident: dict[str, float]
    proportional: dict[str, float]
    check_wall: float
    check_cpu: float


def start_gateway(lab: Lab, stamp: Path) -> Gateway:
    """Start the gateway."""
    argv = (sys.executable, "-I", "-S", "-c", STAMP, str(stamp), sys.executable, "-m", "gateway")
    return lab.gateway(argv=argv).start()


def start_wg_quick(lab: Lab, stamp: Path) -> Gateway:
    """Start wg-quick with a kill switch for both families, with wireguard-go if need be."""
    argv = (sys.executable, "-I", "-S", "-c", STAMP, str(stamp), "wg-quick", "up", "/run/wg0.conf")
    box = lab.gateway(argv=argv, capabilities=None)
    switch = " && ".join(KILL_SWITCH.format(name) for name in ("iptables", "ip6tables"))
    text = box.wg_quick(extra=f"PostUp = {switch}")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("DNS"))
    box.write("/run/wg0.conf", text)
    return box.start({"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go", "PATH": PATH})


PROGRAMS: dict[str, Callable[[Lab, Path], Gateway]] = {
    "gateway": start_gateway,
    "wg-quick": start_wg_quick,
}


def measure_closing(program: str) -> float:
    """Return how long after exec the last frame of a flood in both families got out, in ms."""
    with Lab() as lab:
        since = time.monotonic()
        flood = lab.workload.flood("udp4", "udp6", rate=2000)
        lab.capture.wait_for(lambda frame: b" udp4 " in frame.raw, since=since)
        lab.capture.wait_for(lambda frame: b" udp6 " in frame.raw, since=since)
        stamp = lab.household.file("exec")
        PROGRAMS[program](lab, stamp)
        begin = read_stamp(stamp)
        wait_for_answer(lab)
        time.sleep(SETTLED)
        leaks = lab.leaks(begin, allowed=[is_multicast_report])
        flood.close()
        return 1000 * (max((frame.at for frame in leaks), default=begin) - begin)


def measure_start(program: str) -> tuple[float, float | None]:
    """Return how long after exec the tunnel carried traffic and health was green, in ms."""
    with Lab() as lab:
        stamp = lab.household.file("exec")
        box = PROGRAMS[program](lab, stamp)
        begin = read_stamp(stamp)
        if program == "gateway":
            eventually(
                lambda: box.status().code == HTTPStatus.OK,
                timeout=20,
                what="health",
                interval=0.002,
            )
            healthy = 1000 * (time.monotonic() - begin)
            return wait_for_answer(lab, begin), healthy
        return wait_for_answer(lab, begin), None


def read_stamp(stamp: Path) -> float:
    """Return the moment of the exec, seconds of the monotonic clock."""

    def written() -> str:
        return stamp.read_text("ascii") if stamp.exists() else ""

    return float(eventually(written, timeout=5, what="the exec", interval=0.001))


def wait_for_answer(lab: Lab, begin: float = 0.0) -> float:
    """Ask the server's inner address until it answers; return the ms since `begin`."""

    def answered() -> bool:
        with lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.02)
            try:
                asking.connect((INSIDE.ipv4, 7))
                asking.send(b"bench")
                return bool(asking.recv(64))
            except OSError:
                return False

    eventually(answered, timeout=20, what="an answer through the tunnel", interval=0.002)
    return 1000 * (time.monotonic() - begin)


def measure_rest() -> Rest:
    """Measure a connected gateway."""
    with Lab() as lab:
        gateway = start_gateway(lab, lab.household.file("exec"))
        gateway.wait_healthy()
        time.sleep(1)
        resident, proportional = {}, {}
        for pid in lab.gateway_namespace.pids():
            name = Path(f"/proc/{pid}/comm").read_text("ascii").strip()
            if name in {"sleep", "sh"}:  # what holds the lab's mounts
                continue
            name = "gateway" if pid == gateway.pid else name
            resident[name], proportional[name] = memory(pid)
        argv = lab.gateway_namespace.command([sys.executable, "-m", "healthcheck"])
        checks = [run_check(argv) for _ in range(HEALTH_CHECKS + 1)][1:]
    wall, cpu = (statistics.median(column) for column in zip(*checks, strict=True))
    return Rest(resident, proportional, wall, cpu)


def memory(pid: int) -> tuple[float, float]:
    """Return the resident and the proportional set size of a process in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return sizes["Rss"] / KIB, sizes["Pss"] / KIB


def run_check(argv: list[str]) -> tuple[float, float]:
    """Run one health check; return what it took in ms, by the wall and of a processor."""
    begin = time.monotonic()
    devnull = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, devnull, 1), (os.POSIX_SPAWN_CLOSE, devnull)]
    environment = {"PATH": PATH, "PYTHONPATH": str(Path.cwd())}
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions)
    os.close(devnull)
    _pid, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"the health check failed with status {status}")
    return 1000 * (time.monotonic() - begin), 1000 * (usage.ru_utime + usage.ru_stime)


def measure_starts(runs: int) -> dict[str, list[Start]]:
    """Measure `runs` starts of each program, in turn."""
    starts: dict[str, list[Start]] = {program: [] for program in PROGRAMS}
    for run in range(runs + 1):
        for program, measured in starts.items():
            closed = measure_closing(program)
            carrying, healthy = measure_start(program)
            if run:
                measured.append(Start(closed, carrying, healthy))
    return starts


def summary(values: Sequence[float | None]) -> str:
    """Return the median and the range of what was measured."""
    given = [value for value in values if value is not None]
    if not given:
        return "-"
    return f"{statistics.median(given):.1f} ({min(given):.1f} to {max(given):.1f})"


def show(starts: dict[str, list[Start]], rest: Rest) -> None:
    """Print the figures as tables."""
    print(f"{'ms after exec: median (range)':34}" + "".join(f"{name:28}" for name in starts))
    rows: dict[str, Callable[[Start], float | None]] = {
        "last frame of a flood gets out": lambda start: start.closed,
        "tunnel carries traffic": lambda start: start.carrying,
        "healthy": lambda start: start.healthy,
    }
    for label, figure in rows.items():
        columns = (summary([figure(start) for start in each]) for each in starts.values())
        print(f"{label:34}" + "".join(f"{column:28}" for column in columns))
    print(
        f"\n{'one health check, ms':34}{rest.check_wall:.1f}, {rest.check_cpu:.1f} of a processor"
    )
    for name, resident in rest.resident.items():
        print(
            f"{name + ' at rest, MiB':34}{resident:.1f} resident,"
            f" {rest.proportional[name]:.1f} proportional"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="compare the gateway with wg-quick")
    parser.add_argument("--runs", type=int, default=10, help="starts of each program (10)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    if (load := os.getloadavg()[0]) > IDLE:
        print(f"this machine is busy (load {load:.1f}): expect larger figures", file=sys.stderr)
    starts = measure_starts(arguments.runs)
    rest = measure_rest()
    if arguments.json:
        shown = {name: [asdict(start) for start in each] for name, each in starts.items()}
        print(json.dumps({"starts": shown, "rest": asdict(rest)}, indent=2))
    else:
        show(starts, rest)


if __name__ == "__main__":
    main()
