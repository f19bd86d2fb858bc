"""P12: what is refused is answered at once, so that applications fail instead of hanging."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.gateway import Gateway
from tests.lab.internet import LAN_HOST
from tests.lab.server import INSIDE
from tests.lab.topology import Lab
from tests.lab.workload import Probe
from tests.promises.witness import (
    AT_ONCE,
    FIREWALL_MARK,
    HOST4,
    HOST6,
    links,
    not_refused_at_once,
    ordinary,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P12")]


def stopped(lab: Lab, gateway: Gateway) -> None:
    """Stop a gateway that was connected."""
    del lab
    gateway.start().wait_healthy()
    assert gateway.stop() == 0


def killed(lab: Lab, gateway: Gateway) -> None:
    """Kill a gateway that was connected."""
    del lab
    gateway.start().wait_healthy()
    gateway.kill()


def wrong_configuration(lab: Lab, gateway: Gateway) -> None:
    """Start with a configuration that is refused."""
    del lab
    gateway.start(gateway.env(WIREGUARD_MTU="9"))
    assert gateway.wait() == 2


def connecting(lab: Lab, gateway: Gateway) -> None:
    """Start without a server."""
    lab.server.cut()
    gateway.start().wait_for_state("connecting")


STATES = (stopped, killed, wrong_configuration, connecting)


@pytest.mark.parametrize("arrange", STATES)
def test_in_every_closed_state_each_attempt_fails_at_once(
    lab: Lab, arrange: Callable[[Lab, Gateway], None]
) -> None:
    """Far away and next door, in the tunnel, on the LAN; names too."""
    gateway = lab.gateway()
    arrange(lab, gateway)
    for hosts in ((HOST4, HOST6), lab.uplink.router, LAN_HOST, INSIDE):
        assert not_refused_at_once(ordinary(lab.workload, hosts=tuple(hosts))) == {}
    asked = gateway.workload().probe("resolve", name="closed.example")
    assert asked.result == "error"
    assert asked.seconds < AT_ONCE
    assert not_refused_at_once(bypasses(lab)) == {}


def test_while_the_tunnel_is_open_what_would_go_past_it_fails_at_once(lab: Lab) -> None:
    """A hanging packet is the control: the server dies, and the gateway has not noticed yet."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    assert not_refused_at_once(ordinary(lab.workload, hosts=tuple(lab.uplink.router))) == {}
    assert not_refused_at_once(bypasses(lab)) == {}
    lab.server.cut()
    for host in (HOST4, HOST6):
        answer = lab.workload.probe("udp", host=host, timeout=AT_ONCE)
        assert answer.result == "timeout", "control: so it looks without an answer"
    assert "wg0" in links(lab)


def test_a_flood_does_not_keep_the_refusal_from_others(lab: Lab) -> None:
    """The kernel limits ICMP errors (net.ipv4.icmp_msgs_per_sec); the refusal is not one of them.

    Limitations: sockets in the namespace itself; no other packets are forwarded.
    """
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    assert gateway.stop() == 0
    flood = lab.workload.flood("udp4", "udp6", rate=0)
    for _ in range(5):
        assert not_refused_at_once(ordinary(lab.workload)) == {}
    assert flood.stop()["errors"]


def bypasses(lab: Lab) -> dict[str, Probe]:
    """Try the ways past the tunnel that a socket option asks for."""
    wishes: list[dict[str, Any]] = []
    for host, own in zip((HOST4, HOST6), lab.uplink.gateway, strict=True):
        wishes += [
            {"host": host, "device": "eth0"},
            {"host": host, "source": own},
            {"host": host, "device": "eth0", "source": own, "mark": FIREWALL_MARK},
        ]
    return {
        f"{name} {wish}": lab.workload.probe(name, **wish)
        for name in ("tcp", "udp")
        for wish in wishes
    }
