"""P9: a tunnel port is what its list says; everything else that comes in by the tunnel is dropped.

A provider forwards ports of the exit's address into the tunnel. Here the lab's server does, for
listed and unlisted ones alike, and workloads listen on all of them.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.gateway import Gateway
from tests.lab.hosts import Services, echo
from tests.lab.internet import LAN_HOST, OUTSIDER
from tests.lab.process import PATIENCE
from tests.lab.server import CLIENT, INSIDE
from tests.lab.topology import Lab
from tests.promises.stages import (
    INWARD,
    OWN4,
    OWN6,
    connecting,
    in_tunnel,
    together,
    unique,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P9")]

LISTED, UNLISTED, INPUT_ONLY = 6881, 6890, 8080
TCP_RANGE, UDP_RANGE = (7000, 7002), (7100, 7101)
VARIABLES = {
    "FIREWALL_VPN_INPUT_PORTS": f"{LISTED},7000-7002/tcp,7100-7101/udp",
    "FIREWALL_INPUT_PORTS": str(INPUT_ONLY),
}
AROUND = (6999, *TCP_RANGE, 7003, 7099, *UDP_RANGE, 7102)
KINDS = ("tcp", "udp")
FAMILIES = pytest.mark.parametrize("family", [4, 6])
WAIT = 0.4 * PATIENCE
"""Seconds that a caller waits for an answer that should not come."""


@dataclass(frozen=True)
class Site:
    """A connected gateway, and what its workload has heard."""

    lab: Lab
    gateway: Gateway
    served: Services


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return the shared site: connected, with a listener at every port that is called here."""
    with Lab() as lab:
        gateway = lab.gateway()
        gateway.start(gateway.env(**VARIABLES)).wait_healthy()
        ports = (LISTED, UNLISTED, INPUT_ONLY, *AROUND)
        listening = [echo(address, port) for address in (*CLIENT, OWN4, OWN6) for port in ports]
        yield Site(lab, gateway, lab.workload.serve(*listening))


def of(family: int, pair: object) -> str:
    """Return the address of this family."""
    return str(tuple(pair)[family == 6])


@FAMILIES
def test_a_listed_port_that_the_provider_forwards_reaches_the_workload(
    site: Site, family: int
) -> None:
    """A stranger calls the exit's address, is seen by his own, and is answered in the tunnel."""
    lab, stranger = site.lab, of(family, OUTSIDER)
    lab.server.forward_port(LISTED)
    since = time.monotonic()
    for kind in KINDS:
        answer = lab.internet.probe(
            kind, host=of(family, lab.server.exit), port=LISTED, source=stranger
        )
        assert answer.seen == stranger
    assert lab.leaks(since) == []


@FAMILIES
def test_an_unlisted_port_that_the_provider_forwards_stays_silent(site: Site, family: int) -> None:
    """Dropped, not refused: the stranger does not learn that a host is there.

    Limitations: "no answer" is what the caller and the server's end of the tunnel see.
    """
    lab, stranger = site.lab, of(family, OUTSIDER)
    given = {"host": of(family, lab.server.exit), "source": stranger}
    for port in (UNLISTED, INPUT_ONLY):
        lab.server.forward_port(LISTED)
        assert lab.internet.probe("udp", port=LISTED, **given).seen == stranger, "control"
        lab.server.forward_port(port)
        for kind in KINDS:
            answer = lab.internet.probe(kind, port=port, timeout=WAIT, **given)
            assert answer.result == "timeout", (kind, port)
    assert not site.served.events(port=UNLISTED)
    assert not site.served.events(port=INPUT_ONLY)


