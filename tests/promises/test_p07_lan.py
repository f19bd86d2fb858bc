"""P7: a LAN hole is what its list says, in both families.

One gateway with both of the LAN's subnets listed serves most tests here. Its tunnel carries
everything else, so a probe of an address that is in no list is answered by way of the tunnel: what
counts is what the capture on the uplink saw.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.frames import addressed_to
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import LAN_HOST, LAN_SUBNETS, OTHER_LAN_HOST
from tests.lab.process import eventually
from tests.lab.server import CLIENT
from tests.lab.topology import Lab
from tests.promises.stages import (
    INWARD,
    OWN4,
    OWN6,
    answer_again,
    connecting,
    frames_to,
    from_tunnel_address,
    got_through,
    in_tunnel,
    unique,
)
from tests.promises.witness import not_refused_at_once, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P7")]

LISTED = f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}"
TO_THE_LAN = [addressed_to(subnet) for subnet in LAN_SUBNETS]
TUNNEL_PORT = 6881
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@dataclass(frozen=True)
class Home:
    """A connected gateway whose LAN is listed, and a workload that listens in the tunnel."""

    lab: Lab
    gateway: Gateway


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """Return the shared home, connected."""
    with Lab() as lab:
        gateway = lab.gateway()
        variables = {
            "FIREWALL_OUTBOUND_SUBNETS": LISTED,
            "FIREWALL_VPN_INPUT_PORTS": str(TUNNEL_PORT),
        }
        gateway.start(gateway.env(**variables)).wait_healthy()
        yield Home(lab, gateway)


def of(family: int, address: tuple[str, str]) -> str:
    """Return the address of this family."""
    return address[family == 6]


LAN, OTHER, OWN, TUNNEL = tuple(LAN_HOST), tuple(OTHER_LAN_HOST), (OWN4, OWN6), tuple(CLIENT)


def test_a_listed_host_is_reached_while_connected_and_refused_at_once_while_not(home: Home) -> None:
    """By TCP, UDP and echo requests; live flows to it stop with the tunnel.

    Limitations: connecting is held by a lost interface and a silent server.
    """
    lab, gateway = home.lab, home.gateway
    control = ordinary(lab.workload, unique("before"), LAN_HOST)
    assert {name: probe.seen for name, probe in control.items()} == {
        "tcp 4": OWN4, "udp 4": OWN4, "ping 4": None, "tcp 6": OWN6, "udp 6": OWN6, "ping 6": None,
    }  # fmt: skip
    streams = [
        lab.workload.stream(host, protocol=protocol, interval=0.02, timeout=0.2)
        for host in LAN_HOST
        for protocol in ("tcp", "udp")
    ]
    for stream in streams:
        eventually(lambda s=stream: len(s.exchanges()) > 3, timeout=5, what="exchanges")
    with connecting(lab, gateway):
        since = time.monotonic()
        assert not_refused_at_once(ordinary(lab.workload, "meanwhile", LAN_HOST)) == {}
        lab.capture.quiet_for(0.2)
        assert lab.leaks(since) == []
    for stream in streams:
        assert stream.stop()["kinds"]["answered"] > 3
    again = ordinary(lab.workload, unique("again"), LAN_HOST)
    assert {name: probe.seen for name, probe in again.items()} == {
        name: probe.seen for name, probe in control.items()
    }


def test_a_gateway_that_has_never_been_connected_reaches_no_lan(lab: Lab) -> None:
    """The hole opens with the tunnel and not before, though it does not lead through it."""
    before = unique("before")
    assert ordinary(lab.workload, before, LAN_HOST)["udp 4"].seen == OWN4
    assert lab.capture.containing(before), "control: before the gateway starts"
    lab.server.cut()
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=LISTED)).wait_for_state("connecting")
    since = time.monotonic()
    assert not_refused_at_once(ordinary(lab.workload, "meanwhile", LAN_HOST)) == {}
    assert lab.leaks(since) == []
    answer_again(lab, gateway)
    assert ordinary(lab.workload, "after", LAN_HOST)["udp 6"].seen == OWN6


@FAMILIES
def test_only_the_uplinks_own_address_reaches_a_listed_host(home: Home, family: int) -> None:
    """Neither the tunnel's address nor a forged one, by route, by device or by raw header."""
    lab, host = home.lab, of(family, LAN)
    forged = {"tunnel": of(family, TUNNEL), "neighbour": of(family, ("172.30.0.77", "fd30::77"))}
    control = unique("control")
    lab.workload.probe("forged", host=host, source=of(family, OWN), marker=control)
    assert lab.capture.containing(control), "control: the uplink's own address"
    assert lab.workload.probe("udp", host=host, device="eth0").seen == of(family, OWN)
    since = time.monotonic()
    for wish in ({}, {"device": "eth0"}):
        for kind in ("tcp", "udp"):
            assert not got_through(lab.workload, kind, host=host, source=forged["tunnel"], **wish)
        for source in forged.values():
            lab.workload.probe("forged", host=host, source=source, marker="forged", **wish)
    assert not lab.capture.containing("forged", since)
    assert frames_to(lab, host, since) == []


