"""The public address: looked up through the tunnel only, and only where that is wanted.

The lab plays the service: a resolver that has its name, and a server with a certificate.
"""

import json
import sys
import time
from pathlib import Path

import pytest

from gateway.model.public_ip import FILE
from tests.lab.gateway import Gateway
from tests.lab.lists import PROVIDER, RESOLVER, ListHost
from tests.lab.process import eventually
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.test_block_lists import outside
from tests.promises.test_vault_gateway import Site

pytestmark = [pytest.mark.lab, pytest.mark.promise("P4")]

HOST = "ip.example"
SAID = {"ip": "203.0.113.200", "country": "Utopia", "city": "Nowhere", "asn_org": "Lab"}


@pytest.fixture(scope="module")
def certificate(trusted: Authority) -> Path:
    """Return the service's certificate from it."""
    return trusted.issue(HOST)


def variables(trusted: Authority, **changes: str) -> dict[str, str]:
    """Return what has the service asked."""
    wanted = {
        "PUBLICIP_API": f"echoip#https://{HOST}",
        "DNS_ADDRESS": RESOLVER,
        "SSL_CERT_FILE": str(trusted.certificate),
    }
    return wanted | changes


def known(gateway: Gateway) -> dict[str, str]:
    """Return what health says of the address, once it says something."""
    look = lambda: gateway.status().body.get("public_ip")  # noqa: E731 - it is asked several times
    return dict(eventually(look, timeout=20, what="the address"))


def test_the_address_is_looked_up_through_the_tunnel_and_forgotten_with_it(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """In health, in `gateway status` and in the file; it is looked up again after a reconnect.

    Controls: before the gateway locks, what is sent to the service and to its resolver is seen
    outside; a gateway without the variables sends nothing to them.
    """
    host = ListHost(lab, certificate, json.dumps(SAID).encode())
    before = lab.gateway(resolv_conf=f"nameserver {RESOLVER}\n")
    before.workload().probe("resolve", name="before.example")
    lab.workload.probe("tcp", host=PROVIDER, port=443)
    assert outside(lab, RESOLVER)
    assert outside(lab, PROVIDER), "control"
    since = time.monotonic()
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.start(gateway.env(**variables(trusted))).wait_healthy()
    found = known(gateway)
    assert (found["address"], found["city"], found["hostname"]) == (SAID["ip"], "Nowhere", "")
    assert [(it["client"], it["target"]) for it in host.requests] == [
        (lab.server.exit.ipv4, "/json")
    ]
    code, text = gateway.execute(sys.executable, "-m", "gateway", "status")
    assert code == 0, text
    assert f"public address   {SAID['ip']}\n                 Nowhere, Utopia, Lab\n" in text
    file = gateway.container.root / FILE.lstrip("/")
    eventually(lambda: file.read_text() == f"{SAID['ip']}\n", timeout=5, what="the file")
    gateway.execute(sys.executable, "-m", "gateway", "pause")
    assert gateway.status().body["public_ip"] is None
    eventually(lambda: file.read_text() == "", timeout=5, what="an empty file")
    time.sleep(1)
    assert len(host.requests) == 1
    gateway.execute(sys.executable, "-m", "gateway", "resume")
    assert known(gateway)["address"] == SAID["ip"]
    assert len(host.requests) == 2
    host.close()
    assert [it for it in outside(lab, RESOLVER, PROVIDER) if it.at > since] == []
    assert lab.leaks(since + 1) == []


def test_a_look_up_ends_with_the_tunnel_and_hostile_answers_harm_nothing(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """Health stays green, the reason is a limit, and nothing of it leaves outside."""
    host = ListHost(lab, certificate, json.dumps(SAID).encode(), manner="stalled")
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.start(gateway.env(**variables(trusted))).wait_healthy()
    since = time.monotonic()
    eventually(lambda: host.requests, timeout=20, what="the request in the tunnel")
    gateway.execute(sys.executable, "-m", "gateway", "pause")
    time.sleep(1)
    host.close()
    host.serve("gigabyte")
    gateway.execute(sys.executable, "-m", "gateway", "resume")

    def limit() -> str:
        found = gateway.status().body["limits"]
        return next((it["text"] for it in found if it["code"] == "service_not_working"), "")

    eventually(lambda: "larger than 16 KiB" in limit(), timeout=20, what="the reason")
    health = gateway.status()
    assert (health.code, health.body["public_ip"]) == (200, None)
    assert [it for it in outside(lab, RESOLVER, PROVIDER) if it.at > since] == []
    assert lab.leaks(since) == []
    host.close()


def test_in_a_vault_the_address_is_that_of_the_workloads(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """The connection is made in the vault, by the process of the gateway."""
    host = ListHost(lab, certificate, json.dumps(SAID).encode())
    site = Site(lab).start(**variables(trusted))
    assert known(site.gateway)["address"] == SAID["ip"]
    assert [it["client"] for it in host.requests] == [lab.server.exit.ipv4]
    host.close()
    assert outside(lab, RESOLVER, PROVIDER) == []
