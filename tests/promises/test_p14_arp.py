"""P14, the rest of it: what a packet socket can put into ARP, and what the kernel needs of ARP.

ARP passes the egress guard while IPv4 has business on the uplink, in the form in which the kernel
sends it. docs/known-issues.md says what room is left.
"""

import struct
import time

import pytest

from tests.lab.frames import ETH_ARP, Frame
from tests.lab.topology import Lab
from tests.promises.stages import OWN4, limits_here, send_frames
from tests.promises.witness import not_by_the_exit, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P14")]

ROUTER4 = "172.30.0.1"
ROUTER_MAC, OWN_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
BROADCAST, UNASSIGNED = b"\xff" * 6, bytes(6)
REQUEST, REPLY = 1, 2
HIDDEN = b"hidden"


def arp(operation: int, destination: bytes, about: bytes) -> bytes:
    """Return an ARP frame of 42 bytes to the router; `about` is the target's hardware address."""
    ends = [bytes(map(int, address.split("."))) for address in (OWN4, ROUTER4)]
    head = destination + OWN_MAC + struct.pack("!HHHBBH", ETH_ARP, 1, 0x0800, 6, 4, operation)
    return head + OWN_MAC + ends[0] + about + ends[1]


FORMS = {
    "a request with data": arp(REQUEST, BROADCAST, HIDDEN),
    "a request to the router with data": arp(REQUEST, ROUTER_MAC, HIDDEN),
    "a request": arp(REQUEST, BROADCAST, UNASSIGNED),
    "a request to the router": arp(REQUEST, ROUTER_MAC, UNASSIGNED),
    "a reply": arp(REPLY, ROUTER_MAC, ROUTER_MAC),
}
THE_KERNELS = {name for name in FORMS if "data" not in name}


def seen(lab: Lab) -> set[str]:
    """Send every form by packet sockets, with and without queue bypass; return those that left."""
    since = time.monotonic()
    frames = [
        {"device": "eth0", "frame": frame.hex(), "bypass": bypass}
        for frame in FORMS.values()
        for bypass in (0, 1)
    ]
    send_frames(lab.workload, frames)
    lab.capture.quiet_for(0.1)
    left = [frame.raw for frame in lab.capture.frames(since)]
    return {name for name, frame in FORMS.items() if frame in left}


def test_a_request_hides_nothing_in_the_address_that_it_asks_for(lab: Lab) -> None:
    """Data there is dropped, while connected; the kernel's own forms pass. Control: no gateway."""
    assert seen(lab) == set(FORMS), "control: before the gateway starts"
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    assert gateway.status().body["limits"] == limits_here(lab), "this kernel has the egress hook"
    assert seen(lab) == THE_KERNELS
    assert gateway.stop() == 0
    assert seen(lab) == set(), "no neighbour needs to be found any more"


def test_the_kernel_finds_its_neighbours_and_is_found(lab: Lab) -> None:
    """By broadcast at first, by asking the router itself later, and by answering when it is asked.

    The requests that are seen have no hardware address of a target: that is what the guard matches.
    """
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    # In place of the second that the kernel waits between its questions.
    lab.gateway_namespace.sysctl("ipv4/neigh/eth0/retrans_time_ms", 100)
    for how, to in ((f"del {ROUTER4} dev eth0", BROADCAST), (as_probed(), ROUTER_MAC)):
        since = time.monotonic()
        lab.operator.run("ip", "neigh", *how.split())
        assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
        asked = lab.capture.wait_for(
            lambda frame, to=to: is_arp(frame, REQUEST) and frame.raw[:6] == to, since=since
        )
        assert asked.raw[32:38] == UNASSIGNED
        assert asked.destination == ROUTER4
        reported = lab.operator.run("ip", "neigh", "show", ROUTER4, "dev", "eth0")
        assert ROUTER_MAC.hex(":") in reported
    since = time.monotonic()
    lab.internet_namespace.ip("neigh flush dev up0")
    lab.internet.probe("udp", host=OWN4, port=9, timeout=0.1)
    lab.capture.wait_for(lambda frame: is_arp(frame, REPLY), since=since)
    assert gateway.status().code == 200
    assert lab.leaks(since) == []


def as_probed() -> str:
    """Return the command that lets the kernel ask the router whether it is still there."""
    return f"replace {ROUTER4} lladdr {ROUTER_MAC.hex(':')} dev eth0 nud probe"


def is_arp(frame: Frame, operation: int) -> bool:
    """Return whether the frame is ARP of this operation from the gateway."""
    return (
        frame.ethertype == ETH_ARP
        and frame.source == OWN4
        and int.from_bytes(frame.raw[20:22], "big") == operation
    )
