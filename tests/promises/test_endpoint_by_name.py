"""An endpoint by name: looked up through a hole for one question, which nothing else fits through.

While the hole is open, a workload with Docker's default capabilities tries everything to ride along
(tests/lab/rider.py). The resolver is kept silent for a while, so that the hole stays open.
Limitations: a mark of 32 random bits can be guessed, once in four billion packets.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.lab.frames import UDP, Frame, addressed_to
from tests.lab.gateway import Gateway
from tests.lab.hosts import Services, dns
from tests.lab.process import Child, eventually
from tests.lab.topology import Lab
from tests.promises import side_by_side
from tests.promises.side_by_side import Stories
from tests.promises.witness import HOST4, locked

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

NAME = "vpn.example"
ON_THE_WIRE = b"\x03vpn\x07example\x00"
RESOLVER4, RESOLVER6 = "198.51.100.53", "2001:db8:100::53"
DOCKER = "127.0.0.11"
UNASSIGNED = "198.51.100.99"
RIDER = "rider-marker"
OPEN_FOR = 1.5
"""Seconds that the hole is kept open at least."""

LOOK_UPS = 4
"""How many look-ups there may be until the resolver is heard, each with a port of its own."""

QUESTIONS = 6
"""Two kinds of address, each asked for three times at most."""


def resolver(lab: Lab, **answers: str) -> Services:
    """Serve a resolver of the internet's, in both families."""
    for address, length in ((RESOLVER4, 32), (RESOLVER6, 128)):
        lab.internet_namespace.run("ip", "addr", "replace", f"{address}/{length}", "dev", "lo")
    served = (dns(RESOLVER4, **answers), dns(RESOLVER6, **answers))
    return lab.internet.serve(*served)


def mute(lab: Lab) -> None:
    """Let nothing reach the resolvers any more, without an error."""
    lab.internet_namespace.nft(
        f"""
        table inet mute {{
            chain arrival {{
                type filter hook input priority -10;
                ip daddr {RESOLVER4} drop
                ip6 daddr {RESOLVER6} drop
            }}
        }}
        """
    )


def unmute(lab: Lab) -> None:
    """End `mute`."""
    lab.internet_namespace.nft("delete table inet mute\n")


def start(lab: Lab, resolver: str | None) -> Gateway:
    """Start a gateway whose endpoint is a name."""
    gateway = lab.gateway()
    environment = gateway.env(WIREGUARD_ENDPOINT_IP=NAME, WIREGUARD_ENDPOINT_RESOLVER=resolver)
    return gateway.start(environment)


def end_of(rider: Child) -> dict[str, int]:
    """Stop the rider and return what became of its attempts."""
    rider.send("stop")
    rider.wait()
    counts: dict[str, int] = json.loads(rider.output().splitlines()[-1])
    return counts


def questions(lab: Lab, address: str, since: float) -> list[Frame]:
    """Return what was sent to the resolver at `address`."""
    return [f for f in lab.capture.frames(since) if f.destination == str(ip_address(address))]


def over_the_uplink(address: str) -> None:
    """Look the name up at a resolver behind the uplink while a workload tries to ride along."""
    with Lab() as lab:
        resolver(lab, A=lab.server.endpoint.ipv4)
        mute(lab)
        rider = lab.workload.ride(address, "eth0")
        lab.capture.wait_for(lambda frame: RIDER.encode() in frame.raw)  # control: it is seen
        gateway = start(lab, address)
        locked_at = locked(gateway)
        lab.capture.wait_for(lambda frame: ON_THE_WIRE in frame.raw, since=locked_at)
        time.sleep(OPEN_FOR)
        unmute(lab)
        gateway.wait_healthy(timeout=20)
        asked = Counter(frame.source_port for frame in questions(lab, address, locked_at))
        assert len(asked) <= LOOK_UPS
        assert max(asked.values()) <= QUESTIONS
        for frame in questions(lab, address, locked_at):
            assert (frame.protocol, frame.destination_port) == (UDP, 53)
            assert frame.payload[12:].startswith(ON_THE_WIRE)
        counts = end_of(rider)
        assert counts["plain refused"] > 100
        assert counts["forged refused"] > 100
        assert not lab.capture.containing(RIDER, locked_at)
        assert lab.leaks(locked_at, allowed=[addressed_to(address)]) == []


