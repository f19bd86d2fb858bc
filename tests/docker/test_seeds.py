"""The set-ups that people come from start on an engine with nothing changed but the image's name.

The site plays the provider: its list over TLS, its WireGuard on its port, its preshared key. What
is merged over a user's file is only what this machine is: its network, its resolver for an engine
before version 26, its /dev/net/tun for a kernel without WireGuard, and workloads that it has.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import LAB, PROJECT
from tests.docker.site import (
    DOCKER_RESOLVER,
    EXIT,
    HOST,
    PROVIDERS,
    SERVER,
    UPLINK,
    UPLINK_NETWORKS,
    Site,
    is_link_setup,
)
from tests.lab.errors import LabError
from tests.lab.frames import Frame, addressed_to, is_neighbour_discovery, leaks, wireguard_to
from tests.lab.lists import mullvad_of
from tests.lab.process import run
from tests.lab.tls import Authority, authority

pytestmark = pytest.mark.docker

SEEDS = Path(__file__).parent / "seeds"
IMAGE = "portcullis-of-the-site"
"""The project's image on a machine that trusts the authority of the test, for AirVPN's real key."""
FORMER = re.compile(r"image: (qmcgaw/gluetun|lscr\.io/linuxserver/wireguard)\S*")

PRIVATE = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
PRESHARED = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
IN_A_FILE = ("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "203.0.113.178:51820")
"""The server's key and endpoint in the file of a seed, which become those of the site."""
PINGED = "1.1.1.1"
"""What a seed's own health check pings."""


@dataclass(frozen=True)
class Seed:
    """One set-up: its services, the user's address in the tunnel, and the server's port."""

    gateway: str
    workload: str
    address: str
    port: int = 51820
    preshared: str = ""
    variables: dict[str, str] = field(default_factory=dict)


ALL = {
    "mullvad-countries": Seed("gluetun", "client", "10.64.7.21"),
    "airvpn-names": Seed(
        "gluetun", "client", "10.191.4.14", 1637, PRESHARED,
        {"WG_PRIVATE_KEY": PRIVATE, "WG_PRESHARED_KEY": PRESHARED, "VPN_SERVERS": "Alchiba"},
    ),
    "linuxserver-script": Seed("wireguard", "tracker", "10.64.114.7"),
}  # fmt: skip


def airvpn() -> bytes:
    """Return AirVPN's list of the site's server."""
    server = {
        "public_name": "Alchiba",
        "country_name": "Netherlands",
        "country_code": "nl",
        "location": "Alblasserdam",
        "continent": "Europe",
        "ip_v4_in1": SERVER.ipv4,
        "health": "ok",
    }
    return json.dumps({"servers": [server]}).encode()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority of the providers' certificates."""
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def providers(
    site: Site, trusted: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Box]]:
    """Serve the lists, and build the image of a machine that trusts their certificates."""
    folder = tmp_path_factory.mktemp("provider")
    shutil.copy(trusted.certificate, folder / "authority.crt")
    (folder / "Dockerfile").write_text(
        f"FROM {PROJECT}\nCOPY authority.crt /usr/local/share/ca-certificates/\n"
        f"RUN update-ca-certificates\nENV WIREGUARD_PUBLIC_KEY={site.server_keys.public}\n"
    )
    site.engine.docker("build", "-t", IMAGE, str(folder), timeout=120)
    lists = {
        "api.mullvad.net": mullvad_of([(SERVER.ipv4, "", site.server_keys.public)]),
        "airvpn.org": airvpn(),
    }
    boxes = []
    for name, body in lists.items():
        (folder / name).write_bytes(body)
        shutil.copy(trusted.issue(name), folder / f"{name}.pem")
        wanted = {
            "address": PROVIDERS[name],
            "port": 443,
            "certificate": f"/lists/{name}.pem",
            "body": f"/lists/{name}",
            "manner": "well",
        }
        boxes.append(
            site.run(
                *(f"lists-{name}", "-v", LAB_VOLUME, "-v", f"{folder}:/lists:ro"),
                *("--network", UPLINK, "--ip", PROVIDERS[name]),
                command=[*PYTHON, "/lab/list_server.py", json.dumps(wanted)],
            )
        )
    yield boxes
    for box in boxes:
        box.remove()


