"""Outages of a part of the way: what is seen, how soon, what is done, and how it ends.

docs/health.md has the table. Each story shows that its fault is in place, and that no packet
leaves outside the tunnel while it lasts.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.process import promised
from tests.lab.server import CLIENT, PORT
from tests.lab.topology import Lab
from tests.promises import side_by_side
from tests.promises.side_by_side import Stories
from tests.promises.witness import HOST4

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

UNDER_TRAFFIC = 20
"""Seconds within which health is red while data moves."""

FORWARDED = 6900
"""A port that the provider forwards: what comes in there asks for nothing."""


@contextmanager
def busy(lab: Lab, **variables: str) -> Iterator[Gateway]:
    """Give a healthy gateway with traffic both ways, some of it begun outside, as for a torrent.

    At the end, nothing may have left outside the tunnel.
    """
    lab.server.forward_port(FORWARDED)
    gateway = lab.gateway()
    ports = {"FIREWALL_VPN_INPUT_PORTS": str(FORWARDED)}
    gateway.start(gateway.env(**ports, **variables)).wait_healthy()
    since = time.monotonic()
    served = lab.workload.serve(echo(CLIENT.ipv4, FORWARDED))
    outside = lab.internet.flood("udp4", host4=lab.server.exit.ipv4, port=FORWARDED, rate=10)
    own = lab.workload.stream(HOST4, protocol="udp", interval=0.2, timeout=0.5)
    time.sleep(3)
    yield gateway
    own.close()
    outside.stop()
    served.close()
    assert lab.leaks(since) == []


def source_ports(lab: Lab, since: float) -> set[int | None]:
    """Return the source ports of the encrypted flow on the uplink since a time."""
    return {
        frame.source_port
        for frame in lab.capture.frames(since)
        if (frame.destination, frame.destination_port) == (lab.server.endpoint.ipv4, PORT)
    }


def refuse_source_port(lab: Lab, port: int = PORT) -> None:
    """Have the router drop what is sent from `port`, as by a NAT mapping that leads nowhere."""
    lab.internet_namespace.nft(
        "table inet mapping { chain forward { type filter hook forward priority 0; "
        f"udp sport {port} ip daddr {lab.server.endpoint.ipv4} counter drop; }}; }}"
    )


def mapping_drops(lab: Lab) -> int:
    """Return how many packets `refuse_source_port` has dropped."""
    shown = lab.internet_namespace.run("nft", "list", "table", "inet", "mapping")
    return int(shown.partition("counter packets ")[2].split()[0])


def loses_its_mapping() -> None:
    """Drop one source port on the way to the server, while the server's packets still arrive."""
    with Lab() as lab, busy(lab) as gateway:
        assert source_ports(lab, 0.0) == {PORT}, "control"
        received = lab.server.peer()["received"]
        begun = time.monotonic()
        refuse_source_port(lab)
        health = gateway.wait_unhealthy(timeout=UNDER_TRAFFIC * 3)
        taken = time.monotonic() - begun
        assert mapping_drops(lab) > 20, "control: what was sent is lost"
        assert int(str(lab.server.peer()["received"])) - int(str(received)) < 5000, "control"
        assert health.body["reason_code"] == "one_way"
        assert health.state == "connecting"
        assert taken <= promised(UNDER_TRAFFIC)
        gateway.wait_healthy(timeout=5)
        time.sleep(2)
        (port,) = source_ports(lab, time.monotonic() - 1)
        assert port != PORT, "the mapping is still of no use"
        assert gateway.status().body["reconnects"] == {"one_way": 1}
        assert lab.workload.probe("udp", host=HOST4).seen == lab.server.exit.ipv4


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """Return the stories of this module, running side by side."""
    yield from side_by_side.run(
        request,
        {
            "test_a_lost_mapping_is_red_within_20_seconds_and_another_port_helps": (
                loses_its_mapping
            ),
        },
    )


def test_a_lost_mapping_is_red_within_20_seconds_and_another_port_helps(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Though packets of the server still arrive, which hides it from WireGuard itself."""
    stories.end_of(request)
