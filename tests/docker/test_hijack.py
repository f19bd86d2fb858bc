"""DNS_HIJACK in the image: a workload asks a resolver of its own choice, and the gateway answers.

Limitations: the resolver at 8.8.8.8 is one of ours, behind the VPN server.
"""

import json
from collections.abc import Iterator

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.images import PROJECT
from tests.docker.project import gateway_environment
from tests.docker.site import HOST, UPLINK, Site, gateway_address, temporary
from tests.lab.hosts import dns
from tests.lab.process import eventually

pytestmark = [pytest.mark.docker, pytest.mark.promise("P10")]

NUMBER = 2
CHOSEN = "8.8.8.8"
"""What the workload's own resolv.conf names, and many programs by themselves."""
ITS_ANSWER = "198.18.20.99"
OURS, OUR_ANSWER = "nas.example", "203.0.113.99"
"""A name that the gateway's resolver alone knows, by /etc/hosts of its container."""


@pytest.fixture
def chosen(site: Site) -> Iterator[Box]:
    """Yield the resolver at CHOSEN, which has another answer to each question than ours."""
    site.server.exec("ip", "addr", "add", f"{CHOSEN}/32", "dev", "lo")
    box = site.run(
        *("chosen", "-v", LAB_VOLUME, "--network", "container:server"),
        command=[*PYTHON, "/lab/services.py", json.dumps([dns(CHOSEN, A=ITS_ANSWER)])],
    )
    yield box
    box.remove()
    site.server.exec("ip", "addr", "del", f"{CHOSEN}/32", "dev", "lo")


def started(site: Site, **changes: str) -> Box:
    """Return a healthy gateway with `changes` of its variables."""
    key = temporary(
        site.household.directory, "hijack/wireguard_private_key", site.gateway_keys[NUMBER].private
    )
    environment = gateway_environment(site, NUMBER) | changes
    address = gateway_address(NUMBER)
    box = Box(site.engine, "hijacking")
    box.remove()
    site.engine.docker(
        *("run", "-d", "--name", box.name, "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun"),
        *("--network", UPLINK, "--ip", address.ipv4, "--ip6", address.ipv6),
        *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--add-host", f"{OURS}:{OUR_ANSWER}"),
        *("-v", f"{key}:/run/secrets/wireguard_private_key:ro"),
        *(word for pair in environment.items() for word in ("-e", "=".join(pair))),
        PROJECT,
    )
    box.wait_for_health("healthy")
    return box


def workload_of(site: Site, gateway: Box) -> Box:
    """Return a workload of the gateway whose own resolv.conf names CHOSEN."""
    own = temporary(site.household.directory, "hijack/resolv.conf", f"nameserver {CHOSEN}\n")
    own.chmod(0o644)
    return site.run(
        *("asking-others", "-v", LAB_VOLUME, "-v", f"{own}:/etc/resolv.conf:ro"),
        *("--network", f"container:{gateway.name}"),
        command=["sleep", "infinity"],
    )


def test_a_workload_that_asks_another_resolver_gets_the_gateways_answer(
    site: Site, chosen: Box
) -> None:
    """By its resolv.conf, and by a program's choice over UDP and TCP. The other one sees nothing.

    Control: with the same gateway without DNS_HIJACK it is asked, and its answer is believed.
    """
    gateway = started(site, DNS_HIJACK="on")
    workload = workload_of(site, gateway)
    try:
        assert workload.read("/etc/resolv.conf") == f"nameserver {CHOSEN}\n"
        for name, answer in ((OURS, OUR_ANSWER), ("one.example", HOST.ipv4)):
            assert answer in workload.probe("resolve", name=name).fields["addresses"]
            for transport in ("udp", "tcp"):
                asked = workload.probe("dns", server=CHOSEN, name=name, transport=transport)
                assert asked.fields["address"] == answer, (name, transport)
        assert not chosen.events(kind="dns")
        workload.remove()
        gateway = started(site)
        workload = workload_of(site, gateway)
        found = workload.probe("dns", server=CHOSEN, name=OURS).fields
        assert found["address"] == ITS_ANSWER
        eventually(lambda: chosen.events(name=OURS), timeout=5, what="control: a question")
    finally:
        workload.remove()
        gateway.remove()
