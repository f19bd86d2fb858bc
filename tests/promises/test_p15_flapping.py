"""P15: a link that comes and goes, even while it is looked at, costs the tunnel nothing."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab.gateway import Gateway, Health
from tests.lab.namespace import connect
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.witness import HOST4

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

FLAPS = 40
FAR, NEAR = "upf", "eth1"
NEIGHBOUR, MARKER = "172.29.0.1", b"flapping"
SO_BINDTODEVICE = 25
VARIABLES = {"FIREWALL_INPUT_PORTS": "8080"}
"""With an input port every uplink gets rules, settings and a routing table."""


class Watch:
    """Frames that come out at the far end of eth1, whichever it is at the moment."""

    def __init__(self, lab: Lab) -> None:
        self._frames = lab.internet_namespace.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)
        )
        self._frames.setblocking(False)

    def seen(self) -> list[bytes]:
        """Return the frames that have come since, less those that the far end sent itself."""
        found = []
        while True:
            try:
                frame, (name, _, kind, *_) = self._frames.recvfrom(2048)
            except BlockingIOError:
                return found
            # A link that is gone by now has no name any more.
            if name in {FAR, ""} and kind != socket.PACKET_OUTGOING:
                found.append(frame)

    def close(self) -> None:
        """Stop watching."""
        self._frames.close()


@contextlib.contextmanager
def watching(lab: Lab) -> Iterator[Watch]:
    """Watch the far end, and see to it that an open namespace does send there."""
    watch = Watch(lab)
    try:
        flap(lab, 0.2)
        assert any(MARKER in frame or b"\x08\x06" in frame for frame in watch.seen()), "control"
        yield watch
    finally:
        watch.close()


def flap(lab: Lab, seconds: float) -> None:
    """Attach a network, have a host send there, and take it away again."""
    connect(lab.internet_namespace, FAR, lab.gateway_namespace, NEAR)
    lab.internet_namespace.ip(f"addr add {NEIGHBOUR}/24 dev {FAR}", f"link set {FAR} up")
    lab.gateway_namespace.ip(f"addr add 172.29.0.2/24 dev {NEAR}", f"link set {NEAR} up")
    with (
        lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet,
        contextlib.suppress(OSError),  # refused, as it should be
    ):
        outlet.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, NEAR.encode())
        outlet.sendto(MARKER, (NEIGHBOUR, 7))
    time.sleep(seconds)
    lab.internet_namespace.ip(f"link del {FAR}")


def watched(gateway: Gateway, reported: list[Health], until: threading.Event) -> None:
    """Note what health says, again and again."""
    while not until.is_set():
        reported.append(gateway.status())
        time.sleep(0.05)


def test_an_uplink_that_flaps_costs_no_reconnect_and_leaks_nothing(lab: Lab) -> None:
    """Health never turns red, traffic flows, and nothing leaves by the link that flaps."""
    with watching(lab) as watch:
        gateway = lab.gateway()
        gateway.start(gateway.env(**VARIABLES)).wait_healthy()
        stream = lab.workload.stream(HOST4, interval=0.05, timeout=1)
        eventually(lambda: len(stream.exchanges()) > 5, timeout=5, what="exchanges")
        watch.seen()
        reported: list[Health] = []
        until = threading.Event()
        watcher = threading.Thread(target=watched, args=(gateway, reported, until))
        watcher.start()
        try:
            for number in range(FLAPS):
                flap(lab, 0.01 * (number % 7))
            time.sleep(4)  # the next comparison with the kernel
        finally:
            until.set()
            watcher.join()
        red = {(h.code, h.state, str(h.body.get("reason"))) for h in reported if h.code != 200}
        assert red == set()
        body = gateway.status().body
        assert (body["reconnects"], body["drift"]) == ({}, 0)
        assert set(stream.stop()["kinds"]) == {"answered"}
        assert watch.seen() == []


def test_a_link_that_flaps_while_the_gateway_connects_does_not_keep_it_from_it(lab: Lab) -> None:
    """Nor does one that is renamed while it is up."""
    until = threading.Event()

    def go_on() -> None:
        while not until.is_set():
            flap(lab, 0.02)

    with watching(lab) as watch:
        gateway = lab.gateway()
        lab.server.cut()
        gateway.start(gateway.env(**VARIABLES)).wait_for_state("connecting")
        watch.seen()
        flapping = threading.Thread(target=go_on)
        flapping.start()
        try:
            lab.server.restore()
            gateway.wait_healthy(20)
        finally:
            until.set()
            flapping.join()
        assert watch.seen() == []
    connect(lab.internet_namespace, FAR, lab.gateway_namespace, NEAR)
    lab.gateway_namespace.ip(f"link set {NEAR} up")
    for number in range(10):
        names = (NEAR, "lan7") if number % 2 == 0 else ("lan7", NEAR)
        lab.gateway_namespace.ip(f"link set {names[0]} name {names[1]}")
        time.sleep(0.1)
    time.sleep(2)
    assert gateway.wait_healthy().body["reconnects"] == {}


def test_the_uplink_itself_flapping_is_a_loss_that_recovers(lab: Lab) -> None:
    """It has no route while it is down, and comes back with one."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES)).wait_healthy()
    since = time.monotonic()
    for _ in range(5):
        lab.gateway_namespace.ip("link set eth0 down", "link set eth0 up")
        time.sleep(0.05)
    gateway.wait_unhealthy(5)
    lab.gateway_namespace.ip(f"route replace default via {lab.uplink.router.ipv4} dev eth0")
    assert gateway.wait_healthy(20).body["reconnects"]
    assert lab.leaks(since) == []
