"""P15: it recovers in place; the process and the namespace stay, and health is red meanwhile."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.frames import ETH_ARP, Frame
from tests.lab.gateway import Gateway
from tests.lab.late import too_many
from tests.lab.process import eventually, promised
from tests.lab.topology import Lab
from tests.promises.witness import (
    HOST4,
    HOST6,
    flooded,
    links,
    not_answered,
    not_by_the_exit,
    not_refused_at_once,
    open_everything,
    ordinary,
    wait_for_flood,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15"), pytest.mark.both_firewalls]

HONEST = ("udp4", "udp6", "tcp4", "tcp6")
SOON = 3.0
"""Seconds from a deletion to traffic."""
NEW_OWN = "172.30.0.7"


def deleted(lab: Lab) -> None:
    """Delete the interface."""
    lab.operator.run("ip", "link", "del", "wg0")


def set_down(lab: Lab) -> None:
    """Set the interface down."""
    lab.operator.run("ip", "link", "set", "wg0", "down")


def renamed(lab: Lab) -> None:
    """Give the interface another name."""
    lab.operator.run("sh", "-ec", "ip link set wg0 down; ip link set wg0 name other")


def process_killed(lab: Lab) -> None:
    """Kill the process that carries the interface; kernel WireGuard has none and is deleted."""
    for pid in lab.gateway_namespace.pids():
        if Path(f"/proc/{pid}/comm").read_text().strip() == "wireguard-go":
            lab.operator.run("kill", "-9", str(pid))
            return
    deleted(lab)


def addresses_flushed(lab: Lab) -> None:
    """Take the interface's addresses away."""
    lab.operator.run("ip", "addr", "flush", "dev", "wg0")


BREAKAGES = (deleted, set_down, renamed, process_killed)


def wait_for_traffic(lab: Lab, timeout: float) -> None:
    """Wait until both families use the exit again."""
    for host, seen in zip((HOST4, HOST6), lab.server.exit, strict=True):
        eventually(
            lambda host=host, seen=seen: (
                lab.workload.probe("udp", host=host, timeout=0.3).seen == seen
            ),
            timeout=timeout,
            what="traffic",
        )


def wait_for_loss(gateway: Gateway, since: int) -> dict[str, object]:
    """Wait for the log's word, beyond the first `since` events, that the tunnel was lost."""

    def found() -> dict[str, object] | None:
        left = [e for e in gateway.events(event="state changed")[since:] if e["old"] == "connected"]
        return left[0] if left else None

    return eventually(found, timeout=5, what="the loss to be noticed")


@pytest.mark.parametrize("broken", BREAKAGES)
def test_a_lost_interface_is_rebuilt_at_once_and_nothing_leaves_meanwhile(
    lab: Lab, broken: Callable[[Lab], None]
) -> None:
    """Under a flood; noticed with its reason; the same process; traffic within 3 s."""
    flood = flooded(lab, *HONEST)
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    process, reported = gateway.pid, len(gateway.events(event="state changed"))
    since = time.monotonic()
    broken(lab)
    loss = wait_for_loss(gateway, reported)
    assert (loss["new"], loss["reason"]) == ("connecting", "interface_lost")
    wait_for_traffic(lab, SOON)
    assert time.monotonic() - since < promised(SOON)
    assert gateway.wait_healthy().body["reason"] == "the server answers"
    assert gateway.pid == process
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert links(lab) == ["eth0", "lo", "wg0"], "no leftover under another name"
    assert lab.leaks(since) == []
    gateway.kill()
    opened_at = time.monotonic()
    open_everything(lab)
    wait_for_flood(lab, *HONEST, since=opened_at)
    flood.stop()


def test_addresses_that_another_program_removed_come_back(lab: Lab) -> None:
    """The tunnel's own; without them nothing passes, and nothing goes another way."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    since = time.monotonic()
    addresses_flushed(lab)
    wait_for_traffic(lab, 10)
    assert lab.leaks(since) == []


def test_while_it_cannot_be_rebuilt_health_is_red_and_says_why(lab: Lab) -> None:
    """The way to the endpoint is gone; when it is back, so is the tunnel."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    process = gateway.pid
    since = time.monotonic()
    for family in ("-4", "-6"):
        lab.operator.run("ip", family, "route", "del", "default")
    deleted(lab)
    health = gateway.wait_unhealthy()
    assert health.state == "connecting"
    eventually(
        lambda: gateway.status().body["reason"] == "the tunnel could not be set up",
        timeout=5,
        what="the reason",
    )
    assert "no uplink has a route" in str(gateway.status().body["detail"])
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    lab.operator.run("ip", "-4", "route", "add", "default", "via", lab.uplink.router.ipv4)
    lab.operator.run("ip", "-6", "route", "add", "default", "via", lab.uplink.router.ipv6)
    gateway.wait_healthy(15)
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert gateway.pid == process
    assert lab.leaks(since) == []


