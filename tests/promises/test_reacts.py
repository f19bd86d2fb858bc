"""What the kernel announces is followed: routes and uplinks that change; and nothing grows by it.

Interfaces that go, other addresses and a halted process are in test_p15_heals.py. A machine that is
suspended cannot be had here; that its clock has gone on is in tests/unit/test_moves.py.
"""

import signal
import time

import pytest

from tests.lab.gateway import Gateway
from tests.lab.namespace import connect
from tests.lab.process import eventually
from tests.lab.soak import reconnects
from tests.lab.topology import Lab
from tests.promises.witness import HOST4

pytestmark = pytest.mark.lab

SOON = 3
"""Seconds from a change to traffic by the new way."""

RECONNECTS = 30
LEEWAY = 2048
"""KiB that memory may differ by; `scripts/soak` continues for a thousand reconnects."""


def by_exit(lab: Lab) -> bool:
    """Return whether an echo outside sees the server's exit."""
    return lab.workload.probe("tcp", host=HOST4, timeout=0.5).seen == lab.server.exit.ipv4


def seen_from(lab: Lab) -> str:
    """Return from where the server gets the encrypted flow."""
    return str(lab.server.peer()["endpoint"]).rpartition(":")[0]


def lead_by(lab: Lab, number: int) -> None:
    """Let the default route of IPv4 use this uplink."""
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
    assert "path_changed" in gateway.wait_healthy().body["reconnects"]
    lab.detach_uplink(second)
    reported = gateway.wait_unhealthy(timeout=SOON)
    assert reported.state == "connecting"
    assert lab.workload.probe("udp", host=HOST4).failed_fast
    lead_by(lab, 0)
    eventually(lambda: by_exit(lab), timeout=SOON, what="traffic by the first uplink")
    assert seen_from(lab) == lab.uplink.gateway.ipv4
    gateway.wait_healthy()
    assert lab.leaks(since) == []


@pytest.mark.promise("P15")
@pytest.mark.parametrize("state", ["connected", "locked"])
def test_an_engine_that_attaches_a_network_finds_the_way_to_its_gateway(
    lab: Lab, state: str
) -> None:
    """It asks the kernel as soon as the link is up, and makes a default route of the answer.

    The gateway is halted, so that it has not heard of the network. Control: without the rule for
    this the answer is the tunnel's, or none.
    """
    gateway = lab.gateway()
    if state == "connected":
        gateway.start().wait_healthy()
        gateway.signal(signal.SIGSTOP)
    else:
        gateway.start(gateway.env(WIREGUARD_PUBLIC_KEY="wrong")).wait()
    connect(lab.internet_namespace, "upz", lab.gateway_namespace, "eth7")
    lab.gateway_namespace.ip(
        "addr add 172.27.0.2/24 dev eth7",
        "addr add fd37::2/64 dev eth7 nodad",
        "link set eth7 up",
    )
    ask = {"-4": "172.27.0.1", "-6": "fd37::1"}
    for family, address in ask.items():
        assert "dev eth7" in lab.operator.run("ip", family, "route", "get", address)
        while "140:" in lab.operator.run("ip", family, "rule"):
            lab.operator.run("ip", family, "rule", "del", "priority", "140")
        without = lab.operator.run("ip", family, "route", "get", address, check=False)
        assert "eth7" not in without, "control"


def test_reconnecting_costs_neither_memory_nor_descriptors(lab: Lab) -> None:
    """Thirty times here; a child, a thread or a socket left behind each time would be seen."""
    gateway: Gateway = lab.gateway().start()
    gateway.wait_healthy()
    _, first, *_, last = reconnects(lab, gateway, RECONNECTS, RECONNECTS // 3)
    assert last.descriptors <= first.descriptors
    assert (last.children, last.threads) == (first.children, first.threads)
    assert last.memory <= first.memory + LEEWAY
