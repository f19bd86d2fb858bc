"""A workload with Docker's default capabilities tries to get a frame out around the tunnel.

Every way is tried twice: by a container that shares the gateway's namespace, with a capture on the
host's end of the gateway's link, and, as its control, by an ordinary container on the same network
with a capture on the host's end of that one's link.

Limitations: what is tried is what a process can ask the kernel for without NET_ADMIN. AF_XDP is not
among it: promises/test_p14_xdp.py tries that.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

import pytest

from gateway.policy.marks import SHOWN
from tests.docker.box import LAB_VOLUME, Box
from tests.docker.project import NUMBER, Project
from tests.docker.site import (
    HOST,
    PORT,
    SERVER,
    UPLINK,
    UPLINK_ROUTER,
    Site,
    encrypted,
    gateway_address,
    tunnel_address,
)
from tests.lab.capture import Capture
from tests.lab.frames import Frame

pytestmark = pytest.mark.docker

MARK = "{mark}"
ORDINARY = gateway_address(9)
"""Where the ordinary container lives: an address like a gateway's, that no gateway has."""


@dataclass(frozen=True)
class Way:
    """One way out: a probe of the lab with its arguments.

    `{own4}` and `{own6}` stand for the container's addresses on the uplink, `{router}` for the
    hardware address of the bridge, `{mark}` for the mark of the encrypted flow, which is drawn at
    each start, and `{guess}` for one that is nearly right.
    """

    name: str
    probe: str
    arguments: dict[str, object] = field(default_factory=dict)


def both(name: str, probe: str, **arguments: object) -> list[Way]:
    """Return the same way in either family; a dictionary has the argument for 4 and for 6."""
    return [
        Way(
            f"{name}-ipv{version}",
            probe,
            {"host": host}
            | {
                key: value[version] if isinstance(value, dict) else value
                for key, value in arguments.items()
            },
        )
        for version, host in ((4, HOST.ipv4), (6, HOST.ipv6))
    ]


FLOW: dict[str, object] = {
    "host": SERVER.ipv4,
    "port": PORT,
    "source": "{own4}",
    "source_port": PORT,
    "device": "eth0",
    "mark": MARK,
}
"""All that identifies the encrypted flow, and a source address, which does not."""


def with_wrong(part: str, probe: str = "forged", **wrong: object) -> Way:
    """Return the flow with one part replaced, or left out where that is None."""
    given = {key: value for key, value in (FLOW | wrong).items() if value is not None}
    return Way(f"endpoint-wrong-{part}", probe, given)


NOT_THE_FLOW = [
    with_wrong("mark-none", mark=None),
    with_wrong("mark-customary", mark="0xca6c"),
    with_wrong("mark-shown", mark=f"{SHOWN:#x}"),
    with_wrong("mark-guessed", mark="{guess}"),
    with_wrong("source-port", source_port=40123),
    with_wrong("port", port=7),
    with_wrong("host-neighbour", host=UPLINK_ROUTER),
    with_wrong("host-beyond", host=HOST.ipv4),
    with_wrong("protocol-tcp", "tcp"),
    with_wrong("protocol-other", "raw", protocol=253, port=None, source=None, source_port=None),
    with_wrong("socket", "packet", mark=None, router_mac="{router}"),
]
OWN = {4: "{own4}", 6: "{own6}"}
WAYS = [
    *both("bound-device", "udp", device="eth0"),
    *both("bound-device-tcp", "tcp", device="eth0"),
    *both("bound-source", "udp", source=OWN),
    *both("forged-mark", "udp", mark=MARK),
    *both("forged-mark-and-device", "udp", mark=MARK, device="eth0"),
    *both("forged-mark-tcp", "tcp", mark=MARK, device="eth0"),
    *both("ping", "ping", device="eth0"),
    *both("raw-gre", "raw", protocol=47, device="eth0", mark=MARK),
    *both("raw-udp", "forged", source=OWN, device="eth0", mark=MARK),
    *both("raw-udp-as-the-encrypted-flow", "forged", source=OWN, source_port=PORT, port=PORT,
          device="eth0", mark=MARK),
    *both("fragments", "fragments", source=OWN, device="eth0", mark=MARK),
    *both("packet-socket", "packet", source=OWN, router_mac="{router}"),
    *both("packet-socket-bypass", "packet", source=OWN, router_mac="{router}", bypass=1),
    Way("endpoint-forged-mark", "udp", {"host": SERVER.ipv4, "port": PORT, "mark": MARK}),
    *NOT_THE_FLOW,
    Way("broadcast", "broadcast", {"device": "eth0"}),
    Way("multicast-ipv4", "multicast", {"host": "224.0.0.251"}),
    Way("multicast-ipv6", "multicast", {"host": "ff02::fb"}),
]  # fmt: skip

