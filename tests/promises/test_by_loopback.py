"""No workload gives the gateway other routes, and loopback does not show the encrypted flow."""

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.lab.internet import OTHER_LAN_HOST
from tests.lab.process import eventually, promised
from tests.lab.server import PORT
from tests.lab.topology import Lab
from tests.promises.witness import HOST4

pytestmark = pytest.mark.lab

LIAR = Path(__file__).parents[1] / "lab" / "liar.py"
OTHER = "172.30.0.77"
"""A neighbour of the gateway on its uplink."""

SHOWN = "0x80000000"
"""The mark by which routing rules know the encrypted flow."""

ETH_P_ALL = 3
HEADERS = 14 + 20
"""Bytes before a UDP header on loopback, IPv4."""


def lie(lab: Lab, *words: str) -> None:
    """Have a workload with Docker's default capabilities send a forged message over loopback."""
    lab.workload.run(sys.executable, "-I", "-S", str(LIAR), *words)


def other_neighbour(lab: Lab) -> None:
    """Give the uplink another neighbour, and the namespace the settings of a container's."""
    lab.internet_namespace.run("ip", "addr", "add", f"{OTHER}/24", "dev", "up0")
    lab.gateway_namespace.sysctl("ipv4/ip_forward", 0)


def redirect(lab: Lab, destination: str, port: int = PORT, *, by: str = "loopback") -> None:
    """Say that `destination` is reached by another neighbour, again until he has been found."""
    own, router = lab.uplink.gateway.ipv4, lab.uplink.router.ipv4
    words = ("redirect", by, own, destination, router, OTHER, str(port))
    for _ in range(3):
        if by == "loopback":
            lie(lab, *words)
        else:
            lab.internet.run(sys.executable, "-I", "-S", str(LIAR), *words)
        time.sleep(0.3)


@contextlib.contextmanager
def flow(lab: Lab, destination: str, port: int = PORT) -> Iterator[None]:
    """Hold a flow like WireGuard's: without a socket the kernel believes nothing about one."""
    own = lab.uplink.gateway.ipv4
    with contextlib.closing(
        lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ) as channel:
        channel.bind((own, port))
        channel.sendto(b"flow", (destination, port))
        yield


def way(lab: Lab, destination: str, *words: str) -> str:
    """Return how the kernel would route a packet."""
    return lab.operator.run("ip", "route", "get", destination, *words)


def routes6(lab: Lab) -> str:
    """Return the main table of IPv6."""
    return lab.operator.run("ip", "-6", "route", "show", "table", "main")


@pytest.mark.promise("P11")
def test_a_workload_cannot_redirect_the_encrypted_flow(lab: Lab) -> None:
    """Not over loopback, where it may send what it likes.

    Control: in the open namespace the same message turns a route to the other neighbour.
    """
    other_neighbour(lab)
    with flow(lab, HOST4):
        redirect(lab, HOST4)
        assert OTHER in way(lab, HOST4), "control: the route turned"
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    endpoint = lab.server.endpoint.ipv4
    redirect(lab, endpoint)
    assert OTHER not in way(lab, endpoint, "mark", SHOWN)
    assert gateway.status().code == 200


@pytest.mark.promise("P11")
def test_a_neighbour_cannot_redirect_a_flow_of_a_hole(lab: Lab) -> None:
    """A redirect counts as an error about the flow, and is none.

    Control: in the open namespace the same message turns the route.
    """
    other_neighbour(lab)
    host = OTHER_LAN_HOST.ipv4
    with flow(lab, host):
        redirect(lab, host, by="link")
        assert OTHER in way(lab, host), "control: the route turned"
    lab.operator.run("ip", "route", "flush", "cache")
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=f"{host}/32")).wait_healthy()
    with flow(lab, host, PORT + 1):
        redirect(lab, host, PORT + 1, by="link")
        assert OTHER not in way(lab, host)


@pytest.mark.promise("P11")
def test_a_workload_cannot_advertise_routes_to_itself(lab: Lab) -> None:
    """One such message was enough to reject an endpoint of IPv6 for ever.

    Control: in the open namespace the same message makes a route.
    """
    lie(lab, "advertise", "2001:db8:dead::1/128")
    eventually(lambda: "2001:db8:dead::1" in routes6(lab), timeout=3, what="control: a route")
    gateway = lab.gateway()
    gateway.start(gateway.env(family=6)).wait_healthy()
    endpoint = str(ip_address(lab.server.endpoint.ipv6))
    lie(lab, "advertise", f"{endpoint}/128")
    lie(lab, "advertise", "2001:db8:beef::1/128")
    time.sleep(0.5)
    assert endpoint not in routes6(lab)
    assert "2001:db8:beef::1" not in routes6(lab)


@pytest.mark.promise("P3")
def test_the_encrypted_flow_never_uses_loopback(lab: Lab) -> None:
    """Where the endpoint is an address of this host, its mark could be read there.

    Control: what a workload sends to the same address and port is seen on loopback.
    """
    own = lab.uplink.gateway.ipv4
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_ENDPOINT_IP=own))
    gateway.wait_for_state("connecting")
    with contextlib.closing(
        lab.gateway_namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    ) as tap:
        tap.bind(("lo", ETH_P_ALL))
        tap.settimeout(0.5)
        lab.workload.probe("udp", host=own, port=PORT, source_port=40009)
        seen: set[int] = set()
        end = time.monotonic() + promised(7)  # two tries of WireGuard
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                frame = tap.recv(4096)
                if frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_UDP:
                    seen.add(struct.unpack("!H", frame[HEADERS : HEADERS + 2])[0])
    assert 40009 in seen, "control: loopback is watched"
    assert PORT not in seen
