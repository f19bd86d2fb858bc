"""Health names a resolver of the workloads that cannot answer, and why; nothing leaves for that."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.frames import TCP, UDP
from tests.lab.gateway import Gateway
from tests.lab.hosts import dns
from tests.lab.process import eventually
from tests.lab.server import INSIDE
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab

NO_WAY = "10.99.0.1"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Site:
    """A lab with a gateway that is started with one resolver after the other."""

    lab: Lab
    gateway: Gateway

    def start(self, **variables: str) -> None:
        """Start the gateway again, connected."""
        if self.gateway.running:
            self.gateway.stop()
        self.gateway.start(self.gateway.env(**variables)).wait_for_state("connected")

    def faults(self) -> list[str]:
        """Return what health says of names."""
        limits = self.gateway.status().body["limits"]
        return [it["text"] for it in limits if it["code"] == "no_names"]

    def wait_for(self, faults: list[str], timeout: float = 5) -> None:
        """Wait until health says exactly this of names."""
        eventually(lambda: self.faults() == faults, timeout=timeout, what=f"{faults}")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return the shared site."""
    with Lab() as lab:
        yield Site(lab, lab.gateway())


def test_a_resolver_on_loopback_is_named_until_something_listens(site: Site) -> None:
    """The tunnel is healthy; control: a resolver in the tunnel is not named, and answers."""
    site.start(DNS_ADDRESS=INSIDE.ipv4)
    site.gateway.wait_healthy()
    eventually(site.lab.server.queries, timeout=5, what="the probe")
    assert site.faults() == []
    site.start(DNS_ADDRESS=LOOPBACK)
    site.wait_for([f"the resolver {LOOPBACK} does not answer: nothing listens on its UDP port 53"])
    assert site.gateway.status().code == 200
    (warned,) = site.gateway.events(event="resolver does not answer")
    assert "set DNS_ADDRESS" in warned["remedy"]
    served = site.lab.workload.serve(dns(LOOPBACK, A="198.51.100.10"))
    site.wait_for([], timeout=30)
    eventually(  # the log is written after health has changed
        lambda: site.gateway.events(event="resolvers answer"), timeout=5, what="a line of the log"
    )
    served.close()


def test_a_resolver_where_no_way_leads_is_named_and_not_asked_outside(site: Site) -> None:
    """Nor one that a network of an uplink has: no packet to either is seen there."""
    router = site.lab.uplink.router.ipv4
    site.start(
        DNS_ADDRESS=f"{NO_WAY},{router}", WIREGUARD_ALLOWED_IPS="10.64.0.0/24,198.51.100.0/24"
    )
    site.wait_for([
        f"the resolver {address} does not answer: the tunnel does not lead there"
        for address in (NO_WAY, router)
    ])  # fmt: skip
    frames = site.lab.capture.frames(site.gateway.started_at)
    assert frames, "control: the capture sees the encrypted flow"
    asked = [frame for frame in frames if frame.destination in {NO_WAY, router}]
    assert not [frame for frame in asked if frame.protocol in {TCP, UDP}], "ARP is not a question"
    assert site.lab.leaks(site.gateway.started_at + 1) == []


def test_a_resolver_in_the_tunnel_that_refuses_is_the_detail_of_the_reason(site: Site) -> None:
    """Health is red, as for each silent resolver there, and says that its port is closed."""
    closed = site.lab.server.exit.ipv4
    site.start(DNS_ADDRESS=closed)
    fault = f"the resolver {closed} does not answer: nothing listens on its UDP port 53"
    health = eventually(
        lambda: (found := site.gateway.status()).body["detail"] == fault and found,
        timeout=30,
        what="the detail",
    )
    assert (health.code, health.body["reason_code"]) == (503, "resolver_silent")
