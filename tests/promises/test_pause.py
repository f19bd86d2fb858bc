"""A gateway that is asked to pause is closed until it is resumed; another server on request.

The controls: the same flood got out before there was a gateway, the same stream had answers before
the pause, and has them again after it.
"""

import sys
import time

import pytest

from gateway.model import INTERFACE
from tests.lab.frames import Frame
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import LAN_SUBNETS, OUTSIDER
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4
from tests.promises.test_p06_flows import answered_since, wait_until_alive
from tests.promises.test_several_servers import endpoints, with_one_preshared_key
from tests.promises.test_vault_gateway import Site
from tests.promises.witness import HOST4, flooded, links, not_refused_at_once, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1")]

PORT = 8080
LONG = 3.0
"""Seconds of a pause: a keepalive, a retransmission and a comparison of the kernel fit into it."""


def ask(gateway: Gateway, order: str, expected: int = 0) -> str:
    """Run a command in the gateway's container, and return what it prints."""
    code, output = gateway.execute(sys.executable, "-m", "gateway", order)
    assert code == expected, (output, gateway.logs())
    return output


def encrypted(lab: Lab, since: float) -> list[Frame]:
    """Return the encrypted flow since then."""
    return [it for it in lab.capture.frames(since) if it.destination in lab.server.endpoint]


@pytest.mark.promise("P8", "P15")
@pytest.mark.both_firewalls
def test_while_paused_nothing_leaves_and_a_resume_connects_again(lab: Lab) -> None:
    """Not even the encrypted flow, however links change; an input port answers, a LAN does not."""
    control = flooded(lab, rate=50)
    gateway = lab.gateway()
    gateway.write("/config/wg0.conf", gateway.wg_quick())
    gateway.write("/run/secrets/firewall_input_ports", str(PORT))
    backends = {"FIREWALL_BACKEND", "WIREGUARD_IMPLEMENTATION"}
    chosen = {name: text for name, text in gateway.env().items() if name in backends}
    lan = {"FIREWALL_OUTBOUND_SUBNETS": ",".join(LAN_SUBNETS), "DNS_SERVER": "off"}
    gateway.start(chosen | lan | {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}).wait_healthy()
    stream = lab.workload.stream(HOST4, protocol="tcp", marker="inside")
    wait_until_alive([stream])
    served = lab.workload.serve(echo(OWN4, PORT))
    assert encrypted(lab, 0.0), "control"

    assert ask(gateway, "pause").splitlines()[1].startswith("now paused: ")
    since = time.monotonic()
    eventually(lambda: INTERFACE not in links(lab), timeout=3, what="no interface")
    lab.operator.run("ip", "link", "add", "other0", "type", "veth")
    lab.operator.run("ip", "link", "set", "other0", "up")
    gateway.write("/run/secrets/firewall_input_ports", f"{PORT}-{PORT + 1}")
    ask(gateway, "reload")
    ask(gateway, "reconnect", 1)
    time.sleep(LONG)
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    assert lab.internet.probe("tcp", host=OWN4, port=PORT, source=OUTSIDER.ipv4).seen
    status = gateway.status()
    assert (status.code, status.state, status.body["reason_code"]) == (503, "paused", "paused")
    assert status.body["state_age"] > LONG
    assert status.body["verified_age"] < 6
    lab.operator.run("ip", "link", "del", "other0")

    resumed_at = time.monotonic()
    assert encrypted(lab, since) == []
    ask(gateway, "resume")
    gateway.wait_healthy()
    assert encrypted(lab, resumed_at)
    eventually(lambda: answered_since([stream], resumed_at), timeout=30, what="the same connection")
    control.stop()
    served.close()
    others = [it for it in lab.leaks(since) if PORT not in {it.source_port, it.destination_port}]
    assert others == []


def test_a_vault_is_closed_while_its_gateway_is_paused(lab: Lab) -> None:
    """Its link is gone, and comes back."""
    site = Site(lab).start()
    site.works()
    flood = site.flood("lo")
    ask(site.gateway, "pause")
    since = time.monotonic()
    eventually(lambda: INTERFACE not in site.links(), timeout=3, what="no interface")
    site.is_closed()
    time.sleep(LONG / 2)
    assert encrypted(lab, since) == []
    ask(site.gateway, "resume")
    site.gateway.wait_healthy()
    flood.stop()
    site.works()
    assert lab.leaks(since) == []


@pytest.mark.promise("P15")
def test_the_next_server_takes_over_and_a_reconnect_keeps_connections() -> None:
    """A stream continues after a reconnect to its server; the next server has another exit."""
    with Lab(servers=2) as lab:
        first, second = lab.servers
        with_one_preshared_key(lab)
        gateway = lab.gateway()
        single = ("WIREGUARD_ENDPOINT_IP", "WIREGUARD_ENDPOINT_PORT", "WIREGUARD_PUBLIC_KEY")
        listed = {"WIREGUARD_ENDPOINTS": endpoints(first, second)}
        gateway.start(gateway.env(**dict.fromkeys(single), **listed)).wait_healthy()
        stream = lab.workload.stream(HOST4, protocol="tcp", marker="inside")
        wait_until_alive([stream])

        since = time.monotonic()
        assert ask(gateway, "reconnect").splitlines()[0] == "the tunnel is built again"
        gateway.wait_healthy()
        eventually(lambda: answered_since([stream], since), timeout=20, what="the same connection")
        assert lab.workload.probe("tcp", host=HOST4).seen == first.exit.ipv4

        for server in (second, first):
            ask(gateway, "next")
            gateway.wait_healthy()
            assert lab.workload.probe("tcp", host=HOST4).seen == server.exit.ipv4
        assert gateway.status().body["reconnects"] == {"requested": 3}
        assert lab.leaks(since) == []