def test_started_before_the_network_is_there_it_waits_for_it(lab: Lab) -> None:
    """No exit for what time can cure: the uplink is down at first, then comes up."""
    lab.operator.run("ip", "link", "set", "eth0", "down")
    gateway = lab.gateway().start()
    health = gateway.wait_unhealthy()
    assert health.code == 503
    process = gateway.pid
    since = time.monotonic()
    lab.gateway_namespace.ip(
        "link set eth0 up",
        f"addr replace {lab.uplink.gateway.ipv6}/64 dev eth0 nodad",
        f"route add default via {lab.uplink.router.ipv4}",
        f"route add default via {lab.uplink.router.ipv6}",
    )
    gateway.wait_healthy(15)
    assert gateway.pid == process
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert lab.leaks(since) == []


def test_a_new_address_on_the_uplink_is_followed(lab: Lab) -> None:
    """As after `docker network disconnect` and `connect`; the old address leads nowhere."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    process = gateway.pid
    since = time.monotonic()
    lab.gateway_namespace.ip(
        "addr flush dev eth0 scope global",
        f"addr add {NEW_OWN}/24 dev eth0",
        "addr add fd30::7/64 dev eth0 nodad",
        f"route replace default via {lab.uplink.router.ipv4}",
        f"route replace default via {lab.uplink.router.ipv6}",
    )
    wait_for_traffic(lab, 30)
    gateway.wait_healthy(30)
    assert gateway.pid == process
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert lab.workload.probe("udp", host=HOST4, source=NEW_OWN).failed_fast

    def new_neighbour(frame: Frame) -> bool:
        return frame.ethertype == ETH_ARP and frame.source == NEW_OWN

    assert lab.leaks(since, allowed=[new_neighbour]) == []


def test_a_second_uplink_is_closed_from_its_first_frame_and_its_removal_harms_nothing(
    lab: Lab,
) -> None:
    """A flood waits for it; the tunnel stays up. Then the link goes, and the tunnel stays up.

    Limitations: before Linux 6.16 packet sockets have a moment (known-issues.md).
    """
    control = lab.workload.flood("udp4", "udp6", "packet4", rate=200, device="eth1", host4=SECOND)
    first = lab.attach_uplink()
    first.capture.wait_for(lambda frame: b"flood-marker" in frame.raw)
    control.stop()
    lab.detach_uplink(first)
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    flood = lab.workload.flood(
        "udp4", "device4", "mark4", "raw4", "packet4", "device6", "packet6",
        rate=200, device="eth2", host4="172.32.0.1", host6="fd32::1",
    )  # fmt: skip
    late = lab.attach_uplink()
    assert late.name == "eth2"
    wait_for_traffic(lab, 5)
    assert gateway.wait_healthy().code == 200
    for host in late.router:
        eventually(
            lambda host=host: lab.workload.probe("udp", host=host).failed_fast,
            timeout=1,
            what="the new link's hosts to be rejected, and not reached through the tunnel",
        )
    assert too_many(late.capture.leaks()) == []
    lab.detach_uplink(late)
    wait_for_traffic(lab, 5)
    assert gateway.wait_healthy().code == 200
    assert flood.stop()["errors"]


SECOND = "172.31.0.1"
"""The router's address on the second uplink."""


def test_a_server_that_restarts_is_found_again(lab: Lab) -> None:
    """It has forgotten the session, as after a reboot; traffic shows that, and restores it."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    process = gateway.pid
    since = time.monotonic()
    lab.server.kill()
    assert lab.workload.probe("udp", host=HOST4, timeout=0.3).result != "answered"
    lab.server.start()
    wait_for_traffic(lab, 30)
    gateway.wait_healthy(15)
    assert gateway.pid == process
    assert not_answered(ordinary(lab.workload)) == {}
    assert lab.leaks(since) == []


def test_a_gateway_that_hung_continues_where_it_was(lab: Lab) -> None:
    """Halted and continued, as by a machine that was suspended."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    since = time.monotonic()
    gateway.signal(signal.SIGSTOP)
    deleted(lab)
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    gateway.signal(signal.SIGCONT)
    wait_for_traffic(lab, 10)
    gateway.wait_healthy()
    assert lab.leaks(since) == []
