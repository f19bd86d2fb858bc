"""A user's set-up on the site: the files as they are, with another image and this machine's own.

What is merged over them is only what the machine is: its networks, its resolver for an engine
before version 26, its /dev/net/tun for a kernel without WireGuard, and workloads that it has.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.engine import call
from tests.docker.hosts import LISTS
from tests.docker.images import LAB, ROOT
from tests.docker.providers import IMAGE, customer
from tests.docker.site import (
    DOCKER_RESOLVER,
    SERVER,
    UPLINK,
    UPLINK_NETWORKS,
    Site,
    is_link_setup,
)
from tests.lab.errors import LabError
from tests.lab.frames import Frame, addressed_to, is_neighbour_discovery, leaks, wireguard_to
from tests.lab.hosts import echo

FORMER = re.compile(r"image: \S*(?:gluetun|wireguard|portcullis)\S*")
"""The images that become the gateway, and its own."""
IN_A_FILE = ("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "203.0.113.178")
"""The server's key and address in the files of a set-up, which become those of the site."""
MIGRATED = "migrated.yml"
TEXTS = {".yml", ".conf", ".env", ".txt"}
"""Endings of the files in which they are replaced."""


def remove(site: Site, boxes: Sequence[Box]) -> None:
    """Remove containers, if they are there."""
    names = dict.fromkeys(box.name for box in boxes)
    there = set(site.engine.docker("ps", "-a", "--format", "{{.Names}}").split())
    if found := [name for name in names if name in there]:
        site.engine.docker("rm", "-f", *found, timeout=120)


@dataclass(frozen=True)
class Kind:
    """One set-up: its services, the user's key and address in the tunnel, the server's port.

    `provider` is whose list it asks for, if any; `owner` has the network, if it is not the gateway.
    `ports` are those of the workload that people reach, by their ports on the machine, and
    `serves` what it serves there; `networks` are the project's, each with its name here.
    `variables` are added to the user's `.env`, `environment` to the gateway's own variables.
    """

    gateway: str
    workload: str
    private: str
    address: str
    port: int = 51820
    preshared: str = ""
    provider: str = ""
    owner: str = ""
    ports: dict[int, int] = field(default_factory=dict)
    serves: Callable[[str, int], dict[str, Any]] = echo
    networks: dict[str, str] = field(default_factory=lambda: {"default": UPLINK})
    variables: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


