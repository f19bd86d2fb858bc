"""P13: what a neighbour says is on the link stays in the tunnel, and what is listed there does not.

The endpoint is IPv6 here, so that router advertisements pass, and the namespace accepts them. The
one that sends them is the router in use.
"""

import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import OUTSIDER
from tests.lab.process import eventually
from tests.lab.server import INSIDE
from tests.lab.topology import Lab
from tests.promises.stages import OWN6
from tests.promises.witness import HOST4, HOST6, open_firewall

pytestmark = [pytest.mark.lab, pytest.mark.promise("P13")]

ADVERTISER = str(Path(__file__).parents[1] / "lab" / "router.py")
ROUTER6 = "fd30::1"


def routes6(lab: Lab, *words: str) -> str:
    """Return the main table's routes of IPv6."""
    return lab.operator.run("ip", "-6", "route", "show", *words)


def advertise(lab: Lab, *words: str, lifetime: int = 0) -> None:
    """Have the router on the first uplink advertise; it is the default router already."""
    lab.internet.run(sys.executable, "-I", "-S", ADVERTISER, "up0", str(lifetime), *words)


def believe_the_router(lab: Lab) -> None:
    """Accept advertisements, and use the router by its link-local address, as hosts do."""
    shown = lab.internet.run("ip", "-6", "addr", "show", "dev", "up0", "scope", "link")
    found = re.search(r"inet6 (fe80::\S+)/64", shown)
    assert found, shown
    lab.gateway_namespace.sysctl("ipv6/conf/eth0/accept_ra", 1)
    lab.gateway_namespace.sysctl("ipv6/conf/eth0/accept_ra_rt_info_max_plen", 64)
    lab.gateway_namespace.ip(f"route replace default via {found[1]} dev eth0")


def connected(lab: Lab, **variables: str) -> Gateway:
    """Return a gateway whose IPv6 endpoint is up, in a namespace that believes its router."""
    believe_the_router(lab)
    gateway = lab.gateway()
    gateway.start(gateway.env(family=6, **variables)).wait_healthy()
    return gateway


@pytest.mark.parametrize("option", ["prefix", "route"])
def test_an_advertised_network_stays_in_the_tunnel(lab: Lab, option: str) -> None:
    """A prefix on the link, of which the uplink gets an address, and a route of preference high."""
    gateway = connected(lab)
    assert lab.workload.probe("udp", host=HOST6).seen == lab.server.exit.ipv6, "control: before"
    advertise(lab, f"{option}=2001:db8:100::/64")
    eventually(
        lambda: "2001:db8:100::/64" in routes6(lab), timeout=5, what="control: it is believed"
    )
    time.sleep(1)  # the gateway hears of it and follows
    gateway.wait_healthy()
    since = time.monotonic()
    for kind in ("tcp", "udp"):
        assert lab.workload.probe(kind, host=HOST6).seen == lab.server.exit.ipv6
    # With the firewall away the routes alone keep it in.
    gateway.signal(signal.SIGSTOP)
    try:
        open_firewall(lab)
        assert lab.workload.probe("udp", host=HOST6, marker="kept").seen == lab.server.exit.ipv6
        assert not lab.capture.containing("kept", since)
        got = lab.workload.probe("udp", host=HOST6, device="eth0", marker="bound", timeout=0.3)
        assert lab.capture.containing("bound", since) or got.result != "answered"
    finally:
        gateway.signal(signal.SIGCONT)


def test_the_tunnels_own_networks_stay_in_it_though_a_neighbour_advertises_them(lab: Lab) -> None:
    """A resolver of a private network (RFC 4193), which a rule for engines would lead outside."""
    gateway = connected(lab, DNS_ADDRESS=f"{INSIDE.ipv4},{INSIDE.ipv6}")
    network = re.sub(r"::\w+$", "::/64", INSIDE.ipv6)
    assert lab.workload.probe("ping", host=INSIDE.ipv6).result == "answered", "control: before"
    advertise(lab, f"prefix={network}")
    eventually(lambda: network in routes6(lab), timeout=5, what="control: it is believed")
    time.sleep(1)
    gateway.wait_healthy()
    assert lab.workload.probe("ping", host=INSIDE.ipv6).result == "answered"


def test_a_small_mtu_of_the_link_leaves_the_tunnel_working(lab: Lab) -> None:
    """A neighbour may say 1280: the encrypted packets are fragmented then, and nothing is lost."""
    gateway = connected(lab)
    advertise(lab, "mtu=1280")
    setting = ("cat", "/proc/sys/net/ipv6/conf/eth0/mtu")
    eventually(lambda: lab.operator.run(*setting).strip() == "1280", timeout=5, what="control")
    time.sleep(1)
    assert gateway.wait_healthy().body["reconnects"] == {}
    for host in (HOST4, HOST6):
        answer = lab.workload.probe("udp", host=host, marker="x" * 1300)
        assert answer.result == "answered"


def test_neighbours_of_ipv6_are_served_without_a_rule_for_them(lab: Lab) -> None:
    """An input port's client on the link and beyond it, and a listed host on the link."""
    variables = {"FIREWALL_INPUT_PORTS": "8080", "FIREWALL_OUTBOUND_SUBNETS": f"{ROUTER6}/128"}
    gateway = connected(lab, **variables)
    served = lab.workload.serve(echo(OWN6, 8080))
    try:
        for source in (ROUTER6, OUTSIDER.ipv6):
            for kind in ("tcp", "udp"):
                answer = lab.internet.probe(kind, host=OWN6, port=8080, source=source)
                assert answer.seen == source, (kind, source)
        lab.operator.run("ip", "-6", "neigh", "flush", "dev", "eth0")
        assert lab.workload.probe("udp", host=ROUTER6).seen == OWN6
        assert lab.workload.probe("ping", host=ROUTER6).result == "answered"
        assert gateway.status().body["reconnects"] == {}
    finally:
        served.close()


def test_an_endpoint_of_ipv6_on_the_link_itself_is_reached(lab: Lab) -> None:
    """Without a gateway in between: the mark's rule finds it in the main table."""
    # The server's address moves onto the link: the router hands on what comes for it.
    endpoint = lab.server.endpoint.ipv6
    lab.internet_namespace.sysctl("ipv6/conf/all/proxy_ndp", 1)
    lab.internet_namespace.ip(f"neigh add proxy {endpoint} dev up0")
    lab.gateway_namespace.ip(f"route add {endpoint}/128 dev eth0")
    lab.gateway_namespace.run("ip", "-6", "route", "del", "default")
    gateway = lab.gateway()
    gateway.start(gateway.env(family=6)).wait_healthy()
    assert lab.workload.probe("udp", host=HOST6).seen == lab.server.exit.ipv6
    assert " via " not in routes6(lab, "dev", "eth0"), "control: nothing goes through a router"
