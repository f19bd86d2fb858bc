"""Outages of a part of the way: what is seen, how soon, what is done, and how it ends.

docs/health.md has the table. Each story shows that its fault is in place, and that no packet
leaves outside the tunnel while it lasts.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.gateway import Gateway, Health
from tests.lab.hosts import echo
from tests.lab.initiation import RESPONSE, initiation
from tests.lab.process import eventually, promised
from tests.lab.server import CLIENT, PORT
from tests.lab.topology import Lab
from tests.promises import side_by_side
from tests.promises.side_by_side import Stories
from tests.promises.test_narrow_path import FITS, SIZE, measured, narrow, transferred
from tests.promises.witness import HOST4, HOST6

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
    time.sleep(6)  # two probes at least
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


def red(gateway: Gateway, begun: float, limit: float) -> Health:
    """Return the first red answer, which has to come within `limit` seconds of `begun`."""
    health = gateway.wait_unhealthy(timeout=3 * limit)
    taken = time.monotonic() - begun
    assert taken <= promised(limit)
    return health


def green(gateway: Gateway, lab: Lab, limit: float = 30) -> None:
    """Wait until health is green again, and traffic uses the exit."""
    gateway.wait_healthy(timeout=limit)
    assert lab.workload.probe("udp", host=HOST4).seen == lab.server.exit.ipv4


def counted(lab: Lab, place: str, rule: str) -> None:
    """Have the router (`forward`) or the server (`input`, `prerouting`) drop and count packets."""
    namespace = lab.internet_namespace if place == "forward" else lab.server.namespace
    namespace.nft(
        f"add table inet part\ntable inet part {{ chain {place} {{ "
        f"type filter hook {place} priority -300; {rule} counter drop; }}; }}"
    )


def dropped(lab: Lab, place: str) -> int:
    """Return how many packets `counted` has dropped."""
    namespace = lab.internet_namespace if place == "forward" else lab.server.namespace
    shown = namespace.run("nft", "list", "table", "inet", "part")
    return sum(int(part.split()[0]) for part in shown.split("counter packets ")[1:])


def ended(lab: Lab, place: str) -> None:
    """End `counted`."""
    namespace = lab.internet_namespace if place == "forward" else lab.server.namespace
    namespace.nft("delete table inet part\n")


def stays_green(gateway: Gateway, seconds: float) -> None:
    """Ask for some time; every answer has to be green, and nothing connected again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        health = gateway.status()
        assert health.code == 200, health
        time.sleep(0.3)
    assert gateway.status().body["reconnects"] == {}


def received(lab: Lab) -> int:
    """Return how many bytes the server has received from the gateway."""
    return int(str(lab.server.peer()["received"]))


def loses_its_mapping() -> None:
    """Drop one source port on the way to the server, while the server's packets still arrive."""
    with Lab() as lab, busy(lab) as gateway:
        assert source_ports(lab, 0.0) == {PORT}, "control"
        before = received(lab)
        begun = time.monotonic()
        counted(lab, "forward", f"udp sport {PORT} ip daddr {lab.server.endpoint.ipv4}")
        health = red(gateway, begun, UNDER_TRAFFIC)
        assert dropped(lab, "forward") > 20, "control: what was sent is lost"
        assert received(lab) - before < 5000, "control: it does not arrive"
        assert (health.body["reason_code"], health.state) == ("one_way", "connecting")
        assert "source port" in health.body["detail"]
        green(gateway, lab, 5)
        time.sleep(2)
        (port,) = source_ports(lab, time.monotonic() - 1)
        assert port != PORT, "the mapping is still of no use"
        allowed = [line for line in rules_of(lab) if f"dport {PORT}" in line and "sport" in line]
        assert any(f"sport {port} " in line for line in allowed)
        assert not any(f"sport {PORT} " in line for line in allowed), "the former port is closed"
        assert gateway.status().body["reconnects"] == {"one_way": 1}


def rules_of(lab: Lab) -> list[str]:
    """Return the rules of either firewall, as their programs print them, one a line."""
    tables = lab.gateway_namespace.run("nft", "list", "ruleset", check=False)
    legacy = lab.gateway_namespace.run("iptables-legacy", "-S", check=False)
    return (tables + legacy).splitlines()


def loses_the_way_to_the_server() -> None:
    """Drop everything on the way to the server, from each port."""
    with Lab() as lab, busy(lab) as gateway:
        before, begun = received(lab), time.monotonic()
        lab.server.cut("in")
        health = red(gateway, begun, UNDER_TRAFFIC)
        assert received(lab) - before < 5000, "control: it does not arrive"
        assert (health.body["reason_code"], health.state) == ("one_way", "connecting")
        failed(gateway, "no_answer")
        assert len(source_ports(lab, begun)) > 1
        lab.server.restore()
        green(gateway, lab)


