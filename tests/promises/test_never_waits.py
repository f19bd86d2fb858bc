"""P15: nothing that another process controls keeps the gateway waiting.

A file, the reader of its log, a lock of iptables, the process that carries the tunnel. Each has its
control: a program that waits there, and is kept waiting.

Limitations: a process that holds the lock of a file's inode is not among them, because how long it
does depends on the disk; that the work then continues next to the loop is in unit/test_aside.py.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from gateway import __version__
from gateway.policy.limits import LimitCode
from tests.lab.errors import LabError
from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.stages import lose_tunnel
from tests.promises.witness import HOST4

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

FILE = "/etc/resolv.conf"
TABLE = "51820"
SOON = 6.0
"""Seconds in which the gateway connects again, and reverts what another program has changed."""
STOPPED_IN = 4.0 * PATIENCE
PIPE_SIZE = 4096
F_SETPIPE_SZ = 1031
"""linux/fcntl.h."""


def keeps_waiting(*argv: str) -> bool:
    """Return whether a command still runs after half a second; it is ended then."""
    waiting = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        waiting.wait(0.5)
    except subprocess.TimeoutExpired:
        return True
    finally:
        waiting.kill()
        waiting.wait()
    return False


def does_its_work(lab: Lab, gateway: Gateway) -> None:
    """Reconnect, put back a route that another program deletes, and carry traffic."""
    lose_tunnel(lab)
    gateway.wait_unhealthy(timeout=SOON)
    gateway.wait_healthy(timeout=SOON)
    lab.operator.run("ip", "route", "flush", "table", TABLE)
    eventually(
        lambda: "dev wg0" in lab.operator.run("ip", "route", "show", "table", TABLE, check=False),
        timeout=SOON,
        what="the route that another program deleted",
    )
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4


def stops(gateway: Gateway) -> None:
    """End it by SIGTERM, in time."""
    asked_at = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - asked_at < STOPPED_IN


def names_problem(gateway: Gateway) -> str:
    """Return what health says of names, if anything."""
    limits = gateway.status().body.get("limits", ())
    return "".join(limit["text"] for limit in limits if limit["code"] == LimitCode.NO_NAMES)


@pytest.mark.promise("P10")
def test_a_lease_on_the_resolver_file_does_not_block(lab: Lab) -> None:
    """A workload without capabilities holds it while the gateway is away, and gives it up later.

    While the gateway has the file open, no program gets a lease. Control: others wait for it.
    """
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    workload = gateway.workload(capabilities=())
    early = workload.hold(FILE)
    early.wait_for("refused")
    does_its_work(lab, gateway)
    assert "held" not in early.output()
    assert names_problem(gateway) == ""
    gateway.kill()
    early.wait_for("held")
    early.close()
    workload.run("sh", "-c", f"echo nameserver 198.51.100.53 >{FILE}")
    late = workload.hold(FILE)
    late.wait_for("held")
    assert keeps_waiting(*workload.command(["cat", FILE])), "control"
    gateway.restart().wait_healthy()
    assert "lease" in names_problem(gateway)
    does_its_work(lab, gateway)
    assert "lease" in names_problem(gateway)
    reconnects = gateway.status().body["reconnects"]
    assert late.exit_code is None
    late.close()
    eventually(lambda: not names_problem(gateway), timeout=5, what="names that resolve")
    assert "198.51.100.53" not in gateway.resolv_conf()
    assert workload.probe("resolve", name="inside.example").result == "answered"
    assert gateway.status().body["reconnects"] == reconnects, "while connected"
    assert lab.leaks(gateway.started_at + 1) == []
    stops(gateway)


def test_a_lease_delays_no_stop(lab: Lab) -> None:
    """SIGTERM while another program has it; `docker stop` kills after ten seconds."""
    gateway = lab.gateway()
    workload = gateway.workload(capabilities=())
    holder = workload.hold(FILE)
    holder.wait_for("held")
    gateway.start().wait_healthy()
    assert keeps_waiting(*workload.command(["cat", FILE])), "control"
    lose_tunnel(lab)
    stops(gateway)


@pytest.mark.promise("P10")
def test_a_lease_on_the_hosts_file_delays_no_start(lab: Lab) -> None:
    """The gateway's resolver does without the names in it, and the log says so."""
    gateway = lab.gateway()
    workload = gateway.workload(capabilities=())
    holder = workload.hold("/etc/hosts")
    holder.wait_for("held")
    assert keeps_waiting(*workload.command(["cat", "/etc/hosts"])), "control"
    gateway.start(gateway.env(DNS_SERVER="on")).wait_healthy(timeout=20)
    (said,) = gateway.events(event="configuration notice", variable="/etc/hosts")
    assert "lease" in said["notice"]
    assert holder.exit_code is None
    holder.close()


