"""Several servers: one after the other, each with a hole of its own, politely and for ever.

The return to the first server after half an hour is shown in tests/unit/test_supervisor.py, on a
clock that passes by itself.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.lab.frames import Frame
from tests.lab.gateway import Gateway
from tests.lab.process import eventually, promised
from tests.lab.server import CLIENT, INSIDE, Keys, Server
from tests.lab.topology import Lab
from tests.promises import side_by_side
from tests.promises.side_by_side import Stories
from tests.promises.witness import HOST4, HOST6

pytestmark = pytest.mark.lab

SWITCH = 25
"""Seconds from the death of a server to traffic through the next one, under traffic."""

INITIATION = 1
"""The first byte of a message that begins a handshake (WireGuard paper, 5.4.2)."""


def with_one_preshared_key(lab: Lab) -> None:
    """Give all servers the first one's preshared key, as one variable holds for all."""
    for server in lab.servers[1:]:
        server.preshared_key = lab.server.preshared_key
        server.restart()


def endpoints(*servers: Server) -> str:
    """Return the servers as WIREGUARD_ENDPOINTS has them."""
    return ",".join(f"{s.endpoint.ipv4}:{s.port}@{s.keys.public}" for s in servers)


def seen_through(lab: Lab, server: Server) -> bool:
    """Return whether an echo outside sees the exit of `server`."""
    return lab.workload.probe("tcp", host=HOST4).seen == server.exit.ipv4


def frames_to(lab: Lab, server: Server, since: float = 0.0) -> list[Frame]:
    """Return what went to the endpoint of `server`."""
    return [frame for frame in lab.capture.frames(since) if frame.destination in server.endpoint]


def connected(lab: Lab, environment: dict[str, str]) -> Gateway:
    """Return a gateway that has connected with the first server."""
    gateway = lab.gateway().start(environment)
    gateway.wait_healthy()
    assert seen_through(lab, lab.server)
    return gateway


def a_death() -> None:
    """Cut the first of two servers off under traffic, then the second, and bring the first back."""
    with Lab(servers=2) as lab:
        first, second = lab.servers
        with_one_preshared_key(lab)
        gateway = lab.gateway()
        environment = gateway.env(
            WIREGUARD_ENDPOINT_IP=None,
            WIREGUARD_ENDPOINT_PORT=None,
            WIREGUARD_PUBLIC_KEY=None,
            WIREGUARD_ENDPOINTS=endpoints(first, second),
        )
        gateway.start(environment).wait_healthy()
        assert seen_through(lab, first)
        flood = lab.workload.flood("udp4", "udp6", rate=20)
        for dying, taking_over in ((first, second), (second, first)):
            assert frames_to(lab, dying), "control: the capture sees the encrypted flow"
            dying.cut()
            died_at = time.monotonic()
            eventually(
                lambda server=taking_over: seen_through(lab, server),
                timeout=SWITCH,
                what="traffic through the next server",
            )
            assert time.monotonic() - died_at < promised(SWITCH)
            (switched_at, *_) = [f.at for f in frames_to(lab, taking_over, died_at)]
            assert frames_to(lab, dying, switched_at) == [], "the former hole is gone"
            dying.restore()
        # Traffic passes a moment before health says so.
        body = gateway.wait_healthy().body
        assert body["switches"] == 2
        assert body["reconnects"] == {"server_silent": 2}
        flood.stop()
        assert lab.leaks(gateway.started_at + 1) == []


def files() -> None:
    """Give two files, each with a key of its own, the second without IPv6; the first is dead."""
    with Lab(servers=2) as lab:
        first, second = lab.servers
        second.client = Keys.generate()
        second.restart()
        gateway = lab.gateway()
        text = gateway.wg_quick(first)
        gateway.write("/config/a.conf", text)
        for old, new in (
            (gateway.client.private, second.client.private),
            (first.keys.public, second.keys.public),
            (first.preshared_key, second.preshared_key),
            (first.endpoint.ipv4, second.endpoint.ipv4),
            (f", {CLIENT.ipv6}/128", ""),
        ):
            assert old in text
            text = text.replace(old, new)
        gateway.write("/config/b.conf", text)
        first.cut()
        gateway.start(
            {
                name: value
                for name, value in gateway.env().items()
                if not name.startswith("WIREGUARD_") or name == "WIREGUARD_IMPLEMENTATION"
            }
            | {"DNS_ADDRESS": INSIDE.ipv4}
        )
        gateway.wait_healthy(timeout=20)
        assert seen_through(lab, second)
        assert lab.workload.probe("tcp", host=HOST6).failed_fast, "no IPv6 in the second file"
        assert frames_to(lab, first), "the first one was tried first"
        assert lab.leaks(gateway.started_at + 1) == []


