"""A gateway whose workloads and tunnel are in a vault: `gateway vault` and the gateway together.

Each leak test floods the vault with every kind of packet. The control is the same flood from the
gateway's namespace before a gateway is there, where it is seen.
"""

import signal
import sys
import time

import pytest

from gateway.model import INTERFACE
from gateway.policy.passage import INSIDE as HOLE
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, eventually
from tests.lab.server import INSIDE
from tests.lab.topology import Lab
from tests.lab.transfers import sink, source
from tests.lab.workload import Traffic
from tests.promises.test_vault import ready, rules
from tests.promises.witness import (
    FLOOD,
    HOST4,
    HOST6,
    flooded,
    locked,
    not_by_the_exit,
    not_refused_at_once,
    ordinary,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1", "P4", "P15")]

FAR = 9100
RECONNECT = 10.0


class Site:
    """A vault, and the container of its gateway, which is not started."""

    def __init__(self, lab: Lab, vault: Gateway | None = None) -> None:
        """Start `vault`, by default one with Docker's capabilities and NET_ADMIN."""
        self.lab = lab
        self.vault = (vault or lab.vault()).start({})
        ready(self.vault).close()
        self.gateway = self.another()

    def another(self, **options: object) -> Gateway:
        """Return the container of another gateway, which shares the processes of the vault."""
        return self.lab.gateway(joined=lambda: self.vault.pid, **options)

    def start(self, **changes: str) -> "Site":
        """Start the gateway, and wait until it is connected."""
        self.gateway.start(self.gateway.env(**changes)).wait_healthy()
        return self

    def links(self) -> set[str]:
        """Return the names of the links in the vault."""
        shown = self.lab.vault_namespace.run("ip", "-o", "link").splitlines()
        return {line.split(": ")[1].partition("@")[0] for line in shown}

    def works(self) -> None:
        """Check that workloads reach the internet, by the server's exit alone."""
        assert not_by_the_exit(self.lab, ordinary(self.lab.vault_workload)) == {}

    def is_closed(self) -> None:
        """Check that workloads are refused at once, whatever they try."""
        assert not_refused_at_once(ordinary(self.lab.vault_workload)) == {}
        assert INTERFACE not in self.links()
        assert "P4" not in rules(self.lab)

    def flood(self, device: str) -> Traffic:
        """Send every kind of packet in the vault, without end."""
        return self.lab.vault_workload.flood(*FLOOD, device=device, rate=50)


@pytest.fixture
def site(lab: Lab) -> Site:
    """Return a vault and a gateway that is not started."""
    return Site(lab)


@pytest.mark.both_firewalls
@pytest.mark.promise("P10")
def test_workloads_in_the_vault_have_the_tunnel_and_nothing_else(site: Site) -> None:
    """The link is in the vault, its encrypted socket and the health server are at home.

    The resolver file of the vault names the tunnel's resolver; the gateway's own stays as it was.
    """
    site.start()
    lab = site.lab
    assert site.links() == {"lo", INTERFACE}
    assert INTERFACE not in lab.operator.run("ip", "-br", "link")
    eventually(  # the gateway's probe of the tunnel has a socket there for a moment
        lambda: not lab.vault_namespace.run("ss", "-uanH"), timeout=4, what="no UDP socket"
    )
    assert len(lab.gateway_namespace.run("ss", "-uanH").splitlines()) == 2
    site.works()
    assert f"nameserver {INSIDE.ipv4}\n" in site.vault.resolv_conf()
    assert f"nameserver {INSIDE.ipv4}\n" not in site.gateway.resolv_conf()
    assert site.gateway.status().body["drift"] == 0
    assert lab.leaks(site.gateway.started_at + 1) == []


@pytest.mark.both_firewalls
@pytest.mark.promise("P12")
@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_without_a_gateway_the_vault_is_closed(site: Site, end: str) -> None:
    """No link, closed rules, refused at once; the next gateway connects it."""
    for _ in range(2):
        site.start()
        site.works()
        if end == "killed":
            site.gateway.kill()
        else:
            assert site.gateway.stop() == 0
        eventually(lambda: "P4" not in rules(site.lab), timeout=2, what="closed rules")
        site.is_closed()


@pytest.mark.promise("P3", "P14")
@pytest.mark.parametrize("device", ["lo", INTERFACE])
def test_a_flood_in_the_vault_never_leaves_unencrypted(lab: Lab, device: str) -> None:
    """While the gateway starts, is connected, is killed, starts again and stops."""
    control = flooded(lab, rate=50)
    site = Site(lab)
    flood = site.flood(device)
    control.stop()
    site.start()
    since = locked(site.gateway)
    time.sleep(0.5)
    site.gateway.kill()
    time.sleep(0.5)
    site.start()
    time.sleep(0.5)
    site.works()
    assert site.gateway.stop() == 0
    time.sleep(0.5)
    assert flood.stop()["sent"] > 0
    assert lab.capture.containing("flood-marker", since) == []
    assert lab.leaks(since) == []


@pytest.mark.promise("P6")
@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_connections_continue_with_the_next_gateway(site: Site, end: str) -> None:
    """Control: nothing arrives while there is none."""
    lab, home = site.lab, site.lab.household
    site.start()
    for host in (HOST4, HOST6):
        source(lab.internet, home, host, FAR)
    downloads = [sink(host, lab.vault_workload, home, host, FAR) for host in (HOST4, HOST6)]
    if end == "killed":
        site.gateway.kill()
    else:
        assert site.gateway.stop() == 0
    since = time.monotonic()
    time.sleep(2)
    assert all(download.moments()[-1] < since + 0.1 for download in downloads)
    site.start()
    for download in downloads:
        download.continues_after(time.monotonic(), 5)


@pytest.mark.promise("P17")
def test_what_others_change_in_the_vault_is_reverted(site: Site) -> None:
    """Rules, routes, and the link: deleted, down, without its address."""
    site.start()
    lab = site.lab

    def drift() -> int:
        return int(site.gateway.status().body["drift"])

    for change in (
        ("nft", "add rule inet portcullis output accept"),
        ("ip", "rule", "del", "priority", "150"),
        ("ip", "route", "flush", "table", "51820"),
    ):
        before = drift()
        lab.vault_namespace.run(*change)
        eventually(lambda: drift() > before, timeout=7, what=f"{change} is found")  # noqa: B023
        site.works()
    for change in (
        ("link", "del", INTERFACE),
        ("link", "set", INTERFACE, "down"),
        ("addr", "flush", "dev", INTERFACE),
    ):
        lab.vault_namespace.run("ip", *change)
        site.gateway.wait_unhealthy(5)
        site.gateway.wait_healthy(RECONNECT)
        site.works()


@pytest.mark.promise("P12")
def test_when_the_server_is_gone_workloads_are_refused_at_once(site: Site) -> None:
    """And the vault is connected again when it is back."""
    site.start()
    site.lab.vault_workload.stream(HOST4)
    site.lab.server.cut()
    site.gateway.wait_unhealthy()
    assert not_refused_at_once(ordinary(site.lab.vault_workload)) == {}
    site.lab.server.restore()
    site.gateway.wait_healthy(30)
    site.works()


def test_a_gateway_waits_for_its_vault(lab: Lab) -> None:
    """They may be started together: the vault is process 1, and does not listen yet."""
    site = Site(lab)
    site.vault.signal(signal.SIGSTOP)
    try:
        site.gateway.start()
        time.sleep(1)
        assert site.gateway.running
    finally:
        site.vault.signal(signal.SIGCONT)
    site.gateway.wait_healthy()
    site.works()


@pytest.mark.promise("P2")
def test_a_vault_has_one_gateway(site: Site) -> None:
    """A second one, with uplinks of its own, ends with the reason; the first one is left alone."""
    site.start()
    lab = site.lab
    elsewhere = Namespace(f"{lab.prefix}-elsewhere")
    elsewhere.create()
    try:
        second = Gateway(
            elsewhere, lab.household, lab.server, lab.client, joined=lambda: site.vault.pid
        )
        second.start()
        assert second.wait() == 1
        assert "another gateway has this vault" in second.logs()
        second.close()
    finally:
        elsewhere.delete()
    assert site.gateway.status().code == 200
    site.works()


def test_when_the_vault_ends_its_gateway_ends_too(site: Site) -> None:
    """It is process 1 of both, so the kernel kills the gateway; it closes the namespace before.

    Control: the rules were open, and there was a link for holes.
    """
    site.start(FIREWALL_INPUT_PORTS=str(FAR))
    assert "P8" in rules(site.lab)
    assert HOLE in site.links()
    assert site.vault.stop() == 0
    assert site.gateway.wait() != 0
    site.is_closed()
    assert "P8" not in rules(site.lab)
    assert site.links() == {"lo"}


def test_a_vault_that_does_not_answer_is_a_shortage(site: Site) -> None:
    """Health says so, the rules stay, and a stop takes no longer than an engine waits."""
    site.start()
    gateway = site.gateway
    for goes_on in (True, False):
        site.vault.signal(signal.SIGSTOP)
        eventually(
            lambda: gateway.status().body.get("reason_code") == "kernel_unavailable",
            timeout=10,
            what="the shortage",
        )
        site.works()
        if goes_on:
            site.vault.signal(signal.SIGCONT)
            gateway.wait_healthy()
    began = time.monotonic()
    gateway.stop()
    assert time.monotonic() - began < 9 * PATIENCE
    site.vault.signal(signal.SIGCONT)
    eventually(lambda: "P4" not in rules(site.lab), timeout=3, what="closed rules")
    site.is_closed()


def test_only_a_gateway_with_the_processes_of_a_vault_has_one(lab: Lab) -> None:
    """Another one is alone in its namespace, which it closes for itself."""
    site = Site(lab)
    alone = lab.gateway(pid_namespace=True).start()
    alone.wait_healthy()
    assert site.links() == {"lo"}
    assert INTERFACE in lab.operator.run("ip", "-br", "link")


def test_the_status_is_that_of_the_gateway(site: Site) -> None:
    """It is asked where the gateway runs."""
    site.start()
    code, said = site.gateway.execute(sys.executable, "-m", "gateway", "status")
    assert (code, "connected" in said.lower()) == (0, True)
