"""What the kernel tells is followed: routes and uplinks that change; and nothing grows by it.

Interfaces that go, other addresses and a halted process are in test_p15_heals.py. A machine that is
suspended cannot be had here; that its clock has gone on is in tests/unit/test_machine.py.
"""

import time

import pytest

from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.soak import reconnects
from tests.lab.topology import Lab
from tests.promises.witness import HOST4

pytestmark = pytest.mark.lab

SOON = 3
"""Seconds from a change to traffic by the new way."""

RECONNECTS = 30
LEEWAY = 2048
"""KiB that memory may differ by; `scripts/soak` goes on for a thousand reconnects."""


def by_exit(lab: Lab) -> bool:
    """Say whether an echo outside sees the server's exit."""
    return lab.workload.probe("tcp", host=HOST4, timeout=0.5).seen == lab.server.exit.ipv4


def seen_from(lab: Lab) -> str:
    """Return from where the server gets the encrypted flow."""
    return str(lab.server.peer()["endpoint"]).rpartition(":")[0]


def lead_by(lab: Lab, number: int) -> None:
    """Let the default route of IPv4 go by this uplink."""
    router, name = lab.uplinks[number].router.ipv4, lab.uplinks[number].name
    lab.gateway_namespace.ip(f"route replace default via {router} dev {name}")


@pytest.mark.promise("P15")
def test_another_default_route_is_followed_at_once_and_back(lab: Lab) -> None:
    """By a network that was connected meanwhile, until that is disconnected again."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    assert seen_from(lab) == lab.uplink.gateway.ipv4, "control: by the first uplink"
    second = lab.attach_uplink()
    since = time.monotonic()
    lead_by(lab, 1)
    eventually(
        lambda: seen_from(lab) == second.gateway.ipv4, timeout=SOON, what="the second uplink"
    )
    eventually(lambda: by_exit(lab), timeout=SOON, what="traffic")
    assert "the way to the server changed" in gateway.wait_healthy().body["reconnects"]
    lab.detach_uplink(second)
    told = gateway.wait_unhealthy(timeout=SOON)
    assert told.state == "connecting"
    assert lab.workload.probe("udp", host=HOST4).failed_fast
    lead_by(lab, 0)
    eventually(lambda: by_exit(lab), timeout=SOON, what="traffic by the first uplink")
    assert seen_from(lab) == lab.uplink.gateway.ipv4
    gateway.wait_healthy()
    assert lab.leaks(since) == []


def test_reconnecting_costs_neither_memory_nor_descriptors(lab: Lab) -> None:
    """Thirty times here; a child, a thread or a socket left behind each time would be seen."""
    gateway: Gateway = lab.gateway().start()
    gateway.wait_healthy()
    _, first, *_, last = reconnects(lab, gateway, RECONNECTS, RECONNECTS // 3)
    assert last.descriptors <= first.descriptors
    assert (last.children, last.threads) == (first.children, first.threads)
    assert last.memory <= first.memory + LEEWAY
