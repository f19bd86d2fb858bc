"""P11: the tunnel's address is dead everywhere else, and nothing is forwarded.

CVE-2019-14899, for those who have not met it: Linux answers at any of its addresses on any of its
interfaces (the weak host model). A neighbour on the container's network who sends to every likely
address of a tunnel gets an answer at the right one, and so learns it. Then he forges packets of a
connection inside the tunnel, from the far end's address to the tunnel's: whether the kernel
answers them (with an acknowledgement that challenges the sender) shows in the size and number of
the encrypted packets, and step by step gives him ports and sequence numbers, until he can inject
data.

So each probe here is one of a neighbour on the first uplink, whose router's place he takes. The
control of each is the same probe in the same namespace while it is open.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from tests.lab.frames import ETH_ARP, UDP, Frame
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET, LAN_HOST, OUTSIDER
from tests.lab.process import eventually
from tests.lab.server import CLIENT, INSIDE
from tests.lab.topology import Lab
from tests.promises.stages import INWARD, answer_again, in_tunnel, together, unique
from tests.promises.witness import open_firewall

pytestmark = [pytest.mark.lab, pytest.mark.promise("P11")]

FAMILIES = pytest.mark.parametrize("family", [4, 6])
NEIGHBOUR = ("172.30.0.1", "fd30::1")
INPUT_PORT = 8080
VARIABLES = {
    "FIREWALL_INPUT_PORTS": str(INPUT_PORT),
    "FIREWALL_VPN_INPUT_PORTS": "6881",
    "FIREWALL_OUTBOUND_SUBNETS": "192.168.77.0/24,fd77::/64",
    "HEALTH_PROBE": "off",  # so that encrypted packets are only the test's
}
LARGE = 900
"""Bytes of a payload that no other packet in the tunnel has."""

LIVE_PORT = 45678
"""The source port of the connection that the neighbour attacks."""


@dataclass(frozen=True)
class Site:
    """A gateway with two uplinks and every kind of hole, with and without the lab's tampering."""

    lab: Lab
    gateway: Gateway


@pytest.fixture
def site(lab_of_two: Lab) -> Site:
    """Return a site whose gateway is connected."""
    gateway = lab_of_two.gateway()
    gateway.start(gateway.env(**VARIABLES)).wait_healthy()
    return Site(lab_of_two, gateway)


@pytest.fixture
def lab_of_two() -> Iterator[Lab]:
    """Return a lab with two uplinks, where the neighbour knows the way to the tunnel's address."""
    with Lab(uplinks=2) as lab:
        yield lab


def of(family: int, pair: object) -> str:
    """Return the address of this family."""
    return str(tuple(pair)[family == 6])


def approach(lab: Lab) -> list[str]:
    """Send to the tunnel's address as a neighbour; return what came back and by what."""
    lab.internet_namespace.ip(
        f"route replace {CLIENT.ipv4}/32 dev up0",
        f"route replace {CLIENT.ipv6}/128 dev up0",
        *(
            f"neigh replace {address} lladdr {lab.uplink.gateway_mac} dev up0 nud permanent"
            for address in CLIENT
        ),
    )
    since = time.monotonic()
    ways = [
        *product((4, 6), ("tcp", "udp"), (7, INPUT_PORT, 6881, 51820)),
        *product((4, 6), ("ping",), (0,)),
    ]
    answers = together(lambda way: sent_to_tunnel_address(lab, *way), ways)
    found = [f"{kind} {port} {family}" for (family, kind, port), got in answers.items() if got]
    for address in CLIENT:
        lab.internet_namespace.ip(f"neigh del {address} dev up0")
    frames = [f for u in lab.uplinks for f in u.capture.frames(since)]
    found += [f"frame {frame}" for frame in frames if has_tunnel_address(frame)]
    return found


def sent_to_tunnel_address(lab: Lab, family: int, kind: str, port: int) -> bool:
    """Send one probe to the tunnel's address; say whether anything came back."""
    given = {"host": of(family, CLIENT), "timeout": 0.2}
    if kind != "ping":
        given |= {"port": port, "source": of(family, NEIGHBOUR)}
    return lab.internet.probe(kind, **given).result != "timeout"


def has_tunnel_address(frame: Frame) -> bool:
    """Return whether the frame is from the tunnel's address, or about it."""
    return frame.source in CLIENT or frame.target in CLIENT


def call_out(lab: Lab) -> set[str]:
    """Ask the link who has the tunnel's addresses; return the families that answered."""
    since = time.monotonic()
    for address in CLIENT:
        lab.internet.probe("udp", host=address, port=7, timeout=0.2)
    reported = [frame for frame in lab.capture.frames(since) if has_tunnel_address(frame)]
    return {"arp" if frame.ethertype == ETH_ARP else "ndp" for frame in reported}