@FAMILIES
def test_from_inside_the_tunnel_only_listed_ports_answer_by_their_transport(
    site: Site, family: int
) -> None:
    """Ranges end where they say; what a list gives to TCP is not open to UDP; no echo replies."""
    caller, host = in_tunnel(site.lab), of(family, CLIENT)
    ways = [(kind, port) for kind in KINDS for port in (LISTED, UNLISTED, INPUT_ONLY, *AROUND)]
    answers = together(lambda way: caller.probe(way[0], host=host, port=way[1], timeout=WAIT), ways)
    answered = {way for way, answer in answers.items() if answer.seen}
    assert answered == {
        *((kind, LISTED) for kind in KINDS),
        *(("tcp", port) for port in TCP_RANGE),
        *(("udp", port) for port in UDP_RANGE),
    }
    assert {answer.result for way, answer in answers.items() if way not in answered} == {"timeout"}
    assert caller.probe("ping", host=host, timeout=WAIT).result == "timeout"


@FAMILIES
def test_a_port_of_the_tunnel_is_not_a_port_of_the_uplink(site: Site, family: int) -> None:
    """Neither at the uplink's address nor at the tunnel's; an input port is, in the same breath."""
    lab, own = site.lab, of(family, (OWN4, OWN6))
    since = time.monotonic()
    for kind in KINDS:
        answer = lab.internet.probe(kind, host=own, port=INPUT_ONLY, source=of(family, OUTSIDER))
        assert answer.seen, "control: the input port"
    control = len(lab.leaks(since))
    assert control, "control: its answers are seen"
    lab.capture.quiet_for(0.1)
    since = time.monotonic()
    for place, source in ((lab.internet, OUTSIDER), (lab.lan, LAN_HOST)):
        for kind in KINDS:
            answer = place.probe(
                kind, host=own, port=LISTED, source=of(family, source), timeout=WAIT
            )
            assert answer.result == "timeout"
    lab.internet.probe(
        "packet", host=of(family, CLIENT), source=of(family, OUTSIDER), device="up0",
        router_mac=lab.uplink.gateway_mac, transport="tcp", port=LISTED,
    )  # fmt: skip
    lab.capture.quiet_for(0.1)
    assert lab.leaks(since) == []
    assert not site.served.events(port=LISTED, client=of(family, LAN_HOST))


@FAMILIES
def test_what_comes_in_by_the_tunnel_for_another_address_is_dropped(
    site: Site, family: int
) -> None:
    """A listed port counts at the tunnel's address alone, not at an uplink's or on loopback."""
    caller = in_tunnel(site.lab)
    marker = unique("inward")
    for host in (of(family, (OWN4, OWN6)), of(family, ("127.0.0.1", "::1"))):
        caller.probe(
            "forged", host=host, source=of(family, INSIDE), port=LISTED, mark=INWARD, marker=marker
        )
    last = unique("last")
    caller.probe(
        "forged", host=of(family, CLIENT), source=of(family, INSIDE), port=LISTED, mark=INWARD,
        marker=last,
    )  # fmt: skip
    answer = caller.probe("udp", host=of(family, CLIENT), port=LISTED)
    assert answer.seen == of(family, INSIDE), "control: behind all of them in the same tunnel"
    assert site.served.events(port=LISTED, data=last), "control: the same packet"
    assert not site.served.events(data=marker)


def test_tunnel_ports_are_silent_while_connecting_and_answer_again_after_it(site: Site) -> None:
    """A flow that came in by the tunnel is not carried on by anything else meanwhile.

    Limitations: the server is silent meanwhile, so that no host can call; what is proved is that
    live flows end without a trace outside.
    """
    lab, gateway = site.lab, site.gateway
    caller = in_tunnel(lab)
    streams = [
        caller.stream(host, port=LISTED, protocol=protocol, interval=0.02, timeout=0.2)
        for host in CLIENT
        for protocol in KINDS
    ]
    with connecting(lab, gateway):
        since = time.monotonic()
        lab.capture.quiet_for(0.3)
        assert lab.leaks(since) == []
    for stream in streams:
        assert stream.stop()["kinds"]["answered"], "control: they were answered before"
    for family in (4, 6):
        for kind in KINDS:
            answer = caller.probe(kind, host=of(family, CLIENT), port=LISTED)
            assert answer.seen == of(family, INSIDE)