def failed(gateway: Gateway, diagnosis: str) -> None:
    """Wait for a failed attempt to connect that is explained like this."""
    eventually(
        lambda: (
            gateway.status().body["reason_code"] == "no_handshake"
            and gateway.status().body["diagnosis"] == diagnosis
        ),
        timeout=40,
        what=diagnosis,
    )


def loses_the_way_back() -> None:
    """Drop everything from the server, which still receives."""
    with Lab() as lab, busy(lab) as gateway:
        before, begun = received(lab), time.monotonic()
        lab.server.cut("out")
        health = red(gateway, begun, UNDER_TRAFFIC)
        assert received(lab) - before > 5000, "control: what is sent arrives"
        assert (health.body["reason_code"], health.state) == ("server_silent", "connecting")
        failed(gateway, "no_answer")
        lab.server.restore()
        green(gateway, lab)


def loses_large_packets() -> None:
    """Drop what is larger than 1380 bytes, on the way in either direction."""
    with Lab() as lab, busy(lab) as gateway:
        assert transferred(lab.workload, HOST4) == SIZE, "control"
        narrow(lab)
        assert transferred(lab.workload, HOST4, patience=5) == 0, "control: it hangs"
        stays_green(gateway, 15)
        lab.operator.run("ip", "link", "del", "wg0")
        measured(gateway, FITS)
        assert transferred(lab.workload, HOST4) == SIZE


def loses_one_family() -> None:
    """Drop IPv6 inside the tunnel at the server; then IPv4, which has the resolver."""
    with Lab() as lab, busy(lab) as gateway:
        counted(lab, "prerouting", f'iifname "{lab.server.interface}" meta nfproto ipv6')
        assert lab.workload.probe("udp", host=HOST6).result == "timeout", "control"
        assert lab.workload.probe("udp", host=HOST4).seen == lab.server.exit.ipv4
        assert dropped(lab, "prerouting")
        stays_green(gateway, 20)
        ended(lab, "prerouting")
        counted(lab, "prerouting", f'iifname "{lab.server.interface}" meta nfproto ipv4')
        gateway.wait_unhealthy(timeout=60)
        eventually(
            lambda: gateway.status().body["reason_code"] == "resolver_silent",
            timeout=90,
            what="the resolver to be blamed",
        )
        assert gateway.status().state == "connected"
        assert lab.workload.probe("udp", host=HOST6).seen == lab.server.exit.ipv6
        assert sum(gateway.status().body["reconnects"].values()) <= 1
        ended(lab, "prerouting")
        green(gateway, lab)


def loses_udp_alone() -> None:
    """Drop UDP to and from the endpoint; echoes still pass."""
    with Lab() as lab, busy(lab) as gateway:
        endpoint = lab.server.endpoint.ipv4
        begun = time.monotonic()
        counted(lab, "forward", f"ip daddr {endpoint} udp dport {PORT}")
        counted(lab, "forward", f"ip saddr {endpoint} udp sport {PORT}")
        health = red(gateway, begun, UNDER_TRAFFIC)
        assert lab.internet.probe("ping", host=endpoint).result == "answered", "control"
        assert dropped(lab, "forward") > 20
        assert (health.body["reason_code"], health.state) == ("server_silent", "connecting")
        failed(gateway, "no_answer")
        assert "UDP may be blocked" in gateway.status().body["detail"]
        ended(lab, "forward")
        green(gateway, lab)


INITIATION = "@th,64,8 1"
"""The first byte of a message that begins a handshake (WireGuard paper, 5.4.2)."""


def loses_handshakes() -> None:
    """Drop each handshake, as a server or network that limits them does; the session stays."""
    with Lab() as lab, busy(lab) as gateway:
        counted(lab, "input", f"udp dport {PORT} {INITIATION}")
        stays_green(gateway, 20)
        assert lab.workload.probe("udp", host=HOST4).seen == lab.server.exit.ipv4
        lab.operator.run("ip", "link", "del", "wg0")
        failed(gateway, "no_answer")
        assert dropped(lab, "input"), "control"
        ended(lab, "input")
        green(gateway, lab)


def loses_every_second_packet() -> None:
    """Lose half of the packets on each way: three of four questions have no answer."""
    with Lab() as lab, busy(lab) as gateway:
        lab.server.lossy(50)
        outcomes = Counter(
            lab.workload.probe("udp", host=HOST4, timeout=0.3).result for _ in range(40)
        )
        assert outcomes["timeout"] > 15, "control"
        assert outcomes["answered"] > 1, "control"
        end = time.monotonic() + 150
        codes: set[str] = set()
        while time.monotonic() < end and "packet_loss" not in codes:
            health = gateway.status()
            assert health.code == 200, health
            codes = {limit["code"] for limit in health.body["limits"]}
            time.sleep(0.3)
        assert "packet_loss" in codes
        assert gateway.status().body["reconnects"] == {}
        assert gateway.events(event="packets are lost")