class SetUp:
    """A user's set-up in a directory of its own."""

    def __init__(self, site: Site, kind: Kind, source: Path, directory: Path) -> None:
        """Copy the user's files, with another image and the key and address of the site."""
        self.site = site
        self.kind = kind
        self.name = source.name
        self.directory = directory / self.name
        shutil.copytree(source, self.directory)
        for file in self.directory.rglob("*"):
            if file.is_file() and (file.suffix in TEXTS or file.name == ".env"):
                text = FORMER.sub(f"image: {IMAGE}", file.read_text("utf-8"))
                for former, own in zip(
                    IN_A_FILE, (site.server_keys.public, SERVER.ipv4), strict=True
                ):
                    text = text.replace(former, own)
                file.write_text(text, "utf-8")
        with (self.directory / ".env").open("a", encoding="utf-8") as variables:
            variables.writelines(f"{name}={value}\n" for name, value in kind.variables.items())
        machine = self._machine()
        (self.directory / "machine.json").write_text(json.dumps(machine))
        self.gateway = Box(site.engine, self._container(kind.gateway))
        self.workload = Box(site.engine, self._container(kind.workload))
        self.owner = Box(site.engine, self._container(kind.owner)) if kind.owner else self.gateway

    def _container(self, service: str) -> str:
        named = re.findall(r"container_name: (\w+)", (self.directory / "compose.yml").read_text())
        return service if service in named else f"{self.name}-{service}"

    def _machine(self) -> dict[str, Any]:
        """Return what is merged over the user's file: what this machine is."""
        listed = [self.kind.serves("0.0.0.0", port) for port in self.kind.ports.values()]
        services: dict[str, dict[str, object]] = {
            self.kind.gateway: {
                "container_name": self._container(self.kind.gateway),
                "devices": ["/dev/net/tun:/dev/net/tun"],
                # Docker before version 26 asks from inside (docs/known-issues.md).
                "environment": {
                    "WIREGUARD_ENDPOINT_RESOLVER": DOCKER_RESOLVER,
                    **self.kind.environment,
                },
            },
            self.kind.workload: {
                "container_name": self._container(self.kind.workload),
                "image": LAB,
                "entrypoint": [*PYTHON, "/lab/services.py", json.dumps(listed)],
                "stdin_open": True,
                "volumes": [LAB_VOLUME],
            },
        }
        if self.kind.owner:
            services[self.kind.owner] = {"container_name": self._container(self.kind.owner)}
        networks = {
            name: {"external": True, "name": here} for name, here in self.kind.networks.items()
        }
        return {"services": services, "networks": networks}

    def admitted(self) -> AbstractContextManager[None]:
        """Let the site's server know the user meanwhile."""
        kind = self.kind
        return customer(self.site, kind.private, kind.address, kind.preshared)

    @property
    def boxes(self) -> Sequence[Box]:
        """The containers, the workload first."""
        return self.workload, self.gateway, self.owner

    def up(self, file: str = "compose.yml") -> None:
        """Start all, as a user does.

        docker-compose 1 reads a file with `network_mode: container:` only once that container is
        there. Compose 2 makes it first; here the other services are left out at first.
        """
        text = (self.directory / file).read_text("utf-8")
        try:
            if "container:" in text.replace("container_name:", ""):
                given = yaml.safe_load(text)["services"]
                machine = self._machine()
                part = {"services": {self.kind.gateway: given[self.kind.gateway]}}
                own = {"services": {self.kind.gateway: machine["services"][self.kind.gateway]}}
                (self.directory / "gateway.yml").write_text(yaml.safe_dump(part))
                (self.directory / "gateway.json").write_text(json.dumps(machine | own))
                self._compose("gateway.yml", "gateway.json")
            self._compose(file, "machine.json")
        except LabError as error:
            raise LabError(f"{error}\n{self.gateway.logs()}") from error

    def _compose(self, file: str, machine: str) -> None:
        self.site.engine.compose(
            *("-f", file, "-f", machine, "-p", self.name, "up", "-d"),
            cwd=self.directory,
            timeout=90,
        )

    def check(self, *words: str, file: str = "compose.yml") -> str:
        """Return what `gateway check` prints about the user's file, on standard output alone."""
        argv = [sys.executable, "-m", "gateway", "check", "--compose", file]
        ask = [*argv, "--service", self.kind.gateway, *words]
        return call(
            ["sh", "-c", '"$@" 2> messages', "sh", *ask],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            cwd=self.directory,
        )

    def migrate(self) -> str:
        """Write what `gateway check --migrate` makes of the user's file to MIGRATED."""
        text = self.check("--migrate")
        given = re.sub(r"image: portcullis$", f"image: {IMAGE}", text, flags=re.MULTILINE)
        (self.directory / MIGRATED).write_text(given, "utf-8")
        return text

    def on(self, network: str, field: str) -> str:
        """Return a field of the gateway's place on a network, such as its MacAddress."""
        return self.owner.inspect(f"{{{{.NetworkSettings.Networks.{network}.{field}}}}}")

    def leaks(self, frames: list[Frame], *allowed: str) -> list[Frame]:
        """Return what the gateway sent besides the encrypted flow and the questions of its start.

        Nothing sent to an address in `allowed` counts. Raises LabError when not even the encrypted
        flow was seen: the capture would prove nothing.
        """
        mac = self.on(UPLINK, "MacAddress")
        own = [frame for frame in frames if frame.source_mac == mac]
        flow = wireguard_to(SERVER.ipv4, self.kind.port)
        if not any(map(flow, own)):
            raise LabError(f"the capture did not see the encrypted flow of {self.name}")
        asked = (DOCKER_RESOLVER, LISTS[self.kind.provider][1]) if self.kind.provider else ()
        addresses = {self.on(UPLINK, name) for name in ("IPAddress", "GlobalIPv6Address")}

        def neighbour(frame: Frame) -> bool:
            return is_neighbour_discovery(frame, addresses, UPLINK_NETWORKS)

        return leaks(own, [flow, *map(addressed_to, (*asked, *allowed)), is_link_setup, neighbour])
