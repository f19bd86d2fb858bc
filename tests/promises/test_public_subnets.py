"""P7: a listed subnet on a public range is that of an uplink's own network, or of the internet."""

import time

import pytest

from tests.lab.frames import addressed_to, is_neighbour_discovery
from tests.lab.hosts import echo
from tests.lab.internet import INTERNET
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.stages import frames_to, unique
from tests.promises.test_vault_gateway import Site

pytestmark = [pytest.mark.lab, pytest.mark.promise("P7")]

NETWORK, ROUTER, OWN, ABSENT = "172.50.0.0/16", "172.50.0.1", "172.50.0.2", "172.50.9.9"
ON_THE_INTERNET, HOST = "203.0.113.0/24", INTERNET[1].ipv4
PORT, LISTED_PORT = 7, 8080


@pytest.mark.both_firewalls
def test_a_network_on_a_public_range_is_reached_on_its_own_link_alone() -> None:
    """Before it is attached, and after it is gone, its addresses are those of the internet.

    Its containers are not reached by a default route either, and a listed subnet that is on the
    internet stays in the tunnel. Control: each probe is answered where it may be.
    """
    with Lab(uplinks=2) as lab:
        lab.internet_namespace.ip(f"addr add {ROUTER}/16 dev up1")
        lab.internet.serve(echo(ROUTER))
        gateway = lab.gateway()
        variables = {
            "FIREWALL_OUTBOUND_SUBNETS": f"{NETWORK},{ON_THE_INTERNET}",
            "FIREWALL_INPUT_PORTS": str(LISTED_PORT),
        }
        gateway.start(gateway.env(**variables)).wait_healthy()
        since = gateway.started_at + 1

        def limits() -> list[str]:
            found = gateway.status().body["limits"]
            return [it["text"] for it in found if it["code"] == "subnet_not_attached"]

        assert [NETWORK in text for text in limits()] == [True, False]
        assert lab.workload.probe("tcp", host=HOST).seen == lab.server.exit.ipv4
        before = unique("before")
        lab.workload.probe("udp", host=ROUTER, port=PORT, marker=before)
        assert not any(uplink.capture.containing(before) for uplink in lab.uplinks)
        assert lab.leaks(since) == []

        lab.gateway_namespace.ip(f"addr add {OWN}/16 brd + dev eth1")
        eventually(lambda: len(limits()) == 1, timeout=5, what="the limit is gone")
        assert lab.workload.probe("tcp", host=ROUTER, port=PORT).seen == OWN
        assert lab.workload.probe("udp", host=ROUTER, port=PORT).seen == OWN
        assert lab.workload.probe("udp", host=ROUTER, port=53).failed_fast, "no names (P10)"
        assert lab.workload.probe("tcp", host=HOST).seen == lab.server.exit.ipv4
        lab.workload.serve(echo(OWN, LISTED_PORT))
        client = lab.internet.probe("tcp", host=OWN, port=LISTED_PORT, source=ROUTER)
        assert client.seen == ROUTER, "an input port there"

        lab.gateway_namespace.ip(f"route add {ABSENT} via {ROUTER} dev eth1")
        by_gateway = unique("via")
        lab.workload.probe("udp", host=ABSENT, port=PORT, marker=by_gateway, timeout=1)
        assert not any(uplink.capture.containing(by_gateway) for uplink in lab.uplinks)
        lab.gateway_namespace.ip(f"route del {NETWORK} dev eth1")
        assert lab.workload.probe("tcp", host=ROUTER, port=PORT).seen == OWN, "on the link"

        lab.gateway_namespace.ip(f"addr del {OWN}/16 dev eth1")
        gone_at = time.monotonic()
        eventually(lambda: len(limits()) == 2, timeout=5, what="the limit")
        after = unique("after")
        lab.workload.probe("udp", host=ROUTER, port=PORT, marker=after, timeout=1)
        assert not any(uplink.capture.containing(after) for uplink in lab.uplinks)
        assert frames_to(lab, ROUTER, gone_at + 1) == []
        resolving = lambda frame: is_neighbour_discovery(frame, {OWN}, [NETWORK])  # noqa: E731
        assert lab.leaks(since, allowed=[addressed_to(NETWORK), resolving]) == []


@pytest.mark.both_firewalls
def test_workloads_in_a_vault_reach_it_while_the_gateway_is_attached_to_it() -> None:
    """With the address that the gateway has there; before and after that it is the internet's."""
    with Lab(uplinks=2) as lab:
        lab.internet_namespace.ip(f"addr add {ROUTER}/16 dev up1")
        lab.internet.serve(echo(ROUTER))
        Site(lab).start(FIREWALL_OUTBOUND_SUBNETS=NETWORK)
        outside = unique("outside")
        lab.vault_workload.probe("udp", host=ROUTER, port=PORT, marker=outside)
        assert not any(uplink.capture.containing(outside) for uplink in lab.uplinks)
        lab.gateway_namespace.ip(f"addr add {OWN}/16 brd + dev eth1")

        def seen() -> str | None:
            return lab.vault_workload.probe("tcp", host=ROUTER, port=PORT, timeout=1).seen

        eventually(lambda: seen() == OWN, timeout=10, what="the way to it")
        lab.gateway_namespace.ip(f"addr del {OWN}/16 dev eth1")
        eventually(lambda: seen() is None, timeout=10, what="the way is gone")
        gone_at = time.monotonic()
        lab.vault_workload.probe("udp", host=ROUTER, port=PORT, timeout=1)
        assert frames_to(lab, ROUTER, gone_at) == []