def test_a_neighbour_gets_no_answer_at_the_tunnels_address(lab_of_two: Lab) -> None:
    """To TCP, UDP or echo requests, at ports listed for anything or for nothing; nor by ARP or ND.

    Limitations: IPv6 never announced its addresses on other links; its control has one there.
    """
    lab = lab_of_two
    hold = ("addr", f"{CLIENT.ipv4}/32", "lo"), ("addr", f"{CLIENT.ipv6}/128", "eth0")
    for _, address, device in hold:
        lab.operator.run("ip", "addr", "add", address, "dev", device, "nodad")
    open_answers = approach(lab)
    assert set(open_answers) >= {
        "tcp 7 4", "udp 7 4", "ping 0 4", "tcp 7 6", "udp 7 6", "ping 0 6",
    }  # fmt: skip
    assert call_out(lab) == {"arp", "ndp"}, "control: an open namespace answers for the address"
    for _, address, device in hold:
        lab.operator.run("ip", "addr", "del", address, "dev", device)
    gateway = lab.gateway()
    lab.server.cut()
    gateway.start(gateway.env(**VARIABLES)).wait_for_state("connecting")
    assert (approach(lab), call_out(lab)) == ([], set())
    answer_again(lab, gateway)
    assert (approach(lab), call_out(lab)) == ([], set())
    assert gateway.stop() == 0
    assert (approach(lab), call_out(lab)) == ([], set())


def test_forged_packets_of_a_connection_in_the_tunnel_get_no_answer(site: Site) -> None:
    """The second step of the attack: the kernel does not challenge what arrives on the uplink.

    The control is the attack as it works on an open namespace: with the gateway held still and the
    firewall's rules away, each forged packet draws an encrypted one.
    """
    lab, gateway = site.lab, site.gateway
    stream = lab.workload.stream(
        INTERNET[0].ipv4, source=CLIENT.ipv4, source_port=LIVE_PORT, interval=60
    )
    eventually(stream.exchanges, timeout=5, what="a live connection")
    settle(lab)
    assert drawn(lab) == 0
    gateway.signal(signal.SIGSTOP)  # it would put the rules back
    try:
        open_firewall(lab)
        assert drawn(lab) > 0, "control: an open namespace challenges the sender"
    finally:
        gateway.signal(signal.SIGCONT)
        stream.close()


def settle(lab: Lab) -> None:
    """Wait until the connection's last packets are through."""
    eventually(
        lambda: not encrypted(lab, time.monotonic() - 0.3), timeout=5, what="a quiet tunnel",
        interval=0.1,
    )  # fmt: skip


def encrypted(lab: Lab, since: float) -> list[Frame]:
    """Return the frames of the encrypted flow from `since` on."""
    endpoint = lab.server.endpoint.ipv4
    return [f for f in lab.capture.frames(since) if (f.protocol, f.destination) == (UDP, endpoint)]


def drawn(lab: Lab) -> int:
    """Forge ten packets of the live connection; return how many encrypted ones they draw."""
    since = time.monotonic()
    for _ in range(10):
        lab.internet.probe(
            "packet", host=CLIENT.ipv4, source=INTERNET[0].ipv4, source_port=7, port=LIVE_PORT,
            transport="tcp", device="up0", router_mac=lab.uplink.gateway_mac,
        )  # fmt: skip
    time.sleep(0.1)
    return len(encrypted(lab, since))


def test_our_own_arp_requests_never_have_the_tunnels_address(site: Site) -> None:
    """Even where the firewall lets a packet with that source out, ARP asks in the uplink's name.

    The device's settings do it: with the gateway held still and the rules away they are all there
    is. The control sets the one that counts back.
    """
    lab, gateway = site.lab, site.gateway
    gateway.signal(signal.SIGSTOP)
    try:
        open_firewall(lab)
        assert asking_for_the_router(lab) == {lab.uplink.gateway.ipv4}
        lab.gateway_namespace.sysctl("ipv4/conf/eth0/arp_announce", 0)
        assert CLIENT.ipv4 in asking_for_the_router(lab), "control: without the setting"
    finally:
        gateway.signal(signal.SIGCONT)


def asking_for_the_router(lab: Lab) -> set[str]:
    """Make the namespace ask for the router from the tunnel's address; return who asked."""
    lab.operator.run("ip", "neigh", "flush", "dev", "eth0")
    since = time.monotonic()
    lab.workload.probe("udp", host=NEIGHBOUR[0], source=CLIENT.ipv4, device="eth0", timeout=0.1)
    lab.capture.wait_for(
        lambda f: f.ethertype == ETH_ARP and f.destination == NEIGHBOUR[0], since=since
    )
    return {f.source for f in lab.capture.frames(since) if f.ethertype == ETH_ARP}


