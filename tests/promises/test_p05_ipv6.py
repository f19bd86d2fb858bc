"""P5: IPv6 is held exactly like IPv4, and where nothing of it may pass not one frame leaves.

The other promise tests run every probe in both families; here is what IPv6 has of its own.
"""

import sys
import time

import pytest

from tests.lab.frames import (
    ETH_IPV6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    Frame,
)
from tests.lab.server import CLIENT
from tests.lab.topology import Lab
from tests.promises.witness import (
    HOST4,
    HOST6,
    flooded,
    locked,
    not_answered,
    not_by_the_exit,
    not_refused_at_once,
    open_everything,
    ordinary,
    wait_for_flood,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P5")]

FLOOD6 = ("udp6", "tcp6", "device6", "mark6", "raw6", "packet6")
ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"

ICMPV6 = """
import socket, struct, sys
host, kind, marker = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
out = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
body = socket.inet_pton(socket.AF_INET6, "fd30::1") if kind in (135, 136, 137) else b""
try:
    out.sendto(struct.pack("!BBHI", kind, 0, 0, 0) + body + marker, (host, 0))
except OSError:
    pass
"""
"""Sends one ICMPv6 message of any type, as a workload with CAP_NET_RAW can."""

MESSAGES = [
    ("echo request to the neighbour", "fd30::1", 128),
    ("unreachable to the neighbour", "fd30::1", 1),
    ("router solicitation", ALL_ROUTERS, 133),
    ("router advertisement", ALL_NODES, 134),
    ("redirect", "fd30::1", 137),
    ("listener report", ALL_ROUTERS, 131),
    ("solicitation to all nodes", ALL_NODES, NEIGHBOUR_SOLICITATION),
    ("advertisement to all nodes", ALL_NODES, NEIGHBOUR_ADVERTISEMENT),
    ("solicitation beyond the link", HOST6, NEIGHBOUR_SOLICITATION),
    ("advertisement beyond the link", HOST6, NEIGHBOUR_ADVERTISEMENT),
]
"""What is not neighbour discovery between neighbours."""


def is_ipv6(frame: Frame) -> bool:
    """Return whether the frame is IPv6, of whatever kind."""
    return frame.ethertype == ETH_IPV6


def get_out(lab: Lab, marker: str) -> list[str]:
    """Send each of MESSAGES and return those that were seen outside."""
    seen = []
    for number, (name, host, kind) in enumerate(MESSAGES):
        own = f"{marker}-{number}."
        argv = (sys.executable, "-I", "-S", "-c", ICMPV6, host, str(kind), own)
        lab.workload.run(*argv)
        if lab.capture.containing(own):
            seen.append(name)
    return seen


def test_a_tunnel_without_an_ipv6_address_leaves_ipv6_refused(lab: Lab) -> None:
    """IPv4 goes through the tunnel; of IPv6 not one frame leaves, by whatever means it is tried."""
    flood = flooded(lab, *FLOOD6)
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_ADDRESSES=f"{CLIENT.ipv4}/32"))
    closed_at = locked(gateway)
    gateway.wait_healthy()
    since = time.monotonic()
    assert not_by_the_exit(lab, ordinary(lab.workload, "four", (HOST4,))) == {}
    assert not_refused_at_once(ordinary(lab.workload, "six", (HOST6,))) == {}
    assert lab.workload.probe("udp", host=HOST6, device="wg0").failed_fast
    assert gateway.stop() == 0
    assert [frame for frame in lab.capture.frames(closed_at) if is_ipv6(frame)] == []
    assert lab.leaks(since) == []
    opened_at = time.monotonic()
    open_everything(lab)
    wait_for_flood(lab, *FLOOD6, since=opened_at)
    flood.stop()


def test_an_endpoint_of_ipv6_carries_both_families(lab: Lab) -> None:
    """And of IPv4 not one frame leaves then, ARP included; without the server, nothing does."""
    gateway = lab.gateway()
    gateway.start(gateway.env(family=6))
    closed_at = locked(gateway)
    gateway.wait_healthy()
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert lab.leaks(closed_at) == []
    assert {frame.ethertype for frame in lab.capture.frames(closed_at)} == {ETH_IPV6}
    lab.server.cut()
    gateway.restart()
    lab.capture.wait_for(is_ipv6, since=locked(gateway))
    gateway.wait_for_state("connecting")
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    assert lab.leaks(closed_at) == []


