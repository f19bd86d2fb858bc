"""P18 where something goes wrong: the gateway is killed, the way changes, the tunnel goes.

The lab plays the provider, as in test_p18_list.py.
"""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.frames import Frame, addressed_to
from tests.lab.gateway import Gateway
from tests.lab.internet import LAN_HOST
from tests.lab.lists import PROVIDER, RESOLVER, ListHost, mullvad
from tests.lab.process import PATIENCE, eventually
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.test_p18_list import certificate, to_provider, variables
from tests.promises.test_vault_gateway import Site
from tests.promises.witness import HOST4, locked

__all__ = ["certificate"]

pytestmark = [pytest.mark.lab, pytest.mark.promise("P18")]

RESOLVER6, PROVIDER6 = "2001:db8:113::53", "2001:db8:113::80"
LEAVES = [addressed_to(RESOLVER), addressed_to(PROVIDER)]


def ride(lab: Lab, port: int, marker: str) -> None:
    """Send to the host of the list, from a port, as packets and as an honest application would."""
    lab.workload.probe("udp", host=PROVIDER, port=443, marker=marker)
    lab.workload.probe("tcp", host=PROVIDER, port=443)
    for transport in ("tcp", "udp"):
        lab.workload.probe(
            "packet", device="eth0", source=lab.uplink.gateway.ipv4, source_port=port,
            host=PROVIDER, port=443, transport=transport, marker=marker,
        )  # fmt: skip
    lab.workload.probe("raw", host=PROVIDER, marker=marker)


def stalled(lab: Lab, trusted: Authority, certificate: Path) -> tuple[Gateway, ListHost, int]:
    """Return a gateway in the middle of the transfer, the host, and the port of the connection."""
    host = ListHost(lab, certificate, mullvad(lab.servers), manner="stalled")
    gateway = lab.gateway()
    gateway.start(variables(gateway, trusted))
    eventually(lambda: host.requests, timeout=20, what="the request")
    (port,) = {frame.source_port for frame in to_provider(lab, locked(gateway))}
    return gateway, host, int(port or 0)


def well(host: ListHost) -> None:
    """Let the host serve as it should."""
    host.close()
    host.serve("well")