class Pipe:
    """The gateway's log as a pipe, which the test reads or does not."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # Both ends, so that neither opening waits for the other.
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._end, F_SETPIPE_SZ, PIPE_SIZE)

    def fill(self) -> None:
        """Leave no room in it."""
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._end, b"#" * 63 + b"\n")
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._end, b"\n")

    def events(self, until: str, timeout: float = 10) -> list[dict[str, object]]:
        """Read until a line has the event `until`, and return all events."""
        text, deadline = b"", time.monotonic() + timeout * PATIENCE
        while until.encode() not in text or not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabError(f"no {until!r} in the log, but {text[-2000:]!r}")
            if select.select([self._end], [], [], left)[0]:
                text += os.read(self._end, 1 << 16)
        lines = [line for line in text.splitlines() if line.startswith(b"{")]
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close both ends."""
        os.close(self._end)


@pytest.fixture
def piped(lab: Lab) -> Iterator[tuple[Gateway, Pipe]]:
    """Yield a gateway, not started, whose log goes into a pipe that is full."""
    plain = lab.gateway()
    argv = ["sh", "-c", 'exec "$@" >/run/log 2>&1', "sh", *plain.argv]
    gateway = lab.gateway(argv=argv)
    pipe = Pipe(gateway.container.root / "run/log")
    pipe.fill()
    yield gateway, pipe
    pipe.close()


def test_a_log_that_is_not_read_does_not_block(lab: Lab, piped: tuple[Gateway, Pipe]) -> None:
    """From the first line to the last. Control: another writer waits for the same pipe.

    What was logged meanwhile is there as soon as the pipe is read, in order.
    """
    gateway, pipe = piped
    gateway.start().wait_healthy()
    inside = gateway.workload().command(["sh", "-c", "echo waits >/run/log"])
    assert keeps_waiting(*inside), "control"
    does_its_work(lab, gateway)
    reported = pipe.events("reverted external changes")
    first = next(event for event in reported if event["level"] != "debug")
    assert (first["event"], first["version"]) == ("starting", __version__)
    states = [str(event["new"]) for event in reported if event["event"] == "state changed"]
    assert [name for name, _ in groupby(states)][:4] == ["connecting", "connected"] * 2
    pipe.fill()
    stops(gateway)


def test_what_was_lost_of_the_log_is_counted_and_the_last_line_is_not(
    lab: Lab, piped: tuple[Gateway, Pipe]
) -> None:
    """A user's command floods a log that is not read; its oldest lines go, and are counted."""
    gateway, pipe = piped
    gateway.write("/config/command", f"#!/bin/sh\nexec yes {'a' * 4000}\n", mode=0o700)
    gateway.start(gateway.env(VPN_UP_COMMAND="/config/command")).wait_healthy()
    time.sleep(8)  # 200 lines at once, then 20 a second, until there are more than a mebibyte
    does_its_work(lab, gateway)
    memory = int(
        next(
            line.split()[1]
            for line in Path(f"/proc/{gateway.pid}/status").read_text("ascii").splitlines()
            if line.startswith("VmRSS")
        )
    )
    assert memory < 120_000, "kB"
    asked_at = time.monotonic()
    gateway.signal(signal.SIGTERM)
    reported = pipe.events("stopped; closed")
    assert gateway.wait() == 0
    assert time.monotonic() - asked_at < STOPPED_IN
    lost = [event for event in reported if str(event["event"]).startswith("log lines lost")]
    assert sum(int(str(event["lines"])) for event in lost) > 0
    assert reported[-1]["event"] == "stopped; closed"


def test_a_wireguard_process_that_is_halted_does_not_block(lab: Lab) -> None:
    """It answers nothing and does not end by itself; it is replaced. The kernel's has no process.

    Control: who asks it gets no answer.
    """
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_IMPLEMENTATION="userspace")).wait_healthy()
    halted = next(
        pid
        for pid in lab.gateway_namespace.pids()
        if Path(f"/proc/{pid}/comm").read_text("utf-8").strip() == "wireguard-go"
    )
    os.kill(halted, signal.SIGSTOP)
    asking = gateway.container.command(["wg", "show", "wg0"])
    assert keeps_waiting(*asking), "control"
    gateway.wait_unhealthy(timeout=2 * SOON)
    gateway.wait_healthy(timeout=2 * SOON)
    assert not Path(f"/proc/{halted}").exists()
    does_its_work(lab, gateway)
    (now,) = [
        pid
        for pid in lab.gateway_namespace.pids()
        if Path(f"/proc/{pid}/comm").read_text("utf-8").strip() == "wireguard-go"
    ]
    os.kill(now, signal.SIGSTOP)
    time.sleep(1)
    stops(gateway)


def test_a_lock_of_iptables_that_is_not_given_back_does_not_block(lab: Lab) -> None:
    """Some mount the host's lock file. Control: another program waits for it in vain."""
    gateway = lab.gateway()
    run = ["flock", "/run/xtables.lock", "sleep", "infinity"]
    holder = lab.household.start(gateway.container.command(run), "flock")
    lock = gateway.container.root / "run/xtables.lock"
    eventually(lock.exists, timeout=5, what="the lock file")
    assert keeps_waiting(*gateway.container.command(["flock", "/run/xtables.lock", "true"]))
    gateway.start().wait_healthy()
    does_its_work(lab, gateway)
    assert holder.exit_code is None
    stops(gateway)