def test_with_an_endpoint_of_ipv6_neighbour_discovery_passes_and_no_other_message(
    lab: Lab,
) -> None:
    """On the link and no further. Limitations: what neighbours send each other may hide data."""
    assert len(get_out(lab, "open")) == len(MESSAGES), "control: all are seen while it is open"
    gateway = lab.gateway()
    gateway.start(gateway.env(family=6))
    gateway.wait_healthy()
    since = time.monotonic()
    assert get_out(lab, "closed") == []
    lab.gateway_namespace.ip("neigh flush dev eth0")
    assert not_answered(ordinary(lab.workload)) == {}
    lab.capture.wait_for(lambda frame: frame.icmp_type == NEIGHBOUR_SOLICITATION, since=since)
    assert lab.leaks(since) == []


def test_with_nothing_of_ipv6_on_the_uplink_not_even_neighbour_discovery_leaves(lab: Lab) -> None:
    """An endpoint of IPv4 and no holes: the link sees no IPv6 at all, and gets no answer to it."""
    assert get_out(lab, "open"), "control: seen while it is open"
    gateway = lab.gateway().start()
    closed_at = locked(gateway)
    gateway.wait_healthy()
    assert get_out(lab, "closed") == []
    lab.internet.run("ip", "neigh", "flush", "dev", lab.uplink.far_end)
    answer = lab.internet.probe("udp", host=lab.uplink.gateway.ipv6, timeout=0.5)
    assert answer.result != "answered"
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert [frame for frame in lab.capture.frames(closed_at) if is_ipv6(frame)] == []


def test_ipv4_in_the_clothes_of_ipv6_is_held_like_ipv4(lab: Lab) -> None:
    """A mapped address on an IPv6 socket makes IPv4 packets (RFC 4291, section 2.5.5.2)."""
    mapped = f"::ffff:{HOST4}"
    assert lab.workload.probe("udp", host=mapped, marker="open").result == "answered"
    assert lab.capture.containing("open"), "control: seen while it is open"
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    since = time.monotonic()
    assert lab.workload.probe("udp", host=mapped, marker="in").seen == lab.server.exit.ipv4
    assert lab.workload.probe("udp", host=mapped, device="eth0", marker="out").failed_fast
    assert gateway.stop() == 0
    assert lab.workload.probe("udp", host=mapped, marker="after").failed_fast
    assert lab.leaks(since) == []


def test_a_namespace_with_ipv6_switched_off_works_with_ipv4(lab: Lab) -> None:
    """As Docker makes them on networks without IPv6; what switches it on later opens nothing.

    Limitations: a kernel without IPv6 at all is not in the lab.
    """
    assert not_answered(ordinary(lab.workload, hosts=(HOST6,))) == {}, "control: while it is open"
    for place in ("all", "default", "lo", "eth0"):
        lab.gateway_namespace.sysctl(f"ipv6/conf/{place}/disable_ipv6", 1)
    gateway = lab.gateway(read_only_proc_sys=True).start()
    closed_at = locked(gateway)
    gateway.wait_healthy()
    assert not_by_the_exit(lab, ordinary(lab.workload, hosts=(HOST4,))) == {}
    assert not_refused_at_once(ordinary(lab.workload, hosts=(HOST6,))) == {}
    lab.gateway_namespace.sysctl("ipv6/conf/eth0/disable_ipv6", 0)
    lab.gateway_namespace.ip(
        f"addr add {lab.uplink.gateway.ipv6}/64 dev eth0 nodad",
        f"route add default via {lab.uplink.router.ipv6}",
    )
    assert not_refused_at_once(ordinary(lab.workload, hosts=(HOST6,))) == {}
    assert lab.workload.probe("udp", host=HOST6, device="eth0").failed_fast
    assert lab.leaks(closed_at) == []
