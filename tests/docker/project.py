"""compose.example.yml as it is, with what only the site can know merged over it."""

import json

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import LAB, PROJECT, ROOT
from tests.docker.site import (
    INSIDE,
    LAN,
    PORT,
    SERVER,
    UPLINK,
    Site,
    gateway_address,
    gateway_mac,
    temporary,
    tunnel_address,
)
from tests.lab.errors import LabError
from tests.lab.hosts import echo

NUMBER = 0
"""Which of the site's gateways the project is."""
OFTEN = "--health-interval=1s"
"""For `docker run` where the interval of the image is not what is tested."""
PUBLISHED, UNLISTED = 8080, 8081
"""Ports of the machine: one leads to a listed input port, one to a port that is not listed."""


def gateway_environment(site: Site, number: int) -> dict[str, str]:
    """Return the variables of gateway `number`, without its private key."""
    return {
        "WIREGUARD_ENDPOINT_IP": SERVER.ipv4,
        "WIREGUARD_ENDPOINT_PORT": str(PORT),
        "WIREGUARD_PUBLIC_KEY": site.server_keys.public,
        "WIREGUARD_ADDRESSES": ",".join(tunnel_address(number)),
        "DNS_ADDRESS": INSIDE.ipv4,
        "FIREWALL_OUTBOUND_SUBNETS": LAN,
        "FIREWALL_INPUT_PORTS": "80/tcp",
    }


class Project:
    """The gateway and the workload of the example."""

    def __init__(self, site: Site) -> None:
        """Write what is merged over the example, and the secret, to a directory of its own."""
        self.site = site
        self.gateway = Box(site.engine, "gateway")
        self.workload = Box(site.engine, "workload")
        self.directory = site.household.directory / "project"
        temporary(
            self.directory, "secrets/wireguard_private_key", site.gateway_keys[NUMBER].private
        )
        self._override = temporary(self.directory, "override.json", json.dumps(self._merged()))

    def up(self, timeout: float = 120) -> None:
        """Start both as a user does; returns when `docker-compose up` does.

        Raises LabError when that takes longer than `timeout` seconds.
        """
        try:
            self._compose("up", "-d", timeout=timeout)
        except LabError as err:
            raise LabError(f"{err}\nthe gateway says:\n{self.gateway.logs()}") from err

    def down(self) -> None:
        """Remove both."""
        self._compose("down", "-t", "2")

    def ensure_running(self) -> None:
        """Make sure that gateway and workload run in one namespace, and the tunnel works."""
        self.site.restore()
        if self.gateway.state != "running":
            self.site.engine.docker("start", self.gateway.name)
        self.gateway.wait_for_health("healthy")
        self.site.engine.docker("restart", "-t", "0", self.workload.name)

    def _compose(self, *words: str, timeout: float = 120) -> None:
        self.site.engine.compose(
            *("-f", str(ROOT / "compose.example.yml"), "-f", str(self._override)),
            *("--project-directory", str(self.directory), "-p", "example", *words),
            cwd=self.directory,
            timeout=timeout,
        )

    def _merged(self) -> dict[str, object]:
        address = gateway_address(NUMBER)
        listed = [echo("0.0.0.0", 80), echo("0.0.0.0", 81)]
        return {
            "services": {
                "gateway": {
                    "image": PROJECT,
                    "container_name": self.gateway.name,
                    "environment": gateway_environment(self.site, NUMBER),
                    "mac_address": gateway_mac(NUMBER),
                    "networks": {
                        "default": {"ipv4_address": address.ipv4, "ipv6_address": address.ipv6}
                    },
                    "ports": [f"{UNLISTED}:81/tcp"],
                },
                "workload": {
                    "image": LAB,
                    "container_name": self.workload.name,
                    "entrypoint": [*PYTHON, "/lab/services.py", json.dumps(listed)],
                    "stdin_open": True,
                    "volumes": [LAB_VOLUME],
                },
            },
            "networks": {"default": {"external": True, "name": UPLINK}},
        }