REPRESENTATIVE = {
    *("bound-device-ipv4", "bound-device-tcp-ipv6", "forged-mark-and-device-ipv4"),
    *("raw-gre-ipv6", "raw-udp-as-the-encrypted-flow-ipv4", "fragments-ipv6"),
    *("packet-socket-ipv4", "packet-socket-bypass-ipv6", "endpoint-forged-mark"),
    *("endpoint-wrong-mark-guessed", "endpoint-wrong-socket", "multicast-ipv6"),
}
"""One of each sort. `test_p01_every_kind`, `test_p03_encrypted_flow` and `test_p14_packet_sockets`
try them all in the lab, and LAB_EVERYTHING=1 has all tried here."""
TRIED = [
    way for way in WAYS if os.environ.get("LAB_EVERYTHING") == "1" or way.name in REPRESENTATIVE
]


def test_the_representatives_are_ways() -> None:
    """A way that is renamed is not left out unseen."""
    assert {way.name for way in WAYS} >= REPRESENTATIVE


@pytest.fixture(scope="module")
def intruder(project: Project) -> Iterator[tuple[Box, Capture]]:
    """Yield a container in the gateway's namespace, and a capture of the gateway's link."""
    site = project.site
    box = site.run(
        *("intruder", "-v", LAB_VOLUME, "--network", f"container:{project.gateway.name}"),
        command=["sleep", "infinity"],
    )
    yield box, site.capture_of(project.gateway, NUMBER)
    box.remove()


@pytest.fixture(scope="module")
def ordinary(site: Site) -> Iterator[tuple[Box, Capture]]:
    """Yield a container of its own on the uplink, and a capture of its link."""
    box = site.run(
        *("ordinary", "-v", LAB_VOLUME, "--network", UPLINK),
        *("--ip", ORDINARY.ipv4, "--ip6", ORDINARY.ipv6),
        command=["sleep", "infinity"],
    )
    yield box, site.capture_of(box, 9)
    box.remove()


@pytest.fixture(scope="module")
def router(site: Site) -> str:
    """Return the hardware address of the uplink's bridge."""
    reported = site.machine_namespace.run("ip", "-o", "link", "show", site.bridge(UPLINK))
    return reported.partition("link/ether ")[2].split()[0]


@pytest.fixture(scope="module")
def known(project: Project, router: str) -> dict[str, str]:
    """Return what the ways need to know of the site: the bridge, and the mark of the flow.

    The mark as only an operator can read it; each start of the gateway draws another.
    """
    mark = mark_of(project.gateway)
    return {"router": router, "mark": f"{mark:#x}", "guess": f"{mark ^ 1:#x}"}


def mark_of(gateway: Box) -> int:
    """Read the mark of the encrypted flow from the rule that lets it out."""
    legacy = gateway.exec("iptables-legacy", "-S", "OUTPUT", check=False)
    found = re.search(r"--mark (0x[0-9a-f]+) .*the encrypted flow", legacy)
    if found is None:
        listed = gateway.exec("nft", "list", "ruleset", check=False)
        found = re.search(r"oifname .* meta mark (0x[0-9a-f]+) .*the encrypted flow", listed)
    assert found, legacy
    return int(found[1], 16)