@pytest.mark.both_firewalls
def test_killed_in_the_middle_of_a_transfer_nothing_rides_along(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """The rules of the connection stay, and its mark is lost with its socket; then it starts again.

    Control: the same packets are seen before the first start.
    """
    ride(lab, 40000, "before-it")
    assert lab.capture.containing("before-it"), "control"
    gateway, host, port = stalled(lab, trusted, certificate)
    gateway.kill()
    lab.capture.quiet_for(0.5)
    since = time.monotonic()
    ride(lab, port, "after-it")
    lab.capture.quiet_for(0.1)
    assert not lab.capture.containing("after-it", since)
    assert lab.leaks(since) == []
    well(host)
    gateway.start(gateway.environment).wait_healthy(timeout=30)
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    assert lab.leaks(since, allowed=LEAVES) == []


def flaps(lab: Lab, _gateway: Gateway) -> None:
    """Take the uplink away for a moment, with its routes."""
    name, router = lab.uplink.name, lab.uplink.router.ipv4
    lab.gateway_namespace.ip(f"link set {name} down")
    time.sleep(0.3)
    lab.gateway_namespace.ip(f"link set {name} up")
    lab.gateway_namespace.ip(f"route replace default via {router} dev {name}")


def reloads(_lab: Lab, gateway: Gateway) -> None:
    """Have the configuration read again."""
    gateway.signal(signal.SIGHUP)


def attaches(lab: Lab, _gateway: Gateway) -> None:
    """Give the namespace a second uplink."""
    lab.attach_uplink()


@pytest.mark.parametrize("event", [flaps, reloads, attaches])
def test_what_happens_meanwhile_opens_nothing_and_it_connects(
    lab: Lab, trusted: Authority, certificate: Path, event: Callable[[Lab, Gateway], None]
) -> None:
    """The connection is cut off or continues; either way the next attempt is the gateway's own."""
    gateway, host, port = stalled(lab, trusted, certificate)
    event(lab, gateway)
    ride(lab, port, "meanwhile")
    well(host)  # which cuts the connection off where it still is
    gateway.wait_healthy(timeout=60)
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    since = locked(gateway)
    assert not lab.capture.containing("meanwhile", since)
    assert lab.leaks(since, allowed=LEAVES) == []


def test_a_list_arrives_by_ipv6_alone(lab: Lab, trusted: Authority, certificate: Path) -> None:
    """On an uplink without IPv4; the server has an IPv6 address, too."""
    device = f"dev {lab.uplink.name}"
    lab.gateway_namespace.ip(f"addr del {lab.uplink.gateway.ipv4}/24 {device}")
    body = json.loads(mullvad(lab.servers))
    for server in body:
        del server["ipv4_addr_in"]
    host = ListHost(
        lab, certificate, json.dumps(body).encode(), resolver=RESOLVER6, address=PROVIDER6
    )
    gateway = lab.gateway()
    wanted = variables(gateway, trusted) | {"WIREGUARD_ENDPOINT_RESOLVER": RESOLVER6}
    gateway.start(wanted).wait_healthy(timeout=20)
    assert [request["client"] for request in host.requests] == [lab.uplink.gateway.ipv6]
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    allowed = [addressed_to(RESOLVER6), addressed_to(PROVIDER6)]
    assert lab.leaks(locked(gateway), allowed=allowed) == []


def test_a_gateway_with_a_vault_fetches_its_list_outside_of_it(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """The vault has no hole for it."""
    host = ListHost(lab, certificate, mullvad(lab.servers))
    site = Site(lab)
    site.gateway.start(variables(site.gateway, trusted)).wait_healthy(timeout=20)
    assert len(host.requests) == 1
    assert lab.vault_workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    assert lab.leaks(locked(site.gateway), allowed=LEAVES) == []


# -- again, through the tunnel --------------------------------------------------------------------


def refreshes(lab: Lab, trusted: Authority, **changes: str) -> Gateway:
    """Return a gateway that is connected with a kept list, which is due in a few seconds."""
    gateway = lab.gateway()
    wanted = variables(
        gateway, trusted, UPDATER_PERIOD="1h", DNS_ADDRESS=RESOLVER, HEALTH_PROBE="off", **changes
    )
    servers = [
        {"hostname": "s", "public_key": one.keys.public, "addresses": [one.endpoint.ipv4]}
        for one in lab.servers
    ]
    content = {"provider": "mullvad", "source": "", "fetched": 5, "servers": servers}
    gateway.execute("mkdir", "/config/servers")
    gateway.write("/config/servers/mullvad.json", json.dumps(content))
    gateway.execute("touch", "-d", "3590 seconds ago", "/config/servers/mullvad.json")
    gateway.start(wanted).wait_healthy()
    return gateway


def outside(lab: Lab, *addresses: str) -> list[Frame]:
    """Return the frames to these addresses that were seen outside the tunnel."""
    return [it for up in lab.uplinks for it in up.capture.frames() if it.destination in addresses]


def test_a_list_is_fetched_again_through_the_tunnel_or_not_at_all(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """The tunnel goes while the host stalls, and nothing of the transfer leaves outside it.

    Control: the first list of a gateway is seen outside, and the host sees who asks.
    """
    host = ListHost(lab, certificate, mullvad(lab.servers), manner="stalled")
    gateway = refreshes(lab, trusted)
    eventually(lambda: host.requests, timeout=20 * PATIENCE, what="the request in the tunnel")
    assert [request["client"] for request in host.requests] == [lab.server.exit.ipv4]
    lab.server.cut()
    lab.operator.run("ip", "link", "del", "wg0", check=False)
    gateway.wait_unhealthy()
    host.close()  # the kernel would acknowledge what it sends at the end
    time.sleep(3)
    assert outside(lab, RESOLVER, PROVIDER) == []
    assert lab.leaks(locked(gateway)) == []
    lab.server.restore()
    gateway.stop()
    host.serve("well")
    gateway.execute("rm", "/config/servers/mullvad.json")
    gateway.start(gateway.environment).wait_healthy(timeout=30)
    assert outside(lab, RESOLVER)
    assert outside(lab, PROVIDER), "control"


def test_a_name_that_leads_to_a_listed_subnet_is_not_followed_there(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """The tunnel's resolver answers with a host of the LAN: not one packet of ours goes there.

    Control: a workload reaches that host, and the host of the list is asked through the tunnel.
    """
    host = ListHost(lab, certificate, mullvad(lab.servers))
    host.named(LAN_HOST.ipv4)
    gateway = refreshes(lab, trusted, FIREWALL_OUTBOUND_SUBNETS=f"{LAN_HOST.ipv4}/32")
    said = "could not fetch list of servers"
    eventually(lambda: gateway.events(event=said), timeout=30 * PATIENCE, what=said)
    to_lan = [it for it in outside(lab, LAN_HOST.ipv4) if it.destination_port == 443]
    assert to_lan == []
    assert lab.workload.probe("tcp", host=LAN_HOST.ipv4).result == "connected"
    assert outside(lab, LAN_HOST.ipv4), "control"
