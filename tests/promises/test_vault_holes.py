"""The listed holes of a vault: LAN subnets and input ports, which the gateway forwards.

A workload of the vault can send any frame on the link that leads to the gateway. So each packet is
judged twice, in the vault and where it is forwarded; what a packet socket sends meets the second
barrier alone. The control of a test of refused packets is the same packet to a listed host.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from gateway.policy.passage import INNER, INSIDE, OUTSIDE
from tests.lab.frames import TCP, addressed_to, reply_from
from tests.lab.hosts import Services, echo
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS, OTHER_LAN_HOST, OUTSIDER
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.lab.transfers import sink, source
from tests.promises.stages import OWN4, OWN6, unique
from tests.promises.test_reload import reload
from tests.promises.test_vault_gateway import Site
from tests.promises.witness import FLOOD, not_refused_at_once, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P7", "P8")]

LISTED, UNLISTED, FAR = 8080, 8090, 9100
HOLES = {
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(LAN_SUBNETS),
    "FIREWALL_INPUT_PORTS": str(LISTED),
}
FAMILIES = pytest.mark.parametrize("family", [4, 6])
WAIT = 0.4 * PATIENCE
OWN = {4: OWN4, 6: OWN6}


def of(family: int, address: Iterable[str]) -> str:
    """Return the address of this family."""
    return tuple(address)[family == 6]


@dataclass(frozen=True)
class Home:
    """A vault that is connected, with holes, and a workload that listens in it."""

    lab: Lab
    site: Site
    served: Services

    def sent(self, **arguments: object) -> str:
        """Send a frame on the link that leads to the gateway; return its marker."""
        marker = unique("frame")
        workload = self.lab.vault_workload
        shown = self.lab.operator.run("ip", "-o", "link", "show", OUTSIDE)
        mac = shown.partition("link/ether ")[2].split()[0]
        given = {"device": INSIDE, "router_mac": mac, "marker": marker} | arguments
        assert workload.probe("packet", **given).result == "sent"
        return marker

    def left(self, marker: str) -> bool:
        """Return whether the frame has been seen at the far end of the uplink."""
        return bool(self.lab.capture.containing(marker))


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """Return the shared home, connected."""
    with Lab() as lab:
        site = Site(lab).start(**HOLES)
        served = lab.vault_workload.serve(
            *(echo(str(it.ip), port) for it, port in product(INNER.values(), (LISTED, UNLISTED)))
        )
        yield Home(lab, site, served)


@pytest.mark.both_firewalls
def test_a_listed_lan_host_is_reached_and_an_unlisted_one_only_by_the_tunnel(home: Home) -> None:
    """By TCP, UDP and echo requests, with the gateway's own address as the sender's."""
    lab = home.lab
    listed = ordinary(lab.vault_workload, unique("lan"), LAN_HOST)
    assert {name: probe.seen for name, probe in listed.items()} == {
        "tcp 4": OWN4, "udp 4": OWN4, "ping 4": None, "tcp 6": OWN6, "udp 6": OWN6, "ping 6": None,
    }  # fmt: skip
    assert all(probe.result in {"answered", "connected"} for probe in listed.values())
    since = time.monotonic()
    ordinary(lab.vault_workload, unique("other"), OTHER_LAN_HOST)
    assert lab.leaks(since, allowed=[addressed_to(subnet) for subnet in LAN_SUBNETS]) == []


@FAMILIES
@pytest.mark.both_firewalls
def test_a_client_of_a_listed_port_is_served_and_seen_with_its_own_address(
    home: Home, family: int
) -> None:
    """An unlisted port does not answer, although something listens there."""
    lab = home.lab
    address, client = of(family, lab.uplink.gateway), of(family, OUTSIDER)
    for transport in ("tcp", "udp"):
        probe = lab.internet.probe(transport, host=address, port=LISTED, source=client)
        assert probe.result in {"connected", "answered"}
        assert probe.seen == client
        refused = lab.internet.probe(
            transport, host=address, port=UNLISTED, source=client, timeout=WAIT
        )
        assert refused.result == "timeout"


@FAMILIES
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.promise("P10")
def test_names_are_not_resolved_via_the_lan(home: Home, family: int, transport: str) -> None:
    """Neither with a socket nor with a packet socket. Control: another port of that host."""
    lab, host = home.lab, of(family, LAN_HOST)
    refused = lab.vault_workload.probe("dns", server=host, transport=transport)
    assert refused.failed_fast
    inner = str(INNER[family].ip)
    control = home.sent(host=host, source=inner, port=7, transport="udp")
    eventually(lambda: home.left(control), timeout=2, what="the control")
    assert not home.left(home.sent(host=host, source=inner, port=53, transport="udp"))


@FAMILIES
@pytest.mark.promise("P14")
def test_a_packet_socket_reaches_listed_hosts_and_nothing_else(home: Home, family: int) -> None:
    """Its frames pretend to have another source, or to be an answer or the encrypted flow.

    Control: a frame to a listed host, from the vault's address.
    """
    lab = home.lab
    inner, lan, far = str(INNER[family].ip), of(family, LAN_HOST), of(family, INTERNET[0])
    server = of(family, lab.server.endpoint)
    control = home.sent(host=lan, source=inner)
    eventually(lambda: home.left(control), timeout=2, what="the control")
    forged = [
        {"host": far, "source": inner},
        {"host": of(family, OTHER_LAN_HOST), "source": inner},
        {"host": lan, "source": OWN[family]},
        {"host": far, "source": OWN[family]},
        {"host": far, "source": inner, "source_port": LISTED},
        {"host": far, "source": inner, "source_port": LISTED, "transport": "tcp"},
        {"host": server, "source": OWN[family], "source_port": 51820, "port": 51820},
        {"host": server, "source": inner, "source_port": 51820, "port": 51820},
    ]
    markers = [home.sent(**frame) for frame in forged]
    markers += [home.sent(**frame, bypass=1) for frame in forged]
    time.sleep(0.5)
    assert [marker for marker in markers if home.left(marker)] == []
    frames = lab.capture.frames()
    assert [f for f in frames if (f.protocol, f.destination) == (TCP, far)] == []


@FAMILIES
def test_flows_that_begin_in_the_lan_do_not_enter(home: Home, family: int) -> None:
    """A LAN host reaches listed ports like any other client, and nothing else.

    Neither does a neighbour that sends to the vault's own address.
    """
    lab = home.lab
    address = of(family, lab.uplink.gateway)
    assert lab.lan.probe("tcp", host=address, port=LISTED).result == "connected"
    assert lab.lan.probe("tcp", host=address, port=UNLISTED, timeout=WAIT).result == "timeout"
    inner = str(INNER[family].ip)
    via = address
    lab.internet_namespace.ip(f"route replace {inner} via {via} dev {lab.uplink.far_end}")
    before = len(home.served.events())
    assert lab.internet.probe("tcp", host=inner, port=LISTED, timeout=WAIT).result == "timeout"
    assert lab.internet.probe("udp", host=inner, port=UNLISTED, timeout=WAIT).result == "timeout"
    assert len(home.served.events()) == before


@pytest.mark.promise("P17")
def test_what_others_change_on_the_way_is_reverted(home: Home) -> None:
    """The link, its settings, and the translation of addresses."""
    lab, gateway = home.lab, home.site.gateway
    for change in (
        ("ip", "link", "del", OUTSIDE),
        ("ip", "link", "set", OUTSIDE, "down"),
        ("nft", "flush table inet portcullis_vault"),
        ("nft", "delete table inet portcullis_vault"),
    ):
        lab.gateway_namespace.run(*change)
        eventually(
            lambda: (
                lab.vault_workload.probe("tcp", host=LAN_HOST.ipv4, timeout=WAIT).seen == OWN4
                and lab.internet.probe(
                    "tcp", host=OWN4, port=LISTED, source=OUTSIDER.ipv4, timeout=WAIT
                ).seen
                == OUTSIDER.ipv4
            ),
            timeout=8,
            what=f"the holes after {change}",
        )
    eventually(lambda: gateway.status().code == 200, timeout=6, what="no drift any more")


def test_a_flood_leaves_only_as_listed(lab: Lab) -> None:
    """While the gateway starts, is killed and starts again; the holes close with it.

    Connections of both kinds of hole continue.
    """
    site = Site(lab).start(**HOLES)
    workload, home = lab.vault_workload, lab.household
    flood = workload.flood(*FLOOD, device=INSIDE, rate=50)
    source(lab.lan, home, LAN_HOST.ipv4, FAR)
    source(workload, home, str(INNER[4].ip), LISTED)
    own = lab.uplink.gateway.ipv4
    transfers = [
        sink("the LAN", workload, home, LAN_HOST.ipv4, FAR),
        sink("the input port", lab.internet, home, own, LISTED, OUTSIDER.ipv4),
    ]
    since = site.gateway.started_at
    site.gateway.kill()
    eventually(lambda: INSIDE not in site.links(), timeout=2, what="no link")
    assert not_refused_at_once(ordinary(workload, hosts=LAN_HOST)) == {}
    site.start(**HOLES)
    for transfer in transfers:
        transfer.continues_after(time.monotonic(), 6)
    assert flood.stop()["sent"] > 0
    assert lab.capture.containing("flood-marker", since) == []
    allowed = [*(addressed_to(subnet) for subnet in LAN_SUBNETS), reply_from(LISTED)]
    assert lab.leaks(since + 0.5, allowed=allowed) == []


def test_holes_come_and_go_with_a_reload(lab: Lab) -> None:
    """The link for them is there only while one is listed, and the tunnel stays."""
    site = Site(lab)
    gateway, secret = site.gateway, "/run/secrets/firewall_input_ports"
    lab.vault_workload.serve(echo("0.0.0.0", LISTED))
    site.start()
    assert INSIDE not in site.links()
    for text, is_open in ((str(LISTED), True), ("", False)):
        gateway.write(secret, text)
        reload(gateway)
        probe = lab.internet.probe(
            "tcp", host=OWN4, port=LISTED, source=OUTSIDER.ipv4, timeout=WAIT
        )
        assert (probe.seen == OUTSIDER.ipv4) == is_open
        assert (INSIDE in site.links()) == is_open
    site.works()
