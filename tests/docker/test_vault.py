"""The vault of docs/layouts.md on a real engine: gateways come and go, workloads stay.

A download through the tunnel and a flood in the vault run all the time.
"""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import PROJECT
from tests.docker.project import OFTEN, PUBLISHED, UNLISTED, Project, gateway_environment
from tests.docker.site import (
    EXIT,
    HOST,
    LAN_HOST,
    LAN_MACHINE,
    SERVER,
    UPLINK,
    Site,
    gateway_address,
    temporary,
)
from tests.docker.test_anchor import Uses, killed, recreated, restarted, stopped, updated
from tests.lab.frames import Frame
from tests.lab.hosts import echo
from tests.lab.process import eventually, promised

pytestmark = [pytest.mark.docker, pytest.mark.promise("P1", "P6", "P15")]

NUMBER = 2
LEAST = ("--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
IPV6 = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
UNREACHABLE = 3
"""The ICMP type of destination unreachable (RFC 792)."""
MOST = 7.0
"""Seconds without data that a restart may take. TCP sends again 3.0 s and 6.2 s after the last data
(RFC 6298); the engine needs 2 s to make the gateway's network again."""


def _answer_of_an_empty_namespace(frame: Frame) -> bool:
    """Allow the kernel's ICMP error to the server, whose packets come before the gateway locks."""
    return frame.icmp_type == UNREACHABLE and frame.destination == SERVER.ipv4


class VaultUses(Uses):
    """The same, with frames of packet sockets on the link that leads to the gateway."""

    flooded = ("kinds=udp4,udp6,tcp4,packet4", "device=hole0")
    own_frames = (_answer_of_an_empty_namespace,)

    def client_continues(self, now: float) -> None:
        """Wait until a new client is answered.

        A connection may end: an engine withdraws a published port while its container is down, and
        then the machine itself resets what it does not know.
        """
        del now
        lan = self.project.site.lan
        eventually(
            lambda: lan.probe("tcp", host=LAN_MACHINE, port=PUBLISHED).result == "connected",
            timeout=20,
            what="an answer to a new client on the LAN",
        )


@pytest.fixture(scope="module")
def project(site: Site) -> Iterator[Project]:
    """Yield the vault of the documentation, up and running."""
    made = Project(site, "vault")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def uses(project: Project) -> Iterator[VaultUses]:
    """Yield the traffic; afterwards nothing may have leaked."""
    project.ensure_running()
    found = VaultUses(project)
    yield found
    found.close()


@pytest.mark.promise("P10")
def test_workloads_have_the_tunnel_and_the_listed_holes(project: Project) -> None:
    """And no eth0; `verify` finds all as promised, and no limit keeps a hole closed."""
    workload, lan = project.workload, project.site.lan
    assert {"lo", "wg0", "hole0"} == set(workload.exec("ls", "/sys/class/net").split())
    for host, seen in ((HOST.ipv4, EXIT.ipv4), (HOST.ipv6, EXIT.ipv6)):
        assert workload.probe("tcp", host=host).seen == seen
    assert "nameserver 127.0.0.1\n" in workload.exec("cat", "/etc/resolv.conf")
    assert workload.probe("tcp", host=LAN_HOST).result == "connected"
    assert lan.probe("tcp", host=LAN_MACHINE, port=PUBLISHED).result == "connected"
    assert lan.probe("tcp", host=LAN_MACHINE, port=UNLISTED, timeout=1).result == "timeout"
    said = project.gateway.exec("gateway", "verify")
    assert "As promised" in said
    status = json.loads(project.gateway.exec("gateway", "status", "--json"))
    assert not {it["code"] for it in status["limits"]} & {"no_holes", "no_ipv6_holes"}
    assert status["holes"]


@pytest.mark.parametrize("what", [restarted, killed, stopped, recreated, updated])
def test_workloads_do_not_notice_that_the_gateway_is_another_one(
    project: Project, uses: VaultUses, what: Callable[[Project], None], report: list[str]
) -> None:
    """Their containers and the download stay, and nothing leaves around the tunnel."""
    former = project.gateway.inspect("{{.Id}} {{.State.StartedAt}}")
    what(project)
    assert project.gateway.inspect("{{.Id}} {{.State.StartedAt}}") != former, "control"
    project.gateway.wait_for_health("healthy")
    uses.continue_untouched()
    gap = uses.longest_gap()
    report.append(f"vault: {what.__name__}, {gap:.1f} s without data")
    assert gap < promised(MOST)


def test_a_reload_goes_unnoticed(project: Project, uses: VaultUses, report: list[str]) -> None:
    """With a wrong file, which changes nothing, and with the right one."""
    secret = project.directory / "secrets/wireguard_private_key"
    key = secret.read_text(encoding="utf-8")
    for text, outcome in (("no key", "refused"), (key, "unchanged")):
        secret.write_text(text, encoding="utf-8")
        assert outcome in project.gateway.exec("gateway", "reload", check=False)
        uses.continue_untouched()
    report.append(f"vault: reload, {uses.longest_gap():.1f} s without data")
    assert uses.longest_gap() < promised(1)


@pytest.mark.promise("P2")
def test_net_admin_alone_is_enough_for_both(site: Site) -> None:
    """The vault, before it has a gateway, lets nothing out."""
    vault, gateway = Box(site.engine, "smallvault"), Box(site.engine, "smallgateway")
    listed = [echo("0.0.0.0", 80)]
    address, secret = gateway_address(NUMBER), site.gateway_keys[NUMBER].private
    key = temporary(site.household.directory, "vault/wireguard_private_key", secret)
    environment = gateway_environment(site, NUMBER)
    try:
        site.engine.docker(
            *("run", "-d", "--name", vault.name, "--network", "none", "--no-healthcheck"),
            *(*LEAST, *IPV6, PROJECT, "vault"),
        )
        workload = site.run(
            *("smallworkload", "-v", LAB_VOLUME, "--network", f"container:{vault.name}"),
            command=[*PYTHON, "/lab/services.py", json.dumps(listed)],
        )
        assert workload.probe("tcp", host=HOST.ipv4).failed_fast
        site.engine.docker(
            *("run", "-d", "--name", gateway.name, "--network", UPLINK, OFTEN),
            *("--pid", f"container:{vault.name}", "--ip", address.ipv4, "--ip6", address.ipv6),
            *("--device", "/dev/net/tun", "-v", f"{key}:/run/secrets/wireguard_private_key:ro"),
            *(word for pair in environment.items() for word in ("-e", "=".join(pair))),
            *(*LEAST, *IPV6, PROJECT),
        )
        gateway.wait_for_health("healthy")
        assert workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
        assert workload.probe("tcp", host=LAN_HOST).result == "connected"
        workload.remove()
        said = gateway.exec("gateway", "status", "--json")
        assert "no_ipv6_holes" in said, "nothing lets it forward IPv6"
    finally:
        for box in (gateway, Box(site.engine, "smallworkload"), vault):
            box.remove()
