"""P4: nothing passes the tunnel before its handshake, and only its own addresses after it."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lab.frames import Frame, wireguard_to
from tests.lab.internet import INTERNET
from tests.lab.process import eventually, promised
from tests.lab.server import CLIENT, INSIDE, PORT
from tests.lab.topology import Lab
from tests.promises.witness import (
    HOST4,
    HOST6,
    links,
    not_answered,
    not_by_the_exit,
    not_refused_at_once,
    ordinary,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P4")]

INITIATION, DATA = 1, 4
"""Types of WireGuard's messages."""
NOTICED = 20
"""Seconds within which a dead server is noticed under traffic."""
FILLER = "x" * 1350
"""Makes a packet that differs from all others in its size, encrypted too: an ICMPv6 error that
quotes it is cut at 1280 bytes (RFC 4443, section 2.4)."""


def encrypted(lab: Lab, since: float) -> list[Frame]:
    """Return the frames of the encrypted flow."""
    flows = [wireguard_to(address, PORT) for address in lab.server.endpoint]
    return [frame for frame in lab.capture.frames(since) if any(judge(frame) for judge in flows)]


def kinds(frames: Sequence[Frame]) -> set[int]:
    """Return the types of WireGuard's messages."""
    return {frame.payload[0] for frame in frames}


@pytest.mark.parametrize("direction", ["both", "out"])
def test_without_a_handshake_nothing_but_attempts_at_one_leaves(lab: Lab, direction: str) -> None:
    """The server is silent, or its answers are lost: traffic is refused at once, health is red."""
    assert not_answered(ordinary(lab.workload, "before")) == {}
    assert lab.capture.containing("before"), "control: seen while the namespace is open"
    lab.server.cut(direction)
    gateway = lab.gateway().start()
    lab.capture.wait_for(wireguard_to(lab.server.endpoint.ipv4), since=gateway.started_at)
    health = gateway.wait_for_state("connecting")
    since = time.monotonic()
    assert not_refused_at_once(ordinary(lab.workload, "after")) == {}
    assert not_refused_at_once(ordinary(lab.workload, "inside", tuple(INSIDE))) == {}
    for host in (HOST4, HOST6):
        assert lab.workload.probe("udp", host=host, device="wg0").failed_fast
    health = gateway.status()
    assert health.code == 503
    assert health.body["reason_code"] in {"starting", "no_handshake"}
    assert "wg0" in links(lab), "the interface exists, and is closed"
    assert lab.leaks(since) == []
    assert kinds(encrypted(lab, gateway.started_at)) == {INITIATION}
    lab.server.restore()
    gateway.restart().wait_healthy()
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert DATA in kinds(encrypted(lab, gateway.started_at)), "control: data is seen as such"
    assert lab.leaks(since) == []


def test_after_the_handshake_the_internet_sees_the_vpns_addresses(lab: Lab) -> None:
    """Every host, both families, every ordinary way; names resolve inside."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    since = time.monotonic()
    for host in INTERNET:
        assert not_by_the_exit(lab, ordinary(lab.workload, "inside", tuple(host))) == {}
        for address, reported in zip(host, lab.server.exit, strict=True):
            assert lab.workload.probe("http", host=address).seen == reported
    answer = gateway.workload().probe("resolve", name="a.example")
    assert INTERNET[0].ipv4 in answer.fields["addresses"]
    assert lab.server.queries(name="a.example")
    assert not lab.capture.containing("inside", since)
    assert lab.leaks(since) == []


def test_a_server_that_dies_under_traffic_leaves_it_refused_and_comes_back_in_place(
    lab: Lab,
) -> None:
    """Red within 20 s, refused at once from then on, nothing outside at any time, then again."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    process = gateway.pid
    flood = lab.workload.flood("udp4", "udp6", "tcp4", "tcp6", rate=50)
    lab.capture.wait_for(lambda f: len(f.raw) > 100, since=time.monotonic())
    since = time.monotonic()
    lab.server.cut()
    assert gateway.wait_unhealthy(NOTICED).body["reason"] == "handshake but nothing received"
    assert time.monotonic() - since < promised(NOTICED)
    assert not_refused_at_once(ordinary(lab.workload, "cut")) == {}
    assert flood.stop()["errors"]
    lab.server.restore()
    gateway.wait_healthy(15)
    assert not_by_the_exit(lab, ordinary(lab.workload, "again")) == {}
    assert gateway.pid == process
    assert lab.leaks(since) == []


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_only_the_tunnels_own_addresses_pass_in_it(lab: Lab, family: int) -> None:
    """The uplink's, and an unassigned one: a server that knows the user by them learns nothing.

    The server would drop them, so what counts is whether a packet of this size is encrypted.
    """
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    host, inside, uplink, unassigned = (
        (HOST4, CLIENT.ipv4, lab.uplink.gateway.ipv4, "10.99.99.99")
        if family == 4
        else (HOST6, CLIENT.ipv6, lab.uplink.gateway.ipv6, "fd99::99")
    )

    def passes(name: str, **arguments: object) -> bool:
        since = time.monotonic()
        lab.workload.probe(name, host=host, marker=FILLER, timeout=0.2, **arguments)
        return any(len(frame.payload) > len(FILLER) for frame in encrypted(lab, since))

    assert passes("udp"), "control: an honest packet of this size is seen, encrypted"
    assert passes("forged", source=inside), "control: as is a forged one with the right source"
    since = time.monotonic()
    assert not passes("udp", source=uplink)
    assert not passes("udp", source=uplink, device="wg0")
    for source in (uplink, unassigned, "127.0.0.1" if family == 4 else "::1"):
        assert not passes("forged", source=source)
        assert not passes("forged", source=source, device="wg0")
    assert lab.leaks(since) == []


def test_while_the_gateway_hangs_the_tunnel_is_all_there_is(lab: Lab) -> None:
    """Nothing depends on a process that watches: stopped by a signal, it cannot let anything out.

    Limitations: a dead server is then not noticed, so that applications wait instead of failing.
    """
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    since = time.monotonic()
    gateway.signal(signal.SIGSTOP)
    try:
        eventually(
            lambda: ") T " in Path(f"/proc/{gateway.pid}/stat").read_text(),
            timeout=2,
            what="the stop",
        )
        assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
        lab.server.cut()
        for host in (HOST4, HOST6):
            assert lab.workload.probe("udp", host=host, timeout=0.2).result == "timeout"
            assert lab.workload.probe("udp", host=host, device="eth0").failed_fast
    finally:
        gateway.signal(signal.SIGCONT)
    lab.server.restore()
    assert lab.leaks(since) == []
