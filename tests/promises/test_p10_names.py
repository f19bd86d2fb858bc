"""P10: names resolve in the tunnel or not at all.

Docker's resolver is at 127.0.0.11 in every container's namespace and asks the outside from
the host's, where no rule of ours is. The lab's stand-in listens like it: on a high port, to which
the namespace's `ip nat` table leads port 53. What counts is whether a question reached it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.frames import ETH_IPV4, ETH_IPV6, Frame
from tests.lab.gateway import Gateway
from tests.lab.hosts import Services, dns
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS, OTHER_LAN_HOST
from tests.lab.probes import ethernet, udp_packet
from tests.lab.server import INSIDE, RESOLVED
from tests.lab.topology import Lab
from tests.lab.workload import Workload
from tests.promises.stages import (
    OWN4,
    answer_again,
    connecting,
    frames_to,
    got_through,
    send_frames,
    unique,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

DOCKER = "127.0.0.11"
HIGH_PORT = 43211
"""Where the lab's stand-in listens: what Docker does with a port of its own choosing."""

LISTED = f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}"
TRANSPORTS = ("udp", "tcp")
WAYS = [(transport, port) for transport in TRANSPORTS for port in (53, 853)]
AT_ONCE = 1.0
"""Seconds until a name that cannot be resolved has failed; resolvers that time out take five."""


@dataclass(frozen=True)
class Site:
    """A namespace with Docker's resolver, in which a gateway runs that lists the LAN."""

    lab: Lab
    gateway: Gateway
    docker: Services


@pytest.fixture
def site(lab: Lab) -> Site:
    """Return a site whose gateway has yet to be started."""
    for place in ("all", "lo"):
        for name in ("accept_local", "route_localnet"):
            lab.gateway_namespace.sysctl(f"ipv4/conf/{place}/{name}", 1)
    gateway = lab.gateway(resolv_conf=f"search example.test\nnameserver {DOCKER}\n")
    return Site(lab, gateway, lab.docker_resolver())


@pytest.fixture(scope="module")
def home() -> Iterator[Lab]:
    """Return a shared lab whose gateway is connected and lists the LAN."""
    with Lab() as lab:
        gateway = lab.gateway()
        gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=LISTED)).wait_healthy()
        yield lab


def asked(site: Site, docker_name: str) -> list[str]:
    """Ask Docker's resolver in every way; return the ways in which the question reached it.

    A frame on loopback from a packet socket never passes OUTPUT, nor the table that Docker made.
    """
    workload = site.lab.workload
    for transport in TRANSPORTS:
        for port in (53, HIGH_PORT):
            workload.probe(
                "dns", server=DOCKER, name=f"{transport}{port}.{docker_name}",
                transport=transport, port=port,
            )  # fmt: skip
    inject(workload, f"frame.{docker_name}")
    return [
        way
        for way in ("udp53", "tcp53", f"udp{HIGH_PORT}", f"tcp{HIGH_PORT}", "frame")
        if site.docker.events(name=f"{way}.{docker_name}")
    ]


def inject(workload: Workload, name: str) -> None:
    """Put a question for `name` on loopback as a frame, straight to the resolver's own port."""
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    question = bytes(4) + b"\0\1" + bytes(6) + labels + b"\0\0\1\0\1"
    packet = udp_packet(OWN4, DOCKER, 40005, HIGH_PORT, question)
    frame = ethernet("00:00:00:00:00:00", OWN4) + packet
    send_frames(workload, [{"device": "lo", "frame": frame.hex()}])


# -- Docker's resolver ------------------------------------------------------------------------


def test_dockers_resolver_is_refused_in_every_state(site: Site) -> None:
    """Locked by a wrong variable, connecting, connected, connecting again, stopped.

    By UDP and TCP, at port 53 and at its own port, and as a frame on loopback. Limitations: the
    namespace is set to take such frames at all (accept_local, route_localnet).
    """
    lab, gateway = site.lab, site.gateway
    everyway = ["udp53", "tcp53", f"udp{HIGH_PORT}", f"tcp{HIGH_PORT}", "frame"]
    assert asked(site, "before.test") == everyway, "control: before the gateway starts"
    gateway.start(gateway.env(WIREGUARD_ENDPOINT_PORT="no port"))
    assert gateway.wait() != 0
    assert asked(site, "locked.test") == []
    lab.server.cut()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=LISTED)).wait_for_state("connecting")
    assert asked(site, "connecting.test") == []
    answer_again(lab, gateway)
    assert asked(site, "connected.test") == []
    for transport in TRANSPORTS:
        answer = lab.workload.probe("dns", server=DOCKER, transport=transport)
        assert answer.failed_fast, "refused at once, so that applications do not wait"
    with connecting(lab, gateway):
        assert asked(site, "again.test") == []
    assert gateway.stop() == 0
    assert asked(site, "stopped.test") == []