def by_dockers_resolver() -> None:
    """Look the name up at 127.0.0.11, which would ask the outside for anybody."""
    with Lab() as lab:
        docker = lab.docker_resolver(A=lab.server.endpoint.ipv4)
        rider = lab.workload.ride(DOCKER, "lo")
        eventually(
            lambda: docker.events(name=f"{RIDER}.test"),
            timeout=5,
            what="control: the rider arrives",
        )
        lab.gateway_namespace.nft(
            f"""
            table inet mute {{
                chain arrival {{
                    type filter hook input priority -10;
                    ip daddr {DOCKER} drop
                }}
            }}
            """
        )
        gateway = start(lab, None)
        locked_at = locked(gateway)
        gateway.wait_for_state("resolving")
        time.sleep(OPEN_FOR)
        lab.gateway_namespace.nft("delete table inet mute\n")
        gateway.wait_healthy(timeout=20)
        counts = end_of(rider)
        assert counts["plain refused"] > 100
        assert counts["forged refused"] > 100
        heard = {
            event["name"]
            for event in docker.events()
            if event["at"] > locked_at and "name" in event
        }
        assert heard == {NAME}
        assert lab.leaks(locked_at) == []
        refused = lab.workload.probe("dns", server=DOCKER)
        assert refused.failed_fast


def addresses_in_turn() -> None:
    """Give a name whose first address is unassigned, and the second the server's by IPv6."""
    with Lab() as lab:
        resolver(lab, A=UNASSIGNED, AAAA=lab.server.endpoint.ipv6)
        gateway = start(lab, RESOLVER6)
        health = gateway.wait_healthy(timeout=25)
        assert health.body["endpoint"] == f"[{ip_address(lab.server.endpoint.ipv6)}]:51820"
        assert questions(lab, UNASSIGNED, 0.0), "the first one was tried first"
        assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4


def a_server_moves_and_the_resolver_dies() -> None:
    """Ask again when the server stays silent; take the last good address without an answer."""
    with Lab() as lab:
        names = resolver(lab, A=lab.server.endpoint.ipv4)
        gateway = start(lab, RESOLVER4)
        gateway.wait_healthy()
        flood = lab.workload.flood("udp4", rate=20)
        moved = lab.server.move(11)
        names.close()
        names = resolver(lab, A=moved.ipv4)
        at_its_new_place = f"{moved.ipv4}:51820"
        eventually(
            lambda: gateway.status().body.get("endpoint") == at_its_new_place,
            timeout=25,
            what="the new address",
            interval=0.2,
        )
        gateway.wait_healthy()
        mute(lab)
        lab.server.cut()
        gateway.wait_for_state("resolving", timeout=25)
        gateway.wait_for_state("connecting")
        lab.server.restore()
        health = gateway.wait_healthy(timeout=30)
        assert health.body["endpoint"] == at_its_new_place
        flood.stop()
        assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    """Return the stories of this module, running side by side."""
    yield from side_by_side.run(
        request,
        {
            "test_nothing_rides_along_with_the_question_on_the_uplink": lambda: over_the_uplink(
                RESOLVER4
            ),
            "test_nothing_rides_along_over_ipv6_either": lambda: over_the_uplink(RESOLVER6),
            "test_nothing_rides_along_with_the_question_to_dockers_resolver": by_dockers_resolver,
            "test_the_addresses_of_a_name_are_tried_in_turn_in_both_families": addresses_in_turn,
            "test_a_server_that_moves_is_found_and_a_dead_resolver_is_survived": (
                a_server_moves_and_the_resolver_dies
            ),
        },
    )


def test_nothing_rides_along_with_the_question_on_the_uplink(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """One resolver, one port, one name, some seconds; nothing of a workload's."""
    stories.end_of(request)


def test_nothing_rides_along_over_ipv6_either(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """The same with a resolver that has an IPv6 address."""
    stories.end_of(request)


def test_nothing_rides_along_with_the_question_to_dockers_resolver(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """127.0.0.11 hears the endpoint's name and no other, whatever ports and marks are forged."""
    stories.end_of(request)


def test_the_addresses_of_a_name_are_tried_in_turn_in_both_families(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """A and AAAA together are one list."""
    stories.end_of(request)


def test_a_server_that_moves_is_found_and_a_dead_resolver_is_survived(
    stories: Stories, request: pytest.FixtureRequest
) -> None:
    """A silent server is looked up again; the last good address is kept."""
    stories.end_of(request)