def loses_the_program_of_the_server() -> None:
    """End WireGuard at the server, whose host then answers "port unreachable"."""
    with Lab() as lab, busy(lab) as gateway:
        begun = time.monotonic()
        lab.server.kill()
        health = red(gateway, begun, UNDER_TRAFFIC)
        assert (health.body["reason_code"], health.state) == ("server_silent", "connecting")
        failed(gateway, "unreachable")
        assert "port unreachable" in gateway.status().body["detail"]
        lab.server.start()
        green(gateway, lab)


def sets_its_clock_back() -> None:
    """Let the server have seen a handshake of the gateway's key from an hour later."""
    with Lab() as lab, busy(lab) as gateway:
        later = initiation(lab.client.private, lab.server.keys.public, time.time() + 3600)
        with lab.internet_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.settimeout(5)
            channel.sendto(later, (lab.server.endpoint.ipv4, PORT))
            assert channel.recv(256)[0] == RESPONSE, "control: the server has taken it"
        stays_green(gateway, 10)
        lab.operator.run("ip", "link", "del", "wg0")
        failed(gateway, "no_answer")
        assert "clock" in gateway.status().body["detail"]
        lab.server.restart()  # it forgets that, as the right clock would make it irrelevant
        green(gateway, lab)


def sends_into_the_void() -> None:
    """Only send, without a keepalive or a probe, to where nothing answers."""
    with Lab() as lab:
        gateway = lab.gateway()
        changes = {"WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL": "0", "HEALTH_PROBE": "off"}
        gateway.start(gateway.env(**changes)).wait_healthy()
        counted(lab, "prerouting", f'iifname "{lab.server.interface}" udp dport 9')
        flood = lab.workload.flood("udp4", rate=5)
        stays_green(gateway, 50)
        assert flood.stop()["sent"] > 100
        assert dropped(lab, "prerouting") > 100, "control: nothing answers"
        begun = time.monotonic()
        flood = lab.workload.flood("udp4", rate=5)
        lab.server.cut()
        assert red(gateway, begun, UNDER_TRAFFIC).body["reason_code"] == "server_silent"
        flood.stop()


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """Return the stories of this module, running side by side."""
    yield from side_by_side.run(
        request,
        {
            "test_a_lost_mapping_is_red_in_time_and_another_port_helps": loses_its_mapping,
            "test_a_lost_way_to_the_server_is_named": loses_the_way_to_the_server,
            "test_a_lost_way_back_looks_like_a_dead_server": loses_the_way_back,
            "test_lost_large_packets_do_not_make_health_red": loses_large_packets,
            "test_of_one_family_only_that_of_the_resolver_is_noticed": loses_one_family,
            "test_blocked_udp_is_found_though_echoes_pass": loses_udp_alone,
            "test_a_connection_outlives_handshakes_that_are_dropped": loses_handshakes,
            "test_the_loss_of_every_second_packet_is_only_reported": loses_every_second_packet,
            "test_a_port_where_nothing_listens_any_more_is_named": loses_the_program_of_the_server,
            "test_handshakes_that_look_repeated_are_dropped_and_the_clock_is_named": (
                sets_its_clock_back
            ),
            "test_a_workload_that_only_sends_is_not_an_outage": sends_into_the_void,
        },
    )


def test_a_lost_mapping_is_red_in_time_and_another_port_helps(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Though packets of the server still arrive, which hides it from WireGuard itself."""
    stories.end_of(request)


def test_a_lost_way_to_the_server_is_named(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """As long as it lasts, handshakes fail from each port."""
    stories.end_of(request)


def test_a_lost_way_back_looks_like_a_dead_server(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """What is sent arrives, and nothing shows that."""
    stories.end_of(request)


def test_lost_large_packets_do_not_make_health_red(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """The next connection finds it, as does the search each ten minutes (unit/test_mtu.py)."""
    stories.end_of(request)


def test_of_one_family_only_that_of_the_resolver_is_noticed(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """The other one stays usable, and the tunnel stays open."""
    stories.end_of(request)


def test_blocked_udp_is_found_though_echoes_pass(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Nothing outside the tunnel is taken for a sign of life."""
    stories.end_of(request)


def test_a_connection_outlives_handshakes_that_are_dropped(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Until its keys have expired (unit/test_pulse.py)."""
    stories.end_of(request)


def test_the_loss_of_every_second_packet_is_only_reported(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Each way, under traffic."""
    stories.end_of(request)


def test_a_port_where_nothing_listens_any_more_is_named(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """After the first failed attempt; anybody could forge such an answer, so it decides nothing."""
    stories.end_of(request)


def test_handshakes_that_look_repeated_are_dropped_and_the_clock_is_named(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Among the causes of a silent server; the connection stays until it needs new keys."""
    stories.end_of(request)


def test_a_workload_that_only_sends_is_not_an_outage(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """The server acknowledges what it receives within ten seconds: silence is evidence."""
    stories.end_of(request)
