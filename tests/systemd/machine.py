"""A machine with systemd as process 1, the gateway in /opt/portcullis, and Podman 5: one container.

It runs on the Docker Engine of tests/docker, next to the server, with the capabilities that systemd
and Podman take. It has a cgroup hierarchy of version 2 of its own, without controllers, whatever
the machine under it has.
"""

import re
import shlex
from pathlib import Path

from tests.docker.box import Box
from tests.docker.engine import Engine
from tests.docker.images import LAB, PROJECT, ROOT, proxies
from tests.docker.project import NUMBER
from tests.docker.site import INSIDE, PORT, SERVER, UPLINK, Site, gateway_address, tunnel_address
from tests.lab.errors import LabError
from tests.lab.frames import Frame
from tests.lab.process import eventually

MACHINE = "portcullis-machine"
PAGES = ROOT / "docs"
SOMEONE = "someone"
"""A user of the machine who is not root."""

DOCKERFILE = f"""
    FROM {LAB}
    RUN apt-get update && apt-get install -y --no-install-recommends \\
            aardvark-dns catatonit crun dbus kubernetes-client netavark passt podman slirp4netns \\
            systemd uidmap \\
        && rm -f /etc/systemd/system/multi-user.target.wants/unbound.service \\
        && useradd --create-home --uid 1000 {SOMEONE} \\
        && printf '[containers]\\npids_limit = 0\\n' >/etc/containers/containers.conf
    ENTRYPOINT []
"""
_CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "DAC_READ_SEARCH")
_UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
_BOOT = """
set -e
mkdir /group
mount -t cgroup2 cgroup2 /group
mkdir -p "/group/$1/machine"
echo $$ >"/group/$1/machine/cgroup.procs"
umount /group
exec unshare --cgroup sh -ec '
    umount -R /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs /run
    exec env -i container=docker PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
'
"""


def build(engine: Engine) -> None:
    """Build the machine's image on an engine that has built all others and has a network."""
    engine.docker(
        *("build", "--network=host", *proxies(), "-t", MACHINE, "-"),
        stdin=DOCKERFILE,
        timeout=400,
    )


class Machine(Box):
    """The machine, by its container."""

    def up(self, site: Site, archive: Path) -> None:
        """Start it with the images in `archive` in reach; returns when systemd runs."""
        address = gateway_address(NUMBER)
        options = [f"--cap-add={name}" for name in _CAPABILITIES]
        options += [f"--security-opt={name}" for name in _UNCONFINED]
        site.run(
            self.name,
            *options,
            *("--network", UPLINK, "--ip", address.ipv4, "--ip6", address.ipv6),
            *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0"),
            *("--device", "/dev/net/tun", "--device", "/dev/fuse"),
            *("-v", "/var/lib/containers", "-v", f"/home/{SOMEONE}/.local"),
            *("-v", f"{ROOT}:/project:ro", "-v", f"{archive}:/images.tar:ro"),
            *("-v", f"{ROOT}/tests/lab:/lab:ro", "-w", "/project"),
            image=MACHINE,
            command=["sh", "-c", _BOOT, "sh", self.engine.cgroup],
        )
        eventually(self._runs, timeout=60, what="systemd", interval=0.2)

    def load(self) -> None:
        """Load the images into root's Podman."""
        if PROJECT not in self.exec("podman", "images"):
            self.engine.docker(
                "exec", self.name, "podman", "load", "-q", "-i", "/images.tar", timeout=300
            )

    def shell(self, script: str) -> str:
        """Run commands as root, in the clone; the first that fails is a LabError."""
        return self.exec("sh", "-ec", script)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        place = shlex.quote(path)
        self.engine.docker(
            *("exec", "-i", self.name, "sh", "-ec"),
            f'mkdir -p "$(dirname {place})"; cat >{place}; chmod {mode:o} {place}',
            stdin=text,
        )

    def start(self, *units: str) -> None:
        """Start units; LabError with the journal where that fails."""
        try:
            self.engine.docker("exec", self.name, "systemctl", "start", *units, timeout=120)
        except LabError as err:
            journal = self.exec("journalctl", "--no-pager", "-n", "60")
            raise LabError(f"{err}\n{journal}") from err

    def active(self, unit: str) -> bool:
        """Return whether a unit is active."""
        return self.exec("systemctl", "is-active", unit, check=False).strip() == "active"

    def started(self, unit: str) -> str:
        """Return the id of the unit's present run."""
        return self.exec("systemctl", "show", "-p", "InvocationID", "--value", unit).strip()

    def _runs(self) -> bool:
        said = self.exec("systemctl", "is-system-running", check=False)
        return said.strip() in {"running", "degraded"}


def install_units(machine: Machine) -> None:
    """Install the units of docs/host.md with the commands of the page, but for what is there."""
    there = ("apt ", "python3 -m venv", "/opt/portcullis/bin/pip")
    lines = block("host.md", "install").splitlines()
    machine.shell("\n".join(line for line in lines if not line.startswith(there)))


def write_tunnel(machine: Machine, site: Site, path: str) -> None:
    """Write a wg-quick file for the server."""
    text = (
        f"[Interface]\nPrivateKey = {site.gateway_keys[NUMBER].private}\n"
        f"Address = {', '.join(tunnel_address(NUMBER))}\nDNS = {INSIDE.ipv4}\n"
        f"[Peer]\nPublicKey = {site.server_keys.public}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
        f"Endpoint = {SERVER.ipv4}:{PORT}\n"
    )
    machine.write(path, text, 0o600)


def answers(site: Site, port: int) -> bool:
    """Return whether a port of the machine is answered, asked from outside."""
    address = gateway_address(NUMBER).ipv4
    try:
        return site.machine.probe("tcp", host=address, port=port, timeout=3).seen is not None
    except LabError:
        return False


def refused_by_the_machine(frame: Frame) -> bool:
    """Return whether the machine's kernel answers the server, whose client has gone for now.

    The server's packets come to a port that no translation leads on from: ICMP type 3.
    """
    return frame.icmp_type == 3 and frame.destination == SERVER.ipv4


def block(page: str, name: str) -> str:
    """Return a block of a page of the documentation."""
    (found,) = re.findall(
        rf"<!-- {name} -->\n```\w+\n(.*?)```", (PAGES / page).read_text("utf-8"), re.DOTALL
    )
    return str(found)