def filled(way: Way, number: int, known: dict[str, str], marker: str) -> dict[str, object]:
    """Return the arguments of a way for the container that has address `number`."""
    own = gateway_address(number)
    known = known | {"own4": own.ipv4, "own6": own.ipv6}
    arguments = {
        key: value.format(**known) if isinstance(value, str) else value
        for key, value in way.arguments.items()
    }
    if way.probe != "tcp":  # its connection attempt has no room for a text
        arguments["marker"] = marker
    return arguments | {"timeout": 0.5}


def sent(capture: Capture, way: Way, marker: str, since: float) -> list[Frame]:
    """Return the frames of one try: those with its marker, or its connection attempts."""
    if way.probe == "tcp":
        return [frame for frame in capture.frames(since) if frame.tcp_flags is not None]
    return capture.containing(marker, since)


@pytest.mark.promise("P1", "P3", "P14")
@pytest.mark.parametrize("way", TRIED, ids=lambda way: way.name)
def test_nothing_gets_out_around_the_tunnel(
    project: Project,
    intruder: tuple[Box, Capture],
    ordinary: tuple[Box, Capture],
    known: dict[str, str],
    way: Way,
) -> None:
    """No frame of the workload is on the gateway's link; the ordinary container's is on its own."""
    box, capture = ordinary
    since = monotonic()
    marker = f"control-{way.name}"
    box.probe(way.probe, **filled(way, 9, known, marker))
    assert sent(capture, way, marker, since), "the control was not seen: nothing is proven"

    box, capture = intruder
    since = monotonic()
    marker = f"escape-{way.name}"
    tried = box.probe(way.probe, **filled(way, NUMBER, known, marker))
    assert sent(capture, way, marker, since) == [], tried
    assert capture.leaks(encrypted(), since) == [], tried
    assert project.gateway.health == "healthy"


@pytest.mark.promise("P3")
def test_what_the_ways_to_the_endpoint_lack_is_one_part_each(
    intruder: tuple[Box, Capture], known: dict[str, str]
) -> None:
    """Control of those ways: with the mark that no workload knows, all of it together leaves."""
    box, capture = intruder
    since = monotonic()
    for number, way in enumerate((Way("whole", "forged", FLOW), *NOT_THE_FLOW)):
        box.probe(way.probe, **filled(way, NUMBER, known, f"part-{number}."))
    assert capture.containing("part-0.", since), "the mark is the right one"
    assert len(capture.containing("part-", since)) == 1


@pytest.mark.promise("P10")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_dockers_resolver_carries_nothing_out(
    project: Project, intruder: tuple[Box, Capture], ordinary: tuple[Box, Capture], transport: str
) -> None:
    """127.0.0.11 refuses a workload with every capability of Docker's default set."""
    site = project.site
    name = f"control-{transport}.test"
    assert ordinary[0].probe("dns", name=name, transport=transport).result == "answered"
    assert site.resolver.events(name=name)
    box, capture = intruder
    since = monotonic()
    tried = box.probe("dns", name="escape.test", transport=transport)
    assert tried.failed_fast, tried
    assert site.resolver.events(name="escape.test") == []
    assert capture.leaks(encrypted(), since) == []


@pytest.mark.promise("P11")
def test_the_tunnels_address_is_dead_on_the_uplink(
    project: Project, intruder: tuple[Box, Capture], ordinary: tuple[Box, Capture]
) -> None:
    """A neighbour that sends to the address inside the tunnel gets no answer, nor by ARP.

    Control: the same neighbour gets ARP answers for the gateway's own address.
    """
    box, _ = ordinary
    own, inside = gateway_address(NUMBER).ipv4, tunnel_address(NUMBER).ipv4
    capture = intruder[1]
    since = monotonic()
    box.engine.docker(
        *("run", "--rm", "--network", f"container:{box.name}", "--cap-add", "NET_ADMIN"),
        *("portcullis-lab", "ip", "route", "replace", f"{inside}/32", "dev", "eth0"),
    )
    box.probe("udp", host=inside, port=80, timeout=0.5)
    box.probe("udp", host=own, port=80, timeout=0.5)
    answers = [frame.source for frame in capture.frames(since) if frame.ethertype == 0x0806]
    assert own in answers
    assert inside not in answers
    assert project.gateway.health == "healthy"