def test_a_tunnel_with_the_uplinks_address_is_not_built(lab: Lab) -> None:
    """No rule could distinguish the two; the reason and what to do are in health.

    Control: as soon as the uplink has another address, the tunnel is built.
    """
    lab.gateway_namespace.ip(f"addr add {CLIENT.ipv4}/32 dev eth0")
    gateway = lab.gateway().start()
    reported = gateway.wait_for_state("connecting")
    eventually(
        lambda: f"{CLIENT.ipv4} on eth0" in str(gateway.status().body["detail"]),
        timeout=5, what=f"the reason: {reported}",
    )  # fmt: skip
    assert gateway.status().code == 503
    assert lab.workload.probe("udp", host=INTERNET[0].ipv4).failed_fast
    lab.gateway_namespace.ip(f"addr del {CLIENT.ipv4}/32 dev eth0")
    gateway.wait_healthy(20)
    lab.gateway_namespace.ip(f"addr add {CLIENT.ipv4}/32 dev eth0")
    assert "interface_lost" in gateway.wait_unhealthy(5).body["reconnects"]


# -- forwarding -------------------------------------------------------------------------------


@FAMILIES
def test_nothing_is_forwarded_though_the_kernel_is_set_to(lab_of_two: Lab, family: int) -> None:
    """Between uplinks, from an uplink into the tunnel, and from the tunnel out through an uplink.

    Neither in a state nor after the end. The control is the same frames before the start, and for
    the tunnel those after the rules have been taken away while the gateway is held still.
    """
    lab = lab_of_two
    lab.gateway_namespace.sysctl("ipv4/ip_forward", 1)
    lab.gateway_namespace.sysctl("ipv6/conf/all/forwarding", 1)
    for name in ("all", "eth0", "eth1"):
        lab.gateway_namespace.sysctl(f"ipv4/conf/{name}/rp_filter", 0)
    assert between_uplinks(lab, family), "control: the kernel does forward"
    gateway = lab.gateway()
    lab.server.cut()
    gateway.start(gateway.env(**VARIABLES)).wait_for_state("connecting")
    assert not between_uplinks(lab, family)
    answer_again(lab, gateway)
    assert not between_uplinks(lab, family)
    assert not into_tunnel(lab, family)
    assert not out_of_tunnel(lab, family)
    gateway.signal(signal.SIGSTOP)
    try:
        open_firewall(lab)
        assert into_tunnel(lab, family), "control: with the rules away"
        assert out_of_tunnel(lab, family), "control: with the rules away"
    finally:
        gateway.signal(signal.SIGCONT)
    gateway.wait_healthy()
    assert gateway.stop() == 0
    assert not between_uplinks(lab, family)


def between_uplinks(lab: Lab, family: int) -> bool:
    """Return whether a frame from the first uplink leaves through the second, or the first."""
    markers = []
    for host in (of(family, lab.uplinks[1].router), of(family, OUTSIDER)):
        markers.append(unique("forward"))
        send_to_gateway(lab, family, host, markers[-1])
    time.sleep(0.1)
    return any(uplink.capture.containing(m) for m in markers for uplink in lab.uplinks)


def into_tunnel(lab: Lab, family: int) -> bool:
    """Return whether a neighbour's frame goes into the tunnel: known by its size, outside."""
    since = time.monotonic()
    send_to_gateway(lab, family, of(family, INTERNET[0]), "x" * LARGE)
    time.sleep(0.1)
    return any(len(frame.raw) > LARGE for frame in encrypted(lab, since))


def out_of_tunnel(lab: Lab, family: int) -> bool:
    """Return whether a packet from the tunnel leaves through an uplink."""
    markers = []
    for host in (of(family, LAN_HOST), of(family, NEIGHBOUR), of(family, lab.uplinks[1].router)):
        markers.append(unique("outward"))
        in_tunnel(lab).probe(
            "forged", host=host, source=of(family, INSIDE), mark=INWARD, marker=markers[-1]
        )
    time.sleep(0.1)
    return any(uplink.capture.containing(m) for m in markers for uplink in lab.uplinks)


def send_to_gateway(lab: Lab, family: int, host: str, marker: str) -> None:
    """Hand the gateway a frame for another host, from a neighbour on the first uplink."""
    lab.internet.probe(
        "packet", host=host, source=of(family, ("172.30.0.99", "fd30::99")), device="up0",
        router_mac=lab.uplink.gateway_mac, marker=marker,
    )  # fmt: skip
