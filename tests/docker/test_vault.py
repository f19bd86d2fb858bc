"""A vault on a real engine: `network_mode: none` for the workloads, `pid: container:vault`.

A download through the tunnel and a flood in the vault run all the time.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import PROJECT
from tests.docker.project import OFTEN, PUBLISHED, gateway_environment
from tests.docker.site import (
    BEYOND,
    EXIT,
    HOST,
    INSIDE,
    LAN_HOST,
    LAN_MACHINE,
    SERVER,
    UPLINK,
    Site,
    gateway_address,
    leaks_of,
    temporary,
)
from tests.lab.frames import Frame
from tests.lab.hosts import echo
from tests.lab.process import eventually, promised

pytestmark = [pytest.mark.docker, pytest.mark.promise("P1", "P6", "P15")]

NUMBER = 2
MARKER = "must-not-leave"
SOURCE, SOURCE_PORT = "172.31.20.82", "9100"
IPV6 = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
FORWARDING = ("--sysctl", "net.ipv6.conf.all.forwarding=1")
ADMIN = ("--cap-add", "NET_ADMIN")
LEAST = ("--cap-drop", "ALL", *ADMIN)
UNREACHABLE = 3
"""The ICMP type of destination unreachable (RFC 792)."""
MOST = 7.0
"""Seconds without data that a restart may take. TCP sends again 3.0 s and 6.2 s after the last data
(RFC 6298); the engine needs 2 s to make the gateway's network again."""


