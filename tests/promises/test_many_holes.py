"""P7, P8, P17: a thousand subnets and a thousand ports are as exact as one of each.

The lists have gaps: each entry has a neighbour on either side that is not listed.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.frames import addressed_to
from tests.lab.gateway import Gateway
from tests.lab.hosts import Address, echo
from tests.lab.internet import LAN_HOST, OTHER_LAN_HOST, OUTSIDER
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4, OWN6, frames_to, unique
from tests.promises.witness import open_firewall

pytestmark = [
    pytest.mark.lab,
    pytest.mark.promise("P7", "P8", "P13", "P17"),
    pytest.mark.both_firewalls,
]

SUBNETS = [
    *(f"192.168.{number}.0/24" for number in range(1, 256, 2)),
    *(f"10.{128 + number // 128}.{number % 128 * 2}.0/24" for number in range(672)),
    "fd77::/64",
    "fd79::/64",
    *(f"fd77:0:0:{number:x}::/64" for number in range(2, 398, 2)),
]
"""`LAN_HOST` is in the 77th of each family, `OTHER_LAN_HOST` in the 78th, which is not listed."""

PORTS = range(20001, 22001, 2)
LISTED, UNLISTED = 20501, 20502
VARIABLES = {
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(SUBNETS),
    "FIREWALL_INPUT_PORTS": ",".join(map(str, PORTS)),
    "LOG_LEVEL": "info",
}
FAMILIES = pytest.mark.parametrize("family", [4, 6])
NOTICED_WITHIN = 5.0
"""Seconds, times the lab's patience with slow machines."""


@dataclass(frozen=True)
class Site:
    """A connected gateway with a thousand of each; its workload serves two ports."""

    lab: Lab
    gateway: Gateway


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return the shared site."""
    assert len(SUBNETS) == len(PORTS) == 1000
    with Lab() as lab:
        gateway = lab.gateway()
        gateway.start(gateway.env(**VARIABLES)).wait_healthy()
        own = lab.uplink.gateway
        lab.workload.serve(*(echo(a, port) for a in own for port in (LISTED, UNLISTED)))
        yield Site(lab, gateway)


def of(family: int, address: Address) -> str:
    """Return the address of this family."""
    return address.ipv6 if family == 6 else address.ipv4


@FAMILIES
@pytest.mark.parametrize("kind", ["tcp", "udp", "ping"])
def test_a_listed_subnet_is_reached_and_the_one_next_to_it_is_not(
    site: Site, family: int, kind: str
) -> None:
    """By route and by device; the control is the same probe of a listed host."""
    lab, own = site.lab, {4: OWN4, 6: OWN6}[family]
    since = time.monotonic()
    for wish in ({}, {"device": "eth0"}):
        control = lab.workload.probe(kind, host=of(family, LAN_HOST), **wish)
        assert control.result in {"answered", "connected"}
        assert control.seen in {own, None}
        lab.workload.probe(kind, host=of(family, OTHER_LAN_HOST), **wish)
    assert frames_to(lab, of(family, LAN_HOST), since), "control"
    assert frames_to(lab, of(family, OTHER_LAN_HOST), since) == []
    leaks = lab.leaks(since, allowed=[addressed_to("192.168.77.0/24"), addressed_to("fd77::/64")])
    assert leaks == []


@FAMILIES
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_listed_port_answers_and_the_one_next_to_it_does_not(
    site: Site, family: int, kind: str
) -> None:
    """A client from anywhere; both ports have a server."""
    lab = site.lab
    call = {"host": of(family, lab.uplink.gateway), "source": of(family, OUTSIDER)}
    control = lab.internet.probe(kind, port=LISTED, **call)
    assert control.seen == of(family, OUTSIDER)
    refused = lab.internet.probe(kind, port=UNLISTED, timeout=0.4 * PATIENCE, **call)
    assert refused.result == "timeout"


def test_dns_to_a_listed_subnet_is_refused(site: Site) -> None:
    """As with one subnet: the host answers at other ports, not at those of DNS (P10)."""
    lab = site.lab
    for host in LAN_HOST:
        assert lab.workload.probe("udp", host=host).result == "answered", "control"
        for port in (53, 853):
            assert lab.workload.probe("udp", host=host, port=port).failed_fast
            assert lab.workload.probe("tcp", host=host, port=port).failed_fast


def test_a_member_that_others_add_or_remove_is_put_back(site: Site) -> None:
    """In every form that the lists have: a set, a tree of chains, a table of routes."""
    lab, gateway = site.lab, site.gateway
    nftables = gateway.status().body["firewall"] == "nftables"
    by_nft = (
        "nft add element inet portcullis outbound_subnets4 { 192.168.78.0/24 }",
        "nft delete element inet portcullis outbound_subnets4 { 192.168.77.0/24 }",
        "nft add element inet portcullis input_ports_udp { 20502 }",
    )
    by_iptables = (
        "iptables-legacy -I OUTPUT-1 -d 192.168.78.0/24 -j OUTPUT-1-rules",
        "iptables-legacy -F OUTPUT-1",
        "iptables-legacy -A INPUT-3 -j INPUT-3-rules",
    )
    routes = ("ip route del 192.168.77.0/24 table 1886126080",)
    for change in (*(by_nft if nftables else by_iptables), *routes):
        gateway.wait_healthy()
        drift = gateway.status().body["drift"]
        lab.operator.run("sh", "-c", change)
        eventually(
            lambda before=drift: gateway.status().body["drift"] > before,
            timeout=NOTICED_WITHIN * PATIENCE,
            what=f"a revert of: {change}",
        )
        gateway.wait_healthy()
        marker = unique("after")
        assert lab.workload.probe("udp", host=LAN_HOST.ipv4, marker=marker).seen == OWN4
        since = time.monotonic()
        assert lab.workload.probe("udp", host=OTHER_LAN_HOST.ipv4, device="eth0").failed_fast
        assert frames_to(lab, OTHER_LAN_HOST.ipv4, since) == []


def test_with_the_firewall_open_only_listed_subnets_leave_the_tunnel(site: Site) -> None:
    """The routes are exact too. The gateway is halted, so that it does not put its rules back."""
    lab, gateway = site.lab, site.gateway
    gateway.wait_healthy()
    gateway.signal(signal.SIGSTOP)
    try:
        open_firewall(lab)
        for listed, other in zip(LAN_HOST, OTHER_LAN_HOST, strict=True):
            since = time.monotonic()
            lab.workload.probe("udp", host=listed)
            lab.workload.probe("udp", host=other)
            lab.capture.quiet_for(0.2)
            assert frames_to(lab, listed, since), "control: the firewall is open"
            assert frames_to(lab, other, since) == []
    finally:
        gateway.signal(signal.SIGCONT)
    gateway.wait_healthy()