@FAMILIES
def test_a_host_in_no_listed_subnet_is_not_reached_through_the_uplink(
    home: Home, family: int
) -> None:
    """The tunnel is its only way; bound to the uplink, the workload is refused."""
    lab, host = home.lab, of(family, OTHER)
    before = time.monotonic()
    assert lab.workload.probe("udp", host=of(family, LAN), device="eth0").result == "answered"
    assert frames_to(lab, of(family, LAN), before), "control: the listed host is seen"
    since = time.monotonic()
    assert lab.workload.probe("udp", host=host).seen == tuple(lab.server.exit)[family == 6]
    for wish in ({"device": "eth0"}, {"source": of(family, OWN)}, {"device": "eth0", "mark": 1}):
        for kind in ("udp", "tcp"):
            assert not got_through(lab.workload, kind, host=host, **wish), (kind, wish)
    assert lab.leaks(since) == []


@pytest.mark.parametrize(
    ("listed", "open_family"), [(LAN_SUBNETS.ipv4, 4), (LAN_SUBNETS.ipv6, 6)], ids=["ipv4", "ipv6"]
)
def test_a_list_of_one_family_leaves_the_other_closed(
    lab: Lab, listed: str, open_family: int
) -> None:
    """The LAN host is reached by the address whose subnet is listed, and by no other."""
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=listed)).wait_healthy()
    closed_family = 10 - open_family
    since = time.monotonic()
    answer = lab.workload.probe("udp", host=of(open_family, LAN), device="eth0")
    assert answer.seen == of(open_family, OWN), "control: the listed family"
    for kind in ("udp", "tcp"):
        assert not got_through(lab.workload, kind, host=of(closed_family, LAN), device="eth0")
    assert lab.leaks(since, allowed=[addressed_to(of(open_family, LAN))]) == []


@FAMILIES
def test_answers_to_a_client_in_the_tunnel_with_a_lan_address_do_not_go_to_the_lan(
    home: Home, family: int
) -> None:
    """A server, or a host that forges through it, cannot point the gateway at the LAN.

    The call itself comes in, by a listed port of the tunnel. Its answer is routed to the LAN, but
    has the tunnel's address, and began on the other side.
    """
    lab, lan, tunnel = home.lab, of(family, LAN), of(family, TUNNEL)
    honest = of(family, ("10.99.0.9", "fd99::9"))
    length, nodad = (128, "nodad") if family == 6 else (32, "")
    served = lab.workload.serve(echo(tunnel, TUNNEL_PORT))
    lab.server.namespace.ip(
        *(f"addr add {address}/{length} dev lo {nodad}" for address in (honest, lan)),
    )
    caller = in_tunnel(lab)
    try:
        for kind in ("tcp", "udp"):
            arguments = {"host": tunnel, "port": TUNNEL_PORT}
            assert caller.probe(kind, source=honest, **arguments).seen == honest, "control"
            since = time.monotonic()
            answer = caller.probe(kind, source=lan, timeout=0.5, **arguments)
            assert answer.result == "timeout"
            # The end of an earlier test's connection to the listed subnet may be late.
            sent = (it for it in frames_to(lab, lan, since) if it.source != of(family, OWN))
            assert list(sent) == []
            assert lab.leaks(since) == []
        assert served.events(transport="udp", client=lan), "the call did come in"
        # To the uplink's own address nothing comes in by the tunnel at all.
        since = time.monotonic()
        for ports in ({"port": 7}, {"source_port": 7, "port": 40000}):
            caller.probe("forged", host=of(family, OWN), source=lan, mark=INWARD, **ports)
        assert lab.leaks(since) == []
    finally:
        served.close()
        for address in (honest, lan):
            lab.server.namespace.ip(f"addr del {address}/{length} dev lo")