def all_dead() -> None:
    """Let both be dead for a while, count the attempts, then let the second live."""
    with Lab(servers=2) as lab:
        with_one_preshared_key(lab)
        for server in lab.servers:
            server.cut()
        gateway = lab.gateway()
        environment = gateway.env(
            WIREGUARD_ENDPOINT_IP=None,
            WIREGUARD_ENDPOINT_PORT=None,
            WIREGUARD_PUBLIC_KEY=None,
            WIREGUARD_ENDPOINTS=endpoints(*lab.servers),
        )
        gateway.start(environment).wait_for_state("connecting")
        time.sleep(40)
        for server in lab.servers:
            begun = [f for f in frames_to(lab, server) if f.payload[:1] == bytes([INITIATION])]
            assert 2 <= len(begun) <= 12, f"{server.number}: {len(begun)} in 40 s"
        health = gateway.status()
        assert (health.code, health.body["reason"]) == (503, "no handshake")
        lab.servers[1].restore()
        gateway.wait_healthy(timeout=30)
        assert seen_through(lab, lab.servers[1])
        assert lab.leaks(gateway.started_at + 1) == []


def fastest() -> None:
    """Give three servers at different distances, listed the slowest first, and start twice."""
    with Lab(servers=3) as lab:
        far, near, middle = lab.servers
        with_one_preshared_key(lab)
        for server, seconds in ((far, 0.4), (middle, 0.2)):
            server.delay(seconds)
        gateway = lab.gateway()
        gateway.write("/config/volume", "")
        environment = gateway.env(
            WIREGUARD_ENDPOINT_IP=None,
            WIREGUARD_ENDPOINT_PORT=None,
            WIREGUARD_PUBLIC_KEY=None,
            WIREGUARD_ENDPOINTS=endpoints(far, near, middle),
            SERVER_ORDER="latency",
        )
        flood = lab.workload.flood("udp4", "udp6", rate=20)
        gateway.start(environment).wait_healthy(timeout=20)
        locked_at = gateway.started_at + 1
        assert seen_through(lab, near)
        (measured,) = gateway.events(event="servers measured")
        assert measured["answered"] == len(lab.servers)
        assert measured["fastest"] == f"{near.endpoint.ipv4}:{near.port}"
        assert frames_to(lab, far), "control: each had a handshake"
        assert frames_to(lab, middle)
        kept = json.loads(gateway.execute("cat", "/config/servers/handshakes.json")[1])
        times = [kept["milliseconds"][f"{s.endpoint.ipv4}:{s.port}"] for s in lab.servers]
        assert times[1] < 150 < times[2] < 350 < times[0]
        gateway.stop()
        since = time.monotonic()
        near.cut()  # what is kept counts, whatever the first one does now
        gateway.start(environment).wait_healthy(timeout=20)
        assert seen_through(lab, middle), "the next one in the order"
        assert frames_to(lab, far, since) == [], "nothing is measured again"
        assert not gateway.events(event="servers measured")
        assert flood.stop()["sent"] > 0
        assert lab.leaks(locked_at) == []


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """Return the stories of this module, running side by side."""
    yield from side_by_side.run(
        request,
        {
            "test_traffic_goes_through_the_next_server_soon_after_a_death": a_death,
            "test_files_with_keys_of_their_own_are_candidates_in_their_order": files,
            "test_the_server_that_answers_first_is_chosen_and_stays": fastest,
            "test_dead_servers_are_tried_for_ever_but_not_hammered": all_dead,
        },
    )


def test_traffic_goes_through_the_next_server_soon_after_a_death(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """At most 25 s, both ways; the hole for the dead one closes as the next one's opens."""
    stories.end_of(request)


def test_files_with_keys_of_their_own_are_candidates_in_their_order(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Keys, addresses and resolvers of the file whose turn it is."""
    stories.end_of(request)


def test_the_server_that_answers_first_is_chosen_and_stays(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """With SERVER_ORDER=latency; the times are kept, so that a restart does not measure again."""
    stories.end_of(request)


def test_dead_servers_are_tried_for_ever_but_not_hammered(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """Handshakes are seconds apart, the reason is named, and the first sign of life is enough."""
    stories.end_of(request)
