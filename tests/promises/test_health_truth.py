"""Health is true, and in time: red when the server is gone, green however bad the link is.

Clients are in test_health.py, the reasons of a configuration or kernel that will not do in
test_p02_wrong_configuration.py: there the process ends, closed, and its log and exit code say why.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from gateway.policy.probing import UNASSIGNED
from tests.lab.gateway import Gateway, Health
from tests.lab.process import eventually, promised
from tests.lab.server import INSIDE
from tests.lab.topology import Lab
from tests.promises import side_by_side
from tests.promises.side_by_side import Stories
from tests.promises.witness import HOST4

pytestmark = pytest.mark.lab

UNDER_TRAFFIC, IDLE = 20, 45
"""Seconds within which health is red after the death of a server."""

WITH_HANDSHAKES = 40
"""Seconds within which it is red where only handshakes pass: WireGuard's next one excuses once."""

WATCHED = 50
"""Seconds for which a bad link is watched."""

LOSS = 20
"""Percent of the encrypted packets that are lost each way."""


def healthy(lab: Lab, **variables: str) -> Gateway:
    """Return a gateway that has just become healthy."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**variables)).wait_healthy()
    return gateway


def red_after(gateway: Gateway, act: Callable[[], None], limit: float) -> Health:
    """Do `act` and return the first red answer, which has to come within `limit` seconds."""
    begun = time.monotonic()
    act()
    health = gateway.wait_unhealthy(timeout=limit + 5)
    assert time.monotonic() - begun <= promised(limit)
    return health


def watched(gateway: Gateway, seconds: float) -> list[Health]:
    """Ask for some time, and return every answer that was not green."""
    end = time.monotonic() + seconds
    red = []
    while time.monotonic() < end:
        health = gateway.status()
        if health.code != 200:
            red.append(health)
        time.sleep(0.2)
    return red


def dies_under_traffic() -> None:
    """Cut the server off while a workload sends."""
    with Lab() as lab:
        gateway = healthy(lab)
        stream = lab.workload.stream(HOST4, protocol="udp", interval=0.2)
        time.sleep(3)
        health = red_after(gateway, lab.server.cut, UNDER_TRAFFIC)
        assert health.body["reason"] == "handshake but nothing received"
        assert health.state == "connecting"
        lab.server.restore()
        gateway.wait_healthy(timeout=20)
        stream.close()
        reported = gateway.events(event="state changed")
        assert {"old", "new", "reason", "seconds", "endpoint"} <= reported[0].keys()
        lost = next(event for event in reported if event["old"] == "connected")
        assert (lost["new"], lost["reason"]) == ("connecting", "server_silent")
        assert lost["seconds"] >= 3


def dies_idle() -> None:
    """Cut the server off while nothing is sent but the gateway's own probes."""
    with Lab() as lab:
        gateway = healthy(lab)
        time.sleep(1)
        health = red_after(gateway, lab.server.cut, IDLE)
        assert health.body["reason"] == "handshake but nothing received"
        lab.server.restore()
        gateway.wait_healthy(timeout=30)


def dies_idle_while_pinged() -> None:
    """Cut the server off while an echo inside the tunnel is all that is sent."""
    with Lab() as lab:
        gateway = healthy(lab, HEALTH_PROBE=f"icmp:{INSIDE.ipv6}")
        assert watched(gateway, 3) == []
        assert not lab.server.queries(), "no question to a resolver"
        health = red_after(gateway, lab.server.cut, IDLE)
        assert health.body["reason"] == "handshake but nothing received"


def dies_idle_without_a_resolver() -> None:
    """Cut the server off where no host in the tunnel is known, and watch where probes end."""
    with Lab() as lab:
        gateway = healthy(lab, DNS_ADDRESS="")
        assert watched(gateway, 3) == []
        health = red_after(gateway, lab.server.cut, IDLE)
        assert health.body["reason"] == "handshake but nothing received"
        lab.server.restore()
        gateway.wait_healthy(timeout=30)
        unassigned = set(map(str, UNASSIGNED.values()))
        assert [frame for frame in lab.capture.frames() if frame.destination in unassigned] == []


def lets_handshakes_pass_and_no_data() -> None:
    """Drop all messages with data, keepalives too, on the way there and back."""
    with Lab() as lab:
        gateway = healthy(lab)
        stream = lab.workload.stream(HOST4, protocol="udp", interval=0.2)
        time.sleep(3)
        health = red_after(gateway, lambda: censor(lab), WITH_HANDSHAKES)
        assert health.body["reason"] == "handshake but nothing received"
        lab.server.namespace.nft("delete table inet censor\n")
        gateway.wait_healthy(timeout=20)
        stream.close()


def censor(lab: Lab) -> None:
    """Let the first byte of a message decide: 4 is data (WireGuard paper, 5.4.6)."""
    lab.server.namespace.nft(
        f"""
        table inet censor {{
            chain arrival {{
                type filter hook input priority -10;
                udp dport {lab.server.port} @th,64,8 4 drop
            }}
            chain departure {{
                type filter hook output priority -10;
                udp sport {lab.server.port} @th,64,8 4 drop
            }}
        }}
        """
    )


def loses_packets_idle() -> None:
    """Lose packets while only probes are sent."""
    with Lab() as lab:
        gateway = healthy(lab)
        lab.server.lossy(LOSS)
        assert watched(gateway, WATCHED) == []
        assert gateway.status().body["reconnects"] == {}


