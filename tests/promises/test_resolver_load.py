"""The gateway's own resolver under load and with bad answers: neither reaches the gateway."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from gateway.policy.states import Reason
from tests.lab import garbage, questions
from tests.lab.encrypted import NAME
from tests.lab.gateway import Gateway
from tests.lab.process import Child, eventually
from tests.lab.server import INSIDE
from tests.lab.tls import authority
from tests.lab.topology import Lab
from tests.promises.test_own_resolver import child_of, started, upstream

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

RATE, SECONDS = 10_000, 10


def flooded(lab: Lab, rate: int = RATE, seconds: float = SECONDS) -> Child:
    """Have a workload ask the gateway's resolver."""
    words = [sys.executable, "-I", "-S", questions.__file__, "127.0.0.1", str(rate), str(seconds)]
    return lab.household.start(lab.gateway_namespace.command(words), "questions")


def counted(flood: Child) -> tuple[int, int]:
    """Return how many questions were sent, and how many answers came, once it has ended."""
    said = eventually(lambda: flood.output().split(), timeout=3 * SECONDS, what="the end of it")
    return int(said[0]), int(said[1])


def is_up(gateway: Gateway) -> bool:
    """Return whether health is green, asked in time."""
    begun = time.monotonic()
    healthy = gateway.status().code == 200
    return healthy and time.monotonic() - begun < 1.0


@pytest.mark.quiet
def test_ten_thousand_questions_a_second_leave_health_green(lab: Lab, tmp_path: Path) -> None:
    """Nine of ten go to the upstream; the tunnel and the resolver's process stay."""
    trusted = authority(tmp_path)
    upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    before = child_of(gateway)
    flood = flooded(lab)
    looks = []
    for _ in range(SECONDS):
        time.sleep(1)
        looks.append(is_up(gateway))
    sent, answered = counted(flood)
    assert sent >= 0.9 * RATE * SECONDS, "control: they were sent"
    assert answered > 0, "control: it was asked"
    assert all(looks), looks
    assert child_of(gateway) == before
    assert gateway.status().body["reconnects"] == {}
    assert lab.leaks(gateway.started_at + 1) == []


def test_a_flood_of_questions_without_an_answer_ends_with_it(lab: Lab, tmp_path: Path) -> None:
    """The upstream is silent meanwhile: health may say so, and the process stays."""
    trusted = authority(tmp_path)
    asked = upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    before = child_of(gateway)
    os.kill(asked.pid, signal.SIGSTOP)
    try:
        sent, _ = counted(flooded(lab, 2000, 5))
    finally:
        os.kill(asked.pid, signal.SIGCONT)
    assert sent > 1000, "control"
    assert gateway.status().body["state"] == "connected"
    gateway.wait_healthy(timeout=60)
    assert child_of(gateway) == before
    workload = gateway.workload()
    eventually(
        lambda: workload.probe("resolve", name="one.example").result == "answered",
        timeout=30,
        what="an answer",
    )


def test_garbage_of_an_upstream_resolves_nothing_and_ends_nothing(lab: Lab) -> None:
    """Health says that names do not resolve; the process stays, and so does the tunnel."""
    words = [sys.executable, "-I", "-S", garbage.__file__, INSIDE.ipv4, "5353"]
    resolver = lab.household.start(lab.server.namespace.command(words), "garbage")
    resolver.wait_for("ready")
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    address = f"{INSIDE.ipv4}:5353"
    names = {"DNS_ADDRESS": None, "DNS_UPSTREAM_PLAIN_ADDRESSES": address}
    gateway.start(gateway.env(DNS_SERVER="on", **names))
    gateway.wait_for_state("connected")
    before = child_of(gateway)
    for number in range(30):
        found = gateway.workload().probe("resolve", name=f"n{number}.example")
        assert found.result != "answered", found
    assert resolver.output().count("asked") > 30, "control"
    assert child_of(gateway) == before
    assert gateway.status().body["state"] == "connected"
    health = gateway.wait_unhealthy(timeout=150)
    assert health.body["reason_code"] in {Reason.RESOLVER_SILENT, Reason.RESOLVER_DOWN}
    assert lab.leaks(gateway.started_at + 1) == []
