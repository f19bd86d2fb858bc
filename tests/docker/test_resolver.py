"""Which resolver the gateway asks for its endpoint's name after `docker restart`: P10.

The gateway then has a new network namespace and its former resolv.conf, which the workloads of its
last run still have mounted. One of them writes to it without a pause.

Limitations: the container was given Docker's own resolver, as on every network but the default one.
Which one that asks is not the gateway's choice (docs/known-issues.md).
"""

import time
from collections.abc import Iterator

import pytest

from tests.docker.box import PYTHON, Box
from tests.docker.images import PROJECT
from tests.docker.project import gateway_environment
from tests.docker.site import UPLINK, Site, gateway_address, temporary
from tests.lab.hosts import Services, dns
from tests.lab.process import eventually

pytestmark = pytest.mark.docker

NUMBER = 2
NAME = "vpn.test"
CHOSEN = "198.51.100.66"
"""The resolver that the workload would like the gateway to ask: an address of the machine."""

REWRITE = f"""
import os, time
file = os.open("/etc/resolv.conf", os.O_RDWR)
text = b"nameserver {CHOSEN}\\n"
while True:
    os.pwrite(file, text, 0)
    os.ftruncate(file, len(text))
    time.sleep(0.001)
"""
COPY = "/var/lib/portcullis/resolvers"


@pytest.fixture
def chosen(site: Site) -> Iterator[Services]:
    """Yield a resolver at the address that the workload writes into the file."""
    site.machine_namespace.ip(f"addr add {CHOSEN}/32 dev lo")
    yield Services(site.machine_namespace, [dns(CHOSEN, A=CHOSEN)], site.household).wait()
    site.machine_namespace.ip(f"addr del {CHOSEN}/32 dev lo")


@pytest.fixture
def gateway(site: Site) -> Iterator[Box]:
    """Yield a gateway that has to look its endpoint up."""
    key = temporary(
        site.household.directory, "asking/wireguard_private_key", site.gateway_keys[NUMBER].private
    )
    environment = gateway_environment(site, NUMBER) | {"WIREGUARD_ENDPOINT_IP": NAME}
    box = Box(site.engine, "asking")
    address = gateway_address(NUMBER)
    box.remove()
    site.engine.docker(
        *("run", "-d", "--name", box.name, "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun"),
        *("--network", UPLINK, "--ip", address.ipv4, "--ip6", address.ipv6),
        *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0"),
        *("-v", f"{key}:/run/secrets/wireguard_private_key:ro"),
        *(word for pair in environment.items() for word in ("-e", "=".join(pair))),
        PROJECT,
    )
    yield box
    box.remove()


def asked(resolver: Services) -> int:
    """Return how often a resolver was asked for the endpoint's name."""
    return len(resolver.events(name=NAME))


def states(gateway: Box) -> list[dict[str, object]]:
    """Return what the gateway has logged of its states since it was made."""
    return gateway.events(event="state changed")


def restart(gateway: Box) -> str:
    """Restart the container as a user does, and return what came of the first question."""
    before = len(states(gateway))
    gateway.engine.docker("restart", "-t", "5", gateway.name)
    after = eventually(
        lambda: [
            event
            for event in states(gateway)[before:]
            if event["new"] == "connecting" or event["detail"]
        ],
        timeout=30,
        what="an answer to the question, or none",
    )
    return str(after[0]["detail"] or after[0]["endpoint"])


@pytest.mark.promise("P10")
def test_a_workload_does_not_choose_the_resolver_a_restarted_gateway_asks(
    site: Site, gateway: Box, chosen: Services
) -> None:
    """It asks the resolver of its first start, again and again.

    Control: without the copy that it keeps, it asks the workload's choice, and believes it.
    """
    eventually(lambda: len(states(gateway)) > 1, timeout=20, what="the first question's end")
    intruder = site.run(
        *("rewriting", "--network", f"container:{gateway.name}"),
        command=[*PYTHON, "-c", REWRITE],
    )
    try:
        for _ in range(2):
            assert CHOSEN not in restart(gateway)
            time.sleep(3)
            assert asked(chosen) == 0
            assert gateway.read("/etc/resolv.conf") == f"nameserver {CHOSEN}\n"
        gateway.exec(*PYTHON, "-c", f"import os; os.unlink({COPY!r})")
        restart(gateway)
        eventually(lambda: asked(chosen), timeout=20, what="control: a question to the other one")
    finally:
        intruder.remove()