class SetUp:
    """A user's set-up in a directory of its own, up and running."""

    def __init__(self, site: Site, name: str, directory: Path) -> None:
        """Copy the user's files, with another image and the keys of the site's server."""
        self.site = site
        self.name = name
        self.seed = ALL[name]
        self.directory = directory / name
        shutil.copytree(SEEDS / name, self.directory)
        compose = self.directory / "compose.yml"
        compose.write_text(FORMER.sub(f"image: {IMAGE}", compose.read_text("utf-8")), "utf-8")
        for file in self.directory.rglob("*.conf"):
            key, endpoint = IN_A_FILE
            text = file.read_text("utf-8").replace(key, site.server_keys.public)
            file.write_text(text.replace(endpoint, f"{SERVER.ipv4}:51820"), "utf-8")
        lines = (f"{name}={value}\n" for name, value in self.seed.variables.items())
        (self.directory / ".env").write_text("".join(lines))
        machine = self._machine()
        (self.directory / "machine.json").write_text(json.dumps(machine))
        alone = {"services": {self.seed.gateway: machine["services"][self.seed.gateway]}}
        (self.directory / "gateway.json").write_text(json.dumps(machine | alone))
        given = yaml.safe_load(compose.read_text("utf-8"))
        part = {self.seed.gateway: given["services"][self.seed.gateway]}
        (self.directory / "gateway.yml").write_text(yaml.safe_dump({"services": part}))
        self.gateway = Box(site.engine, self._container(self.seed.gateway))
        self.workload = Box(site.engine, self._container(self.seed.workload))

    def _container(self, service: str) -> str:
        named = re.findall(r"container_name: (\w+)", (self.directory / "compose.yml").read_text())
        return service if service in named else f"seed_{service}_1"

    def _machine(self) -> dict[str, dict[str, Any]]:
        """Return what is merged over the user's file: what this machine is."""
        services: dict[str, dict[str, object]] = {
            self.seed.gateway: {
                "devices": ["/dev/net/tun:/dev/net/tun"],
                # Docker before version 26 asks from inside (docs/known-issues.md).
                "environment": {"WIREGUARD_ENDPOINT_RESOLVER": DOCKER_RESOLVER},
            },
            self.seed.workload: {
                "image": LAB,
                "entrypoint": ["sleep", "infinity"],
                "volumes": [LAB_VOLUME],
            },
        }
        network = {"default": {"external": True, "name": UPLINK}}
        return {"services": services, "networks": network}

    def admit(self) -> None:
        """Let the site's server know the user, at the port of the provider."""
        public = run(["wg", "pubkey"], stdin=PRIVATE).strip()
        secret = (
            f"echo {self.seed.preshared} > /tmp/psk;" if self.seed.preshared else ": > /tmp/psk;"
        )
        self.site.server.exec(
            *("sh", "-ec"),
            f"{secret} wg set wg0 peer {public} preshared-key /tmp/psk"
            f" allowed-ips {self.seed.address}/32;"
            f" ip route replace {self.seed.address} dev wg0;"
            f" ip addr replace {PINGED}/32 dev lo;"
            " nft add table inet port; nft flush table inet port;"
            " nft add chain inet port in '{ type nat hook prerouting priority -100; }';"
            f" nft add rule inet port in udp dport {self.seed.port} redirect to :51820",
        )

    def up(self) -> None:
        """Start all, as a user does.

        docker-compose 1 reads a file with `network_mode: container:` only once that container is
        there. Compose 2 makes it first; here the other services are left out at first.
        """
        self.compose("up", "-d", file="gateway.yml")
        self.compose("up", "-d")

    def compose(self, *words: str, file: str = "compose.yml", timeout: float = 90) -> None:
        """Run docker-compose on the user's file, or on a part of it."""
        machine = "machine.json" if file == "compose.yml" else "gateway.json"
        self.site.engine.compose(
            *("-f", file, "-f", machine, "-p", "seed", *words),
            cwd=self.directory,
            timeout=timeout,
        )


@pytest.fixture(params=ALL)
def set_up(
    request: pytest.FixtureRequest, site: Site, providers: list[Box], tmp_path: Path
) -> Iterator[SetUp]:
    """Yield each set-up, before it is started."""
    del providers
    made = SetUp(site, request.param, tmp_path)
    made.admit()
    yield made
    made.workload.remove()
    made.gateway.remove()
    public = run(["wg", "pubkey"], stdin=PRIVATE).strip()
    site.server.exec("wg", "set", "wg0", "peer", public, "remove")


def test_a_set_up_starts_with_another_image(set_up: SetUp) -> None:
    """The workload waits for a healthy gateway, and leaves by the server.

    The uplink carries the encrypted flow, the connection for the list, and nothing else of it.
    """
    site = set_up.site
    capture = site.capture_network(UPLINK)
    try:
        set_up.up()
    except LabError as error:
        raise LabError(f"{error}\n{set_up.gateway.logs()}") from error
    assert set_up.gateway.health == "healthy"
    assert set_up.workload.state == "running"
    seen = set_up.workload.probe("tcp", host=HOST.ipv4)
    assert seen.seen == EXIT.ipv4, set_up.gateway.logs()
    networks = "{{range .NetworkSettings.Networks}}%s{{end}}"
    mac = set_up.gateway.inspect(networks % "{{.MacAddress}}")
    address = set_up.gateway.inspect(networks % "{{.IPAddress}} {{.GlobalIPv6Address}}").split()
    own = [frame for frame in capture.frames() if frame.source_mac == mac]
    flow = wireguard_to(SERVER.ipv4, set_up.seed.port)
    assert any(map(flow, own)), "control: the encrypted flow is seen"
    asked = [addressed_to(address) for address in (DOCKER_RESOLVER, *PROVIDERS.values())]

    def neighbour(frame: Frame) -> bool:
        return is_neighbour_discovery(frame, set(address), UPLINK_NETWORKS)

    assert leaks(own, [flow, *asked, is_link_setup, neighbour]) == []