class Vault:
    """The vault, its gateway, and a workload that serves at the listed input port."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.secret = temporary(
            site.household.directory,
            "vault/wireguard_private_key",
            site.gateway_keys[NUMBER].private,
        )
        self.gateway = Box(site.engine, "outside")
        self.vault = self._held()
        listed = [echo("0.0.0.0", 80), echo("0.0.0.0", 81)]
        self.workload = site.run(
            *("inhabitant", "-v", LAB_VOLUME, "--network", "container:vault"),
            command=[*PYTHON, "/lab/services.py", json.dumps(listed)],
        )

    def _held(self) -> Box:
        box = Box(self.site.engine, "vault")
        self.site.engine.docker(
            *("run", "-d", "--name", "vault", "--network", "none", "--no-healthcheck"),
            *(*LEAST, *IPV6, PROJECT, "vault"),
        )
        return box

    def start(self, *options: str, **variables: str) -> Box:
        """Start a gateway in a new container, and wait until it is healthy."""
        self.gateway.remove()
        environment = gateway_environment(self.site, NUMBER) | variables
        words = [word for pair in environment.items() for word in ("-e", "=".join(pair))]
        address = gateway_address(NUMBER)
        self.site.engine.docker(
            *("run", "-d", "--name", "outside", "--network", UPLINK, OFTEN),
            *("--pid", "container:vault", "-p", f"{PUBLISHED}:80"),
            *("--ip", address.ipv4, "--ip6", address.ipv6),
            *("--device", "/dev/net/tun"),
            *("-v", f"{self.secret}:/run/secrets/wireguard_private_key:ro"),
            *(*(options or ADMIN), *IPV6, *FORWARDING, *words, PROJECT),
        )
        self.gateway.wait_for_health("healthy")
        return self.gateway

    def close(self) -> None:
        """Remove all containers."""
        for box in (self.gateway, self.workload, self.vault):
            box.remove()


@pytest.fixture
def vault(site: Site) -> Iterator[Vault]:
    """Yield a vault with a workload, without a gateway."""
    made = Vault(site)
    yield made
    made.close()


@pytest.mark.promise("P2", "P10")
@pytest.mark.parametrize("options", [ADMIN, LEAST], ids=["default", "NET_ADMIN alone"])
def test_workloads_have_the_tunnel_and_the_listed_holes(
    vault: Vault, options: tuple[str, ...]
) -> None:
    """Before there is a gateway, nothing. They have no eth0 at any time."""
    workload, lan = vault.workload, vault.site.lan
    assert workload.probe("tcp", host=HOST.ipv4).failed_fast
    assert "eth0" not in workload.exec("cat", "/proc/net/dev")
    vault.start(*options)
    for host, seen in ((HOST.ipv4, EXIT.ipv4), (HOST.ipv6, EXIT.ipv6)):
        assert workload.probe("tcp", host=host).seen == seen
    assert f"nameserver {INSIDE.ipv4}\n" in workload.exec("cat", "/etc/resolv.conf")
    assert workload.probe("tcp", host=LAN_HOST).result == "connected"
    assert lan.probe("tcp", host=LAN_MACHINE, port=PUBLISHED).result == "connected"
    assert "eth0" not in workload.exec("cat", "/proc/net/dev")
    assert "connected" in vault.gateway.exec(
        "/opt/portcullis/bin/python", "-Im", "gateway", "status"
    )


def restarted(vault: Vault) -> None:
    """`docker restart`."""
    vault.site.engine.docker("restart", "outside")


def killed(vault: Vault) -> None:
    """`docker kill`, then `docker start`."""
    vault.site.engine.docker("kill", "outside")
    vault.gateway.wait_for_end()
    vault.site.engine.docker("start", "outside")


def recreated(vault: Vault) -> None:
    """Remove it, and run a new container with other variables."""
    vault.start(LOG_LEVEL="debug")


@pytest.mark.parametrize("what", [restarted, killed, recreated])
def test_workloads_do_not_notice_that_the_gateway_is_another_one(
    vault: Vault, what: Callable[[Vault], None], report: list[str]
) -> None:
    """The download continues, a client on the LAN can connect, and nothing leaves unencrypted.

    A client's connection may end: an engine withdraws a published port while its container is down,
    and then the machine itself resets what it does not know.
    """
    site = vault.site
    capture = site.capture_network(UPLINK)
    site.control(capture)
    vault.start()
    lab = [*PYTHON, "/lab/transfer.py"]
    site.run(
        *("far", "-v", LAB_VOLUME, "--network", BEYOND, "--ip", SOURCE),
        command=[*lab, "source", SOURCE, SOURCE_PORT],
    )
    flood = site.run(
        *("vaultflood", "-v", LAB_VOLUME, "--network", "container:vault"),
        command=[
            *(*PYTHON, "/lab/traffic.py", "flood", f"host4={HOST.ipv4}", f"host6={HOST.ipv6}"),
            *(f"marker={MARKER}", "rate=200", "kinds=udp4,udp6,tcp4,packet4", "device=hole0"),
        ],
    )
    download = site.run(
        *("vaultdownload", "-v", LAB_VOLUME, "--network", "container:vault"),
        command=[*lab, "sink", SOURCE, SOURCE_PORT],
    )

    def moments() -> list[float]:
        events = download.events()
        assert not [event for event in events if "error" in event], events[-1]
        return [float(str(event["at"])) for event in events]

    eventually(moments, timeout=10, what="the first data of the download")
    since = time.monotonic()
    what(vault)
    vault.gateway.wait_for_health("healthy")
    now = time.monotonic()
    eventually(lambda: moments()[-1] > now, timeout=20, what="more of the download")
    assert site.lan.probe("tcp", host=LAN_MACHINE, port=PUBLISHED).result == "connected"
    gap = max(later - earlier for earlier, later in pairwise([since, *moments()]))
    report.append(f"vault, {what.__name__}: {gap:.1f} s without data")
    for box in (download, flood):
        box.remove()
    assert gap < promised(MOST)
    assert capture.containing(MARKER) == []
    assert leaks_of(capture, NUMBER, allowed=[_published, _answer_of_an_empty_namespace]) == []


def _published(frame: Frame) -> bool:
    return frame.source_port == 80 and frame.protocol == 6


def _answer_of_an_empty_namespace(frame: Frame) -> bool:
    """Allow the kernel's ICMP error to the server, whose packets come before the gateway locks."""
    return frame.icmp_type == UNREACHABLE and frame.destination == SERVER.ipv4