def loses_packets_under_traffic() -> None:
    """Lose packets under traffic, some of which is seen to be lost."""
    with Lab() as lab:
        gateway = healthy(lab)
        lab.server.lossy(LOSS)
        stream = lab.workload.stream(HOST4, protocol="udp", interval=0.05, timeout=0.5)
        assert watched(gateway, WATCHED) == []
        outcomes = [exchange["result"] for exchange in stream.exchanges()]
        stream.close()
        assert "timeout" in outcomes, "control: packets are lost"
        assert "answered" in outcomes


def is_fully_loaded() -> None:
    """Send as fast as the machine can, both families, with answers."""
    with Lab() as lab:
        gateway = healthy(lab)
        before = gateway.status().body["sent"]
        flood = lab.workload.flood("udp4", "udp6", rate=0, port=7)
        red = watched(gateway, WATCHED / 2)
        sent = flood.stop()["sent"]
        assert red == []
        assert sent > 1000
        assert gateway.status().body["sent"] - before > 100_000


def loses_its_resolver() -> None:
    """Let the resolver in the tunnel fall silent while everything else works."""
    with Lab() as lab:
        gateway = healthy(lab)
        health = red_after(gateway, lambda: silence_resolver(lab), 60)
        assert "resolver" in health.body["reason"]
        assert health.state == "connected"
        assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
        lab.server.namespace.nft("delete table inet mute\n")
        gateway.wait_healthy(timeout=15)
        assert gateway.status().body["reconnects"] == {}


def silence_resolver(lab: Lab) -> None:
    """Drop what asks the resolver in the tunnel."""
    lab.server.namespace.nft(
        f"""
        table inet mute {{
            chain arrival {{
                type filter hook input priority -10;
                iifname "{lab.server.interface}" udp dport 53 drop
            }}
        }}
        """
    )


def never_connects() -> None:
    """Start while the server is silent; then delete rules as another program."""
    with Lab() as lab:
        lab.server.cut()
        gateway = lab.gateway().start()
        gateway.wait_for_state("connecting")
        eventually(
            lambda: gateway.status().body["reason"] == "no handshake", timeout=15, what="the reason"
        )
        lab.server.restore()
        gateway.wait_healthy(timeout=15)
        drift = gateway.status().body["drift"]
        backend = gateway.status().body["firewall"]
        lab.operator.run(
            *(
                ("nft", "flush", "chain", "inet", "portcullis", "forward")
                if backend == "nftables"
                else ("iptables-legacy", "-w", "2", "-F", "FORWARD")
            )
        )
        health = gateway.wait_unhealthy(timeout=5)
        assert health.body["reason"] == "firewall drift"
        assert health.body["detail"]
        assert health.body["drift"] > drift
        gateway.wait_healthy(timeout=5)
        assert gateway.status().body["state"] == "connected"


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """Return the stories of this module, running side by side."""
    yield from side_by_side.run(
        request,
        {
            "test_a_server_that_dies_under_traffic_is_red_within_20_seconds": dies_under_traffic,
            "test_a_server_that_dies_in_silence_is_red_within_45_seconds": dies_idle,
            "test_an_echo_inside_the_tunnel_finds_a_dead_server_too": dies_idle_while_pinged,
            "test_without_a_resolver_a_dead_server_is_found_as_soon": dies_idle_without_a_resolver,
            "test_a_way_that_lets_handshakes_pass_and_no_data_is_not_a_tunnel": (
                lets_handshakes_pass_and_no_data
            ),
            "test_a_link_that_loses_every_fifth_packet_stays_green_idle": loses_packets_idle,
            "test_a_link_that_loses_every_fifth_packet_stays_green_under_traffic": (
                loses_packets_under_traffic
            ),
            "test_a_silent_resolver_is_a_reason_of_its_own": loses_its_resolver,
            "test_no_handshake_and_firewall_drift_are_reasons_of_their_own": never_connects,
        },
    )


def test_a_server_that_dies_under_traffic_is_red_within_20_seconds(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """With the reason; the log has old and new state, reason and duration."""
    stories.end_of(request)


def test_a_server_that_dies_in_silence_is_red_within_45_seconds(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """With the default keepalive; the probe inside the tunnel finds it out."""
    stories.end_of(request)


def test_an_echo_inside_the_tunnel_finds_a_dead_server_too(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Where HEALTH_PROBE asks for one, in its time, and by IPv6 as well."""
    stories.end_of(request)


def test_without_a_resolver_a_dead_server_is_found_as_soon(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """By an echo that ends at the server: no host behind it ever sees one."""
    stories.end_of(request)


def test_a_way_that_lets_handshakes_pass_and_no_data_is_not_a_tunnel(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Each handshake is responded to, which proves that the server lives and no more."""
    stories.end_of(request)


def test_a_link_that_loses_every_fifth_packet_stays_green_idle(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Each way, so that more than a third of the questions have no answer.

    Limitations: watched for a minute; tests/unit/test_supervisor.py runs for hours.
    """
    stories.end_of(request)


def test_a_link_that_loses_every_fifth_packet_stays_green_under_traffic(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """The loss is seen by the workload, and health is green all the same."""
    stories.end_of(request)


def test_a_silent_resolver_is_a_reason_of_its_own(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """The tunnel stays open, because addresses work; health is red, because names do not."""
    stories.end_of(request)


def test_no_handshake_and_firewall_drift_are_reasons_of_their_own(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Drift is put back at once, and red until it is seen to be gone."""
    stories.end_of(request)


def test_a_tunnel_under_full_load_stays_green(
    stories: Stories,  # noqa: ARG001 - the others are over, so that the load disturbs none of them
) -> None:
    """As much as the machine can send, for half a minute."""
    is_fully_loaded()
