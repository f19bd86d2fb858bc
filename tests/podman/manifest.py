"""The manifest of docs/layouts.md, as Podman 4.3 understands it."""

import json
import re
from typing import Any

import yaml

from tests.docker.box import LAB_DIRECTORY, PYTHON, Box
from tests.docker.images import LAB
from tests.docker.project import NUMBER, gateway_environment
from tests.docker.site import UPLINK, Site, gateway_address, gateway_mac, temporary
from tests.lab.errors import LabError
from tests.lab.hosts import echo
from tests.podman.pod import BLOCK, PAGE, POD, Checked

PROBES = ("startupProbe", "livenessProbe")


def documents(name: str) -> list[dict[str, Any]]:
    """Return the documents of a block of the page."""
    (block,) = re.findall(BLOCK.format(name), PAGE.read_text("utf-8"), re.DOTALL)
    return list(yaml.safe_load_all(block))


class Probed(Checked):
    """A container whose health is asked for by hand: `kube play` ignores the image's check."""

    @property
    def health(self) -> str:
        """What the command of the manifest's startup probe says now."""
        (sidecar,) = documents("pod")[1]["spec"]["initContainers"]
        try:
            self.exec(*sidecar["startupProbe"]["exec"]["command"])
        except LabError:
            return "unhealthy"
        return "healthy"


class Manifest:
    """The pod, made by `podman kube play`."""

    def __init__(self, site: Site) -> None:
        """Change the manifest as the page says, and write it to a file."""
        self.site = site
        self.gateway = Probed(site.engine, f"{POD}-gateway")
        self.workload = Box(site.engine, f"{POD}-workload")
        _, self.pod = documents("pod")
        (self.sidecar,) = self.pod["spec"]["initContainers"]
        (changed,) = documents("close")
        self.pod["metadata"] = changed["metadata"]
        self.pod["spec"] |= changed["spec"]
        self._place()
        directory = site.household.directory
        key = temporary(
            directory, "played/wireguard_private_key", site.gateway_keys[NUMBER].private
        )
        secrets, _, _ = self.pod["spec"]["volumes"]
        secrets["hostPath"]["path"] = str(key.parent)
        self._file = temporary(directory, "pod.yaml", json.dumps(self.pod))

    @property
    def anchor(self) -> Box:
        """The infra container."""
        name = self.site.engine.docker("pod", "inspect", "--format", "{{.InfraContainerID}}", POD)
        return Box(self.site.engine, name.strip())

    def up(self) -> None:
        """Play it; returns when the gateway is healthy."""
        address = gateway_address(NUMBER)
        where = f"{UPLINK}:ip={address.ipv4},ip={address.ipv6},mac={gateway_mac(NUMBER)}"
        self.site.engine.docker("kube", "play", "--network", where, str(self._file))
        self.gateway.wait_for_health("healthy", timeout=60)

    def down(self) -> None:
        """Remove all."""
        self.site.engine.docker("kube", "down", str(self._file), check=False)
        self.site.engine.docker("pod", "rm", "-f", "-t", "1", POD, check=False)

    def _place(self) -> None:
        spec = self.pod["spec"]
        gateway = {key: it for key, it in self.sidecar.items() if key not in PROBES}
        del gateway["restartPolicy"]
        variables = gateway_environment(self.site, NUMBER)
        gateway["env"] = [{"name": name, "value": value} for name, value in variables.items()]
        (workload,) = spec["containers"]
        workload |= {
            "image": LAB,
            # Podman 4.3 ignores `stdin: true`, and the services end with their standard input.
            "command": ["sh", "-c", 'sleep infinity | "$@"', "sh", *PYTHON],
            "args": ["/lab/services.py", json.dumps([echo("0.0.0.0", 80)])],
            "volumeMounts": [{"name": "lab", "mountPath": "/lab", "readOnly": True}],
        }
        spec["containers"] = [gateway, workload]
        spec["volumes"].append({"name": "lab", "hostPath": {"path": str(LAB_DIRECTORY)}})