def test_router_and_neighbours_on_the_uplinks_network_are_not_open_by_themselves(lab: Lab) -> None:
    """A host on the container's network is reached only when it is listed."""
    neighbour = ("172.30.0.55", "fd30::55")
    lab.internet_namespace.ip(
        "addr add 172.30.0.55/32 dev lo", "addr add fd30::55/128 dev lo nodad",
    )  # fmt: skip
    lab.internet_namespace.sysctl("ipv6/conf/all/proxy_ndp", 1)
    lab.internet_namespace.ip("neigh add proxy fd30::55 dev up0")
    served = lab.internet.serve(*(echo(address) for address in neighbour))
    hosts = (*lab.uplink.router, *neighbour)
    for host in hosts:
        assert lab.workload.probe("udp", host=host).result == "answered", "control"
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=LISTED)).wait_healthy()
    since = time.monotonic()
    for host in hosts:
        for kind in ("tcp", "udp", "ping"):
            assert lab.workload.probe(kind, host=host).failed_fast, (kind, host)
            assert not got_through(lab.workload, kind, host=host, device="eth0"), (kind, host)
    assert lab.leaks(since) == []
    assert not served.events(client=OWN4)[1:], "the control and nothing else"
    assert lab.workload.probe("udp", host=LAN_HOST.ipv4).seen == OWN4, "control: what is listed"


@FAMILIES
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("port", [53, 853])
def test_a_hole_carries_no_dns(home: Home, family: int, transport: str, port: int) -> None:
    """Refused at once at its ports, while every other port of the same host is open."""
    lab, host = home.lab, of(family, LAN)
    assert lab.workload.probe(transport, host=host).result in {"connected", "answered"}, "control"
    since = time.monotonic()
    answer = lab.workload.probe("dns", server=host, transport=transport, port=port)
    assert answer.failed_fast
    # The control's connection, to another port, may still be ending.
    assert [f for f in frames_to(lab, host, since) if f.destination_port in {port, None}] == []


@FAMILIES
def test_a_host_in_a_listed_subnet_cannot_call(home: Home, family: int) -> None:
    """The hole is for flows that begin here: the caller gets no answer of any kind."""
    lab, own = home.lab, of(family, OWN)
    served = lab.workload.serve(echo(own, 8089))
    try:
        since = time.monotonic()
        for kind in ("tcp", "udp"):
            answer = lab.lan.probe(kind, host=own, port=8089, timeout=0.3)
            assert answer.result == "timeout"
        assert lab.lan.probe("ping", host=own, timeout=0.3).result == "timeout"
        assert lab.leaks(since) == []
        assert served.events() == []
        assert lab.workload.probe("udp", host=own, port=8089).result == "answered", "control"
    finally:
        served.close()


@FAMILIES
def test_what_a_listed_host_refuses_fails_at_once(home: Home, family: int) -> None:
    """A closed port there is known by its own answer, TCP and UDP."""
    for kind in ("tcp", "udp"):
        answer = home.lab.workload.probe(kind, host=of(family, LAN), port=4444)
        assert (answer.result, answer.errno) == ("refused", "ECONNREFUSED")


def test_nothing_with_the_tunnels_address_was_seen_through_it_all(home: Home) -> None:
    """The sum of what left: encrypted packets, and the LAN's from the uplink's own address."""
    ordinary(home.lab.workload, hosts=LAN_HOST)
    seen = home.lab.capture.frames(home.gateway.started_at)
    assert [frame for frame in seen if from_tunnel_address(frame)] == []
    own = {*OWN, ""}
    to_lan = [frame for frame in seen if any(judge(frame) for judge in TO_THE_LAN)]
    assert to_lan, "control"
    assert {frame.source for frame in to_lan} <= own
