"""Debian 13's torrent clients get the forwarded port, each in a container of its own.

Only `scripts/test --everything` runs this: their image takes two minutes to build. The lab does the
same with those of Debian 12.
"""

from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import LAB, PROJECT, TORRENTS
from tests.docker.project import gateway_environment
from tests.docker.site import UPLINK, Site, gateway_address, temporary, tunnel_address
from tests.lab.process import eventually
from tests.lab.torrent import CLIENTS, PASSWORD, Client

pytestmark = pytest.mark.docker

NUMBER = 2
PORT = 51500


class Set:
    """A gateway, a client in its network, and a workload next to them."""

    def __init__(self, site: Site, kind: str) -> None:
        self.site = site
        self.client: Client = CLIENTS[kind](site.machine_namespace, site.household)
        self.gateway = Box(site.engine, "passing")
        self.boxes = [self.gateway]

    def start_gateway(self) -> None:
        """Start the gateway as its documentation says."""
        site, address = self.site, gateway_address(NUMBER)
        environment = gateway_environment(site, NUMBER) | {
            "FIREWALL_VPN_INPUT_PORTS": str(PORT),
            "FORWARDED_PORT_CLIENT": self.client.kind,
        }
        if self.client.user:
            environment["FORWARDED_PORT_CLIENT_USER"] = self.client.user
        directory = site.household.directory
        secrets = {
            "wireguard_private_key": site.gateway_keys[NUMBER].private,
            "forwarded_port_client_password": PASSWORD,
        }
        for name, text in secrets.items():
            temporary(directory, f"passing/{name}", text)
        site.engine.docker(
            *("run", "-d", "--name", self.gateway.name, "--cap-add", "NET_ADMIN"),
            *("--device", "/dev/net/tun", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0"),
            *("--network", UPLINK, "--ip", address.ipv4, "--ip6", address.ipv6),
            *("-v", f"{directory}/passing:/run/secrets:ro"),
            *(word for pair in environment.items() for word in ("-e", "=".join(pair))),
            PROJECT,
        )

    def start(self, image: str, name: str, *words: str) -> Box:
        """Start a container in the gateway's network, and return it."""
        box = Box(self.site.engine, name)
        self.boxes.append(box)
        directory = self.client.directory
        self.site.engine.docker(
            *("run", "-d", "-i", "--name", name, "--network", f"container:{self.gateway.name}"),
            *("-v", f"{directory}:{directory}", "-e", f"HOME={directory}", "-v", LAB_VOLUME),
            *("-e", "LC_ALL=C.UTF-8", image, *words),
        )
        return box

    def close(self) -> None:
        """Remove all of them."""
        for box in reversed(self.boxes):
            box.remove()


@pytest.fixture(params=sorted(CLIENTS))
def running(request: pytest.FixtureRequest, site: Site) -> Iterator[Set]:
    """Yield a gateway without its client."""
    found = Set(site, request.param)
    found.gateway.remove()
    try:
        found.start_gateway()
        found.gateway.wait_for_health("healthy")
        yield found
    finally:
        found.close()


def test_a_client_of_debian_13_gets_the_port(running: Set) -> None:
    """It listens at the tunnel's address. The control is the same call before."""
    workload = running.start(LAB, "caller", *PYTHON, "-c", "import sys; sys.stdin.read()")
    own = next(str(it.ip) for it in map(ip_interface, tunnel_address(NUMBER)) if it.version == 4)
    assert workload.probe("tcp", host=own, port=PORT).result == "refused"
    for number, command in enumerate(running.client.commands()):
        running.start(TORRENTS, f"client{number}", *command)
    eventually(
        lambda: running.gateway.events(event="port passed on", port=PORT),
        timeout=40,
        what=f"the port: {running.gateway.logs()}",
        interval=0.2,
    )
    assert workload.probe("tcp", host=own, port=PORT).result == "connected"
    assert PASSWORD not in running.gateway.logs()
