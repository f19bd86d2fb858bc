"""P1: closed from the first moment to the last, however the process ends.

A flood of every kind runs in the namespace from before the gateway's first start. The last check
of each such test opens the namespace by hand: the flood has to be seen again, or its absence meant
nothing.
"""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from gateway.system.order_signals import SIGNALS
from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.witness import (
    HOST4,
    commands,
    flooded,
    links,
    locked,
    not_answered,
    not_by_the_exit,
    not_refused_at_once,
    open_everything,
    ordinary,
    rules_and_routes,
    wait_for_flood,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1"), pytest.mark.both_firewalls]

WAYS_TO_DIE = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
BETWEEN = 0.2
"""Seconds in which nothing but the kernel holds the rules."""


@pytest.mark.parametrize("pid_namespace", [False, True], ids=["process", "process-1"])
def test_a_flood_ends_with_the_lock_and_never_comes_back(
    lab: Lab,
    pid_namespace: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Through start, stop, start again, death and start in its place, in both families.

    Limitations: the moment before the first lock is the flood's; `scripts/bench` measures it.
    """
    flood = flooded(lab)
    gateway = lab.gateway(pid_namespace=pid_namespace).start()
    closed_at = locked(gateway)
    assert closed_at - gateway.started_at < 5 * PATIENCE
    gateway.wait_healthy()
    assert gateway.stop() == 0
    lab.capture.quiet_for(BETWEEN)
    gateway.start().wait_healthy()
    # What process 1 has no handler for does not reach it, but SIGKILL from outside (signal(7)).
    for way in WAYS_TO_DIE[: 1 if pid_namespace else None]:
        gateway.signal(way)
        assert gateway.wait() != 0
        lab.capture.quiet_for(BETWEEN)
        gateway.restart().wait_healthy()
    gateway.signal(signal.SIGINT)
    assert gateway.wait() == 0
    lab.capture.quiet_for(BETWEEN)
    assert lab.leaks(closed_at) == []
    opened_at = time.monotonic()
    open_everything(lab)
    wait_for_flood(lab, since=opened_at)
    assert flood.stop()["errors"], "the kernel refused the flood in between"


def test_killed_at_any_moment_of_a_start_in_place_it_stays_closed_and_starts_again(
    lab: Lab,
) -> None:
    """The former run's rules are replaced, never taken away first.

    Limitations: moments by the clock; the harness that breaks every step counts steps.
    """
    flood = flooded(lab)
    gateway = lab.gateway().start()
    closed_at = locked(gateway)
    for delay in (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5):
        gateway.kill()
        gateway.restart()
        time.sleep(delay * PATIENCE)
    gateway.kill()
    lab.capture.quiet_for(BETWEEN)
    gateway.restart().wait_healthy()
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert lab.leaks(closed_at) == []
    gateway.kill()
    opened_at = time.monotonic()
    open_everything(lab)
    wait_for_flood(lab, since=opened_at)
    flood.stop()


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_a_start_in_place_takes_over_without_leftovers(lab: Lab, way: signal.Signals) -> None:
    """Links, addresses, rules, routes and processes are those of a first start."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    first, running = without_change(rules_and_routes(lab)), sorted(commands(lab))
    assert "wg0" in links(lab)
    gateway.signal(way)
    gateway.wait()
    gateway.restart().wait_healthy()
    assert without_change(rules_and_routes(lab)) == first
    # A program that the gateway runs for a moment may be among them, now or before.
    eventually(lambda: sorted(commands(lab)) == running, timeout=5, what=f"just {running}")
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}


def test_a_leftover_interface_process_and_socket_are_replaced(lab: Lab) -> None:
    """As a gateway leaves them that could not even be killed properly: an interface of its name."""
    gateway = lab.gateway()
    socket = gateway.container.root / "run/wireguard/wg0.sock"
    socket.touch()
    lab.operator.run("ip", "tuntap", "add", "wg0", "mode", "tun")
    lab.operator.run("ip", "addr", "add", "10.99.99.99/32", "dev", "wg0")
    lab.operator.run("ip", "link", "set", "wg0", "up")
    gateway.start().wait_healthy()
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert "10.99.99.99" not in lab.operator.run("ip", "addr")


@pytest.mark.parametrize(
    ("number", "pid_namespace"), [(signal.SIGTERM, False), (signal.SIGINT, True)]
)
def test_a_clean_stop_takes_interface_and_key_away_and_leaves_the_rules(
    lab: Lab,
    number: signal.Signals,
    pid_namespace: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Exit code 0; what workloads try afterwards is refused at once, and nothing is seen."""
    assert not_answered(ordinary(lab.workload, "before")) == {}
    assert lab.capture.containing("before"), "control: seen while the namespace is open"
    gateway = lab.gateway(pid_namespace=pid_namespace).start()
    gateway.wait_healthy()
    gateway.signal(number)
    asked_at = time.monotonic()
    assert gateway.wait() == 0
    assert time.monotonic() - asked_at < 2 * PATIENCE
    assert links(lab) == ["eth0", "lo"]
    assert "wireguard-go" not in commands(lab)
    assert not (gateway.container.root / "run/wireguard/wg0.sock").exists()
    stopped_at = time.monotonic()
    assert not_refused_at_once(ordinary(lab.workload, "after")) == {}
    assert lab.leaks(stopped_at, endpoints=[]) == []


@pytest.mark.parametrize("pid_namespace", [False, True], ids=["process", "process-1"])
def test_asked_to_stop_while_it_starts_it_stops_cleanly(
    lab: Lab,
    pid_namespace: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """As process 1 too, to which a signal without handler means nothing (signal(7)).

    Limitations: a signal before the lock is lost on process 1, and ends any other one, unlocked.
    """
    for delay in (0.0, 0.1, 0.25):
        gateway = lab.gateway(pid_namespace=pid_namespace).start()
        wait_until_signals_wait(gateway)
        time.sleep(delay * PATIENCE)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert links(lab) == ["eth0", "lo"]
        assert lab.workload.probe("udp", host=HOST4).failed_fast
        open_everything(lab)


def test_asked_to_stop_while_the_server_is_silent_it_ends_at_once(lab: Lab) -> None:
    """The gateway does not wait for a handshake at its end."""
    lab.server.cut()
    gateway = lab.gateway().start()
    gateway.wait_for_state("connecting")
    asked_at = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - asked_at < 2 * PATIENCE


def test_process_1_reaps_orphans(lab: Lab) -> None:
    """What `docker exec` left behind does not stay as a zombie."""
    gateway = lab.gateway(pid_namespace=True).start()
    gateway.wait_healthy()
    assert gateway.execute("sh", "-c", "sleep 600 >/dev/null 2>&1 &")[0] == 0
    (orphan,) = [pid for pid in children(gateway) if command(pid) == "sleep"]
    os.kill(int(orphan), signal.SIGKILL)
    eventually(lambda: orphan not in children(gateway), timeout=5, what="the orphan to be reaped")
    assert gateway.status().code == 200


def children(gateway: Gateway) -> list[str]:
    """Return the ids of the gateway's children."""
    threads = Path(f"/proc/{gateway.pid}/task").iterdir()
    return [pid for thread in threads for pid in (thread / "children").read_text().split()]


def command(pid: str) -> str:
    """Return the name of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def wait_until_signals_wait(gateway: Gateway) -> None:
    """Wait until the gateway blocks the signals that it answers, which it does when locked."""
    answered = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *SIGNALS.values())
    wanted = sum(1 << (number - 1) for number in answered)

    def blocked() -> bool:
        status = Path(f"/proc/{gateway.pid}/status").read_text(encoding="ascii")
        return f"SigBlk:\t{wanted:016x}" in status and "Name:\tpython" in status

    eventually(blocked, timeout=5, what="the mask of the gateway's signals", interval=0.0005)


def without_change(shown: dict[str, list[str]]) -> dict[str, list[str]]:
    """Leave out what differs between two starts: counters, indexes, random marks and addresses."""
    patterns = (
        r"\[\d+:\d+\]",
        r"^#.*",
        r"0x[0-9a-f]{5,8}\b",
        r"fe80::\S+",
        r"packets \d+ bytes \d+",
    )
    return {
        what: sorted(re.sub("|".join(patterns), "", line).rstrip() for line in lines)
        for what, lines in shown.items()
    }
