"""compose.example.yml as it is, with what only the site can know merged over it."""

import json
import re

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
        "LOG_FORMAT": "json",
        "FIREWALL_OUTBOUND_SUBNETS": LAN,
        "FIREWALL_INPUT_PORTS": "80/tcp",
    }


EXAMPLE = ROOT / "compose.example.yml"
BLOCK = r"<!-- {} -->\n```yaml\n(.*?)```"
"""A block of docs/layouts.md, by the name of its layout."""


class Project:
    """The anchor, the gateway and the workload of the example; or another layout.

    `anchor` is what has the workload's namespace: the vault of a `vault`; a `pair` has none.
    """

    def __init__(self, site: Site, layout: str = "anchor") -> None:
        """Write what is merged over the example, and the secret, to a directory of its own."""
        self.site = site
        self.layout = layout
        self.anchor = Box(site.engine, layout)
        self.gateway = Box(site.engine, "gateway")
        self.workload = Box(site.engine, "workload")
        self.directory = site.household.directory / "project"
        temporary(
            self.directory, "secrets/wireguard_private_key", site.gateway_keys[NUMBER].private
        )
        self._file = EXAMPLE
        if layout != "anchor":
            text = (ROOT / "docs/layouts.md").read_text(encoding="utf-8")
            (block,) = re.findall(BLOCK.format(layout), text, re.DOTALL)
            self._file = temporary(self.directory, f"{layout}.yml", block)
        self._merge({})

    def up(self, timeout: float = 120) -> None:
        """Start all as a user does; returns when `docker-compose up` does.

        Raises LabError when that takes longer than `timeout` seconds.
        """
        try:
            self._compose("up", "-d", timeout=timeout)
        except LabError as err:
            raise LabError(f"{err}\nthe gateway says:\n{self.gateway.logs()}") from err

    def change_gateway(self, **changes: object) -> None:
        """Change the gateway's service and let Compose put it into effect, and nothing else.

        Without changes, the service is again as it was at first.
        """
        self._merge(changes)
        self._compose("up", "-d", "--no-deps", "gateway")

    def down(self) -> None:
        """Remove all."""
        self._compose("down", "-t", "2")

    def ensure_running(self) -> None:
        """Make sure that all run, and the tunnel works."""
        self.site.restore()
        for box in (self.anchor, self.gateway, self.workload):
            if box.state != "running":
                self.site.engine.docker("start", box.name)
        self.gateway.wait_for_health("healthy")

    def _compose(self, *words: str, timeout: float = 120) -> None:
        self.site.engine.compose(
            *("-f", str(self._file), "-f", str(self._override)),
            *("--project-directory", str(self.directory), "-p", "example", *words),
            cwd=self.directory,
            timeout=timeout,
        )

    def _merge(self, changes: dict[str, object]) -> None:
        text = json.dumps(self._merged(changes))
        self._override = temporary(self.directory, f"{self.layout}-override.json", text)

    def _merged(self, changes: dict[str, object]) -> dict[str, object]:
        address = gateway_address(NUMBER)
        listed = [echo("0.0.0.0", 80), echo("0.0.0.0", 81)]
        services: dict[str, dict[str, object]] = {
            "gateway": {
                "image": PROJECT,
                "container_name": self.gateway.name,
                "environment": gateway_environment(self.site, NUMBER),
                **changes,
            },
            "workload": {
                "image": LAB,
                "container_name": self.workload.name,
                "entrypoint": [*PYTHON, "/lab/services.py", json.dumps(listed)],
                "stdin_open": True,
                "volumes": [LAB_VOLUME],
            },
        }
        if self.layout != "pair":
            services[self.layout] = {"image": PROJECT, "container_name": self.anchor.name}
        services["anchor" if self.layout == "anchor" else "gateway"] |= {
            "mac_address": gateway_mac(NUMBER),
            "networks": {"default": {"ipv4_address": address.ipv4, "ipv6_address": address.ipv6}},
            "ports": [f"{UNLISTED}:81/tcp"],
        }
        return {
            "services": services,
            "networks": {"default": {"external": True, "name": UPLINK}},
        }
