"""Podman without root: the tunnel, and which published ports answer with each kind of network.

Podman publishes ports of a rootless container with a process in its network namespace, unless the
network itself passes them on. That process connects to the container from inside, over loopback,
which the gateway never closes.
"""

import json
import re

import pytest

from tests.docker.box import PYTHON
from tests.docker.images import LAB, PROJECT
from tests.docker.project import NUMBER, gateway_environment
from tests.docker.site import EXIT, HOST, UPLINK_ROUTER, Site, gateway_address
from tests.lab.errors import LabError
from tests.lab.hosts import echo
from tests.lab.process import eventually
from tests.lab.workload import Workload
from tests.systemd.machine import PAGES, SOMEONE, Machine

pytestmark = pytest.mark.systemd

LISTED, UNLISTED = 8080, 8081
RUNTIME = "/run/user/1000"
SETTINGS = """
[containers]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

ROW = re.compile(r"^\| (?:`(\w[^`]*)`|a (bridge))[^|]* \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, bool, bool, bool]]:
    """Return the table of docs/podman.md.

    Each row is a kind of network, whether a port that is not listed answers to who asks from
    outside and at 127.0.0.1, and whether the workload sees the client's address.
    """
    found = ROW.findall((PAGES / "podman.md").read_text("utf-8"))
    return [
        (name or bridge, "answers" in outside, "answers" in inside, "not" not in seen)
        for name, bridge, outside, inside, seen in found
    ]


def podman(machine: Machine, *words: str, check: bool = True) -> str:
    """Run the user's Podman."""
    user = ("runuser", "-u", SOMEONE, "--", "env", f"HOME=/home/{SOMEONE}")
    given = ("exec", "-w", f"/home/{SOMEONE}", machine.name, *user, f"XDG_RUNTIME_DIR={RUNTIME}")
    return machine.engine.docker(*given, "podman", *words, check=check, timeout=300)


@pytest.fixture(scope="module")
def user(machine: Machine, site: Site) -> Machine:
    """Return the machine, with the images in the user's storage."""
    machine.write(f"/home/{SOMEONE}/.config/containers/containers.conf", SETTINGS)
    lines = "".join(f"{k}={v}\n" for k, v in gateway_environment(site, NUMBER).items())
    machine.write(f"/home/{SOMEONE}/gateway.env", lines)
    machine.write(f"/home/{SOMEONE}/key", site.gateway_keys[NUMBER].private, 0o600)
    machine.shell(
        f"chown -R {SOMEONE}: /home/{SOMEONE}; install -d -o {SOMEONE} {RUNTIME};"
        "chmod 666 /dev/fuse /dev/net/tun; install -m 644 /images.tar /var/images.tar"
    )
    podman(machine, "load", "-q", "-i", "/var/images.tar")
    podman(machine, "secret", "create", "wireguard_private_key", "key")
    return machine


def started(machine: Machine, network: str) -> None:
    """Start a gateway and a workload that listens on two ports; only the first one is listed."""
    podman(machine, "rm", "-af", "-t", "0")
    ports = ("-p", f"{LISTED}:80", "-p", f"{UNLISTED}:81")
    podman(
        machine,
        *("run", "-d", "--name", "gateway", "--network", network, *ports),
        *("--cap-add", "NET_ADMIN,NET_RAW", "--device", "/dev/net/tun"),
        *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--env-file", "gateway.env"),
        *("--secret", "wireguard_private_key", PROJECT),
    )
    listening = json.dumps([echo("0.0.0.0", 80), echo("0.0.0.0", 81)])
    podman(
        machine,
        *("run", "-d", "-i", "--name", "workload", "--network", "container:gateway"),
        *("-v", "/lab:/lab:ro", LAB, *PYTHON, "/lab/services.py", listening),
    )
    eventually(lambda: healthy(machine), timeout=60, what="the gateway without root", interval=0.5)


def healthy(machine: Machine) -> bool:
    """Return whether the gateway is healthy."""
    return "healthy          yes" in podman(
        machine, "exec", "gateway", "gateway", "status", check=False
    )


def asked(place: Workload | Machine, address: str, port: int) -> str | None:
    """Return what the workload sees as the address of a client in `place`; None: no answer."""
    try:
        return place.probe("tcp", host=address, port=port, timeout=3).seen
    except LabError:
        return None


def test_the_page_has_each_kind_of_network() -> None:
    """Its table is what the next test compares with."""
    kinds = ["pasta", "slirp4netns:port_handler=slirp4netns", "slirp4netns", "bridge"]
    assert [network for network, *_ in rows()] == kinds


@pytest.mark.parametrize(("network", "outside", "inside", "seen"), rows())
def test_the_tunnel_works_without_root(
    user: Machine, site: Site, network: str, *, outside: bool, inside: bool, seen: bool
) -> None:
    """And a port that is not listed is closed, but where Podman comes in over loopback."""
    started(user, network)
    code = f"import socket; print(socket.create_connection(({HOST.ipv4!r}, 7), 5).recv(99))"
    assert EXIT.ipv4 in podman(user, "exec", "workload", *PYTHON, "-c", code)
    address = gateway_address(NUMBER).ipv4
    client = asked(site.machine, address, LISTED)
    assert client is not None, "control"
    assert asked(user, "127.0.0.1", LISTED) is not None, "control"
    assert (asked(site.machine, address, UNLISTED) is not None) is outside
    assert (asked(user, "127.0.0.1", UNLISTED) is not None) is inside
    assert (client == UPLINK_ROUTER) is seen
