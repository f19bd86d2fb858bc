"""The pod of docs/layouts.md, with what only the site can know in it."""

import json
import re
import shlex
import time
from collections.abc import Sequence
from ipaddress import ip_address

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import LAB, ROOT
from tests.docker.project import NUMBER, gateway_environment
from tests.docker.site import HOST, UPLINK, Site, gateway_address, gateway_mac, temporary
from tests.lab.errors import LabError
from tests.lab.hosts import echo
from tests.lab.process import eventually

POD, INFRA, VAULT = "vpn", "vpn-infra", "vault"
PAGE = ROOT / "docs/layouts.md"
BLOCK = r"<!-- {} -->\n```\w+\n(.*?)```"


class PodSite(Site):
    """The same place with a Podman in the middle."""

    def bridge(self, network: str) -> str:
        """Return the machine's interface of one of Podman's networks."""
        return self.engine.docker(
            "network", "inspect", "--format", "{{.NetworkInterface}}", network
        ).strip()

    def run(self, name: str, *options: str, image: str = LAB, command: Sequence[str] = ()) -> Box:
        """Start a container; what shares the network of the pod is one of its containers.

        Another one at the same address has the same hardware address, as on Docker.
        """
        words = list(options)
        if "--ip" in words:
            octets = ip_address(words[words.index("--ip") + 1]).packed
            words += ["--mac-address", f"02:42:{octets.hex(':')}"]
        for at, word in enumerate(words):
            if word.startswith("container:") and word != f"container:{VAULT}":
                words[at - 1 : at + 1] = ["--pod", POD]
        return super().run(name, *words, image=image, command=command)


class Checked(Box):
    """A container whose health is asked for: without systemd, Podman does not ask by itself."""

    @property
    def health(self) -> str:
        """What the image's HEALTHCHECK says now."""
        try:
            self.engine.docker("healthcheck", "run", self.name)
        except LabError:
            return "unhealthy"
        return "healthy"

    def reported(self) -> str:
        """Return what the gateway says of itself."""
        return self.exec("gateway", "status", check=False)


class Pod:
    """The pod, made with the commands of the page."""

    block, owner = "podman", INFRA

    def __init__(self, site: Site) -> None:
        """Write the files that the commands name."""
        self.site = site
        self.anchor = Box(site.engine, self.owner)
        self.gateway = Checked(site.engine, "gateway")
        self.workload = Box(site.engine, "workload")
        directory = site.household.directory
        self._key = temporary(
            directory, "secrets/wireguard_private_key", site.gateway_keys[NUMBER].private
        )
        variables = gateway_environment(site, NUMBER)
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        self._variables = temporary(directory, "gateway.env", lines)

    def up(self) -> None:
        """Make and start the pod as the page says; returns when the gateway is healthy."""
        for words in self.commands():
            self.site.engine.docker(*words)
        self.gateway.wait_for_health("healthy", timeout=60)

    def create_flood(self, marker: str) -> None:
        """Add a container to the pod that sends without a pause as soon as it runs."""
        flood = (*PYTHON, "/lab/traffic.py", "flood", f"host4={HOST.ipv4}", f"host6={HOST.ipv6}")
        self.site.engine.docker(
            *("create", "-i", "--pod", POD, "--name", "flood", "-v", LAB_VOLUME, LAB),
            *(*flood, f"marker={marker}", "rate=200", "kinds=udp4,udp6,tcp4"),
        )

    def wait_for_flood(self, times: int) -> None:
        """Wait until the flood has been started so many times, and has sent for two seconds."""
        flood = Box(self.site.engine, "flood")
        eventually(lambda: flood.logs().count("ready") == times, timeout=20, what="the flood")
        time.sleep(2)

    def started_at(self, name: str) -> str:
        """Return when a container of the pod was started; times can be compared."""
        return Box(self.site.engine, name).inspect("{{.State.StartedAt}}")

    def recreate_gateway(self, **changes: str) -> None:
        """Replace the gateway's container by another with other variables."""
        self.gateway.remove()
        (words,) = (
            words for words in self.commands() if words[0] == "create" and "gateway" in words
        )
        added = [word for name, value in changes.items() for word in ("-e", f"{name}={value}")]
        self.site.engine.docker("create", *added, *words[1:])
        self.site.engine.docker("start", self.gateway.name)

    def down(self) -> None:
        """Remove all."""
        engine = self.site.engine
        engine.docker("pod", "rm", "-f", "-t", "1", POD, check=False)
        for box in (self.workload, self.gateway, self.anchor):
            box.remove()
        engine.docker("secret", "rm", "wireguard_private_key", check=False)
        eventually(lambda: not self.anchor.exists, timeout=20, what="the end of the pod")

    def commands(self) -> list[list[str]]:
        """Return the words of each command of the page, after `podman`."""
        (block,) = re.findall(BLOCK.format(self.block), PAGE.read_text("utf-8"), re.DOTALL)
        lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
        return [self._adapted(words) for words in lines if words]

    def _adapted(self, words: list[str]) -> list[str]:
        given = {
            "secrets/wireguard_private_key": str(self._key),
            "gateway.env": str(self._variables),
        }
        program, *words = [given.get(word, word) for word in words]
        if program != "podman":
            raise LabError(f"not a command of Podman: {program}")
        address = gateway_address(NUMBER)
        place = ["--network", UPLINK, "--mac-address", gateway_mac(NUMBER)]
        place += ["--ip", address.ipv4, "--ip6", address.ipv6]
        match words:
            case ["pod", "create", *rest]:
                return ["pod", "create", *place, "--infra-name", INFRA, *rest]
            case ["create", *rest] if self.workload.name in rest:
                served = [*PYTHON, "/lab/services.py", json.dumps([echo("0.0.0.0", 80)])]
                return ["create", "-i", "-v", LAB_VOLUME, *rest[:-1], LAB, *served]
            case ["create", *rest] if self.owner == VAULT and self.gateway.name in rest:
                return ["create", *place, *rest]
        return words


class Vault(Pod):
    """The vault, made with the commands of the page: three containers without a pod."""

    block, owner = "podman-vault", VAULT