def test_names_resolve_by_the_tunnels_resolver_and_no_other_is_asked(site: Site) -> None:
    """Applications use resolv.conf; what it held before, search domains included, is gone."""
    lab, gateway = site.lab, site.gateway
    workload = gateway.workload()
    before = workload.probe("resolve", name="host")
    assert before.fields["addresses"], "control"
    assert site.docker.events(name="host.example.test"), "control: the search domain was used"
    gateway.start(gateway.env(DNS_ADDRESS=f"{INSIDE.ipv4},{INSIDE.ipv6}")).wait_healthy()
    heard, since = len(site.docker.events()), time.monotonic()
    for name in ("host", "name.in.test"):
        answer = workload.probe("resolve", name=name)
        assert set(answer.fields["addresses"]) == set(RESOLVED)
        assert lab.server.queries(name=name)
    # The gateway's own probe asks for the root.
    assert {event["name"] for event in lab.server.queries()} - {""} == {"host", "name.in.test"}
    assert len(site.docker.events()) == heard
    assert not lab.arrivals(kind="dns", name="host")
    assert lab.leaks(since) == []
    lines = [line for line in gateway.resolv_conf().splitlines() if not line.startswith("#")]
    assert [line for line in lines if line.startswith("nameserver")] == [
        f"nameserver {INSIDE.ipv4}", f"nameserver {INSIDE.ipv6}",
    ]  # fmt: skip
    assert not [line for line in lines if "example" in line or DOCKER in line]


def test_names_fail_at_once_while_there_is_no_tunnel(site: Site) -> None:
    """Connecting, a name is refused within a second and no resolver has been asked for it."""
    lab, gateway = site.lab, site.gateway
    workload = gateway.workload()
    gateway.start().wait_healthy()
    assert workload.probe("resolve", name="before.test").result == "answered", "control"
    with connecting(lab, gateway):
        heard, since = len(site.docker.events()), time.monotonic()
        name = "meanwhile.test"
        answer = workload.probe("resolve", name=name)
        assert (answer.result, answer.seconds < AT_ONCE) == ("error", True)
        assert len(site.docker.events()) == heard
        assert not [frame for frame in lab.capture.frames(since) if name_in(frame, name)]
        assert lab.leaks(since) == []
    assert workload.probe("resolve", name="after.test").result == "answered"


def name_in(frame: Frame, name: str) -> bool:
    """Return whether the frame asks for `name` unencrypted."""
    encoded = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    return frame.ethertype in {ETH_IPV4, ETH_IPV6} and encoded in frame.raw


# -- the LAN's and the router's ---------------------------------------------------------------


@pytest.mark.parametrize("server", tuple(LAN_HOST))
@pytest.mark.parametrize(("transport", "port"), WAYS)
def test_a_resolver_in_a_listed_subnet_is_refused_at_once(
    home: Lab, server: str, transport: str, port: int
) -> None:
    """Its ports for DNS and for DNS over TLS and QUIC, for every sender and socket."""
    assert home.workload.probe("udp", host=server).seen, "control: its other ports are open"
    since = time.monotonic()
    given = {"server": server, "transport": transport, "port": port}
    assert home.workload.probe("dns", **given).failed_fast
    assert not got_through(home.workload, "dns", device="eth0", **given)
    assert frames_to(home, server, since) == []


def test_no_resolver_is_asked_through_the_uplink(lab: Lab) -> None:
    """The router's, one on an unlisted LAN, one on the internet: by the tunnel or not at all."""
    servers = [*lab.uplink.router, *OTHER_LAN_HOST, *INTERNET[1]]
    ways = [
        {"server": server, "transport": transport} for server in servers for transport in TRANSPORTS
    ]
    for way in ways:
        assert lab.workload.probe("dns", **way).result == "answered", "control"
    lab.server.cut()
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=LISTED)).wait_for_state("connecting")
    since = time.monotonic()
    for way in ways:
        assert lab.workload.probe("dns", **way).failed_fast, way
    answer_again(lab, gateway)
    for way in ways:
        by_tunnel = way["server"] not in lab.uplink.router
        assert got_through(lab.workload, "dns", **way) is by_tunnel, way
        assert not got_through(lab.workload, "dns", device="eth0", **way), way
    assert lab.leaks(since) == []


@pytest.mark.parametrize("family", [4, 6])
def test_the_configured_resolver_on_the_lan_is_asked_and_no_other(lab: Lab, family: int) -> None:
    """From the uplink's address only, and while connected only."""
    own = tuple(lab.uplink.gateway)[family == 6]
    tunnel = ("10.64.0.2", "fd64::2")[family == 6]
    chosen = tuple(LAN_HOST)[family == 6]
    unlisted = ("192.168.77.11", "fd77::11")[family == 6]
    lab.lan_namespace.ip(f"addr add {unlisted}/{(24, 64)[family == 6]} dev eth0 nodad")
    lab.lan.serve(dns(unlisted, A="192.0.2.1"))
    for server in (chosen, unlisted):
        assert got_through(lab.workload, "dns", server=server), "control"
    gateway = lab.gateway()
    variables = {"FIREWALL_OUTBOUND_SUBNETS": LISTED, "DNS_ADDRESS": chosen}
    gateway.start(gateway.env(**variables)).wait_healthy()
    name = unique("configured").replace("-", ".")
    assert gateway.workload().probe("resolve", name=name).result == "answered"
    assert {event["client"] for event in lab.arrivals("lan", name=name)} == {own}
    for transport in TRANSPORTS:
        answer = lab.workload.probe("dns", server=chosen, transport=transport, port=853)
        assert answer.result == "answered"
    lab.capture.quiet_for(0.1)  # the end of these connections
    since = time.monotonic()
    for transport, port in WAYS:
        given = {"server": unlisted, "transport": transport, "port": port}
        assert lab.workload.probe("dns", **given).failed_fast
    for kind in TRANSPORTS:
        assert not got_through(
            lab.workload, kind, host=chosen, port=53, source=tunnel, device="eth0"
        )
    assert lab.leaks(since) == []
    with connecting(lab, gateway):
        since = time.monotonic()
        for transport in TRANSPORTS:
            assert lab.workload.probe("dns", server=chosen, transport=transport).failed_fast
        assert lab.leaks(since) == []
