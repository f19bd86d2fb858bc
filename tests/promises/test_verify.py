"""`gateway verify`: it believes nothing, harms nobody, and notices when something gets out."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab

VERIFY = (sys.executable, "-m", "gateway", "verify", "--json")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Lab, Gateway]]:
    """Return a lab with a healthy gateway and Docker's resolver."""
    with Lab() as lab:
        lab.docker_resolver()
        gateway = lab.gateway()
        gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS="192.168.77.0/24"))
        gateway.wait_healthy()
        yield lab, gateway


def trials(gateway: Gateway, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command in the container; return its exit code and each trial by its name."""
    code, output = gateway.execute(*VERIFY, *options)
    told = json.loads(output.splitlines()[-1])
    assert told["ok"] is (code == 0)
    return code, {trial["tried"]: trial for trial in told["trials"]}


@pytest.mark.promise("P1")
def test_a_healthy_gateway_passes_every_trial_and_nothing_leaves(
    shared: tuple[Lab, Gateway],
) -> None:
    """All ways around are tried in both families; the capture outside agrees that none works.

    Control: the traffic into the tunnel that the command sends is seen outside, encrypted.
    """
    lab, gateway = shared
    before = len(lab.capture.frames())
    code, tried = trials(gateway)
    assert code == 0, tried
    assert len(lab.capture.frames()) > before
    assert lab.capture.containing("portcullis-") == []
    for way in (
        "IPv4 bound to eth0, UDP",
        "IPv6 bound to eth0, TCP",
        "IPv4 with WireGuard's usual mark",
        "IPv6 from the tunnel's port",
        "packet socket on eth0",
        "packet socket on eth0, without queue",
        "DNS over UDP at 127.0.0.11",
        "DNS over TCP at 127.0.0.11",
        f"DNS over UDP at {lab.uplink.router.ipv4}",
    ):
        assert tried[way]["ok"], way


def test_an_address_echo_tells_the_address_of_the_vpn(shared: tuple[Lab, Gateway]) -> None:
    """Only the host that the user names is asked."""
    lab, gateway = shared
    url = f"http://{INTERNET[0].ipv4}/"
    code, tried = trials(gateway, "--echo", url)
    assert code == 0
    assert lab.server.exit.ipv4 in tried[f"address seen by {url}"]["happened"]


@pytest.mark.promise("P15")
def test_a_cut_tunnel_lets_nothing_out_and_comes_back(shared: tuple[Lab, Gateway]) -> None:
    """The interface is taken away while the command sends; the process stays the same."""
    lab, gateway = shared
    pid = gateway.pid
    code, tried = trials(gateway, "--cut")
    assert code == 0, tried
    assert tried["noticed"]["ok"]
    assert tried["back again"]["ok"]
    assert gateway.pid == pid
    assert lab.capture.containing("portcullis-") == []


def test_an_open_namespace_is_found_out(shared: tuple[Lab, Gateway]) -> None:
    """With everything opened by foreign hands, the trials say which ways lead out.

    Control: the capture outside sees the command's packets leave.
    """
    lab, gateway = shared
    gateway.signal(19)  # SIGSTOP: it cannot put anything back meanwhile
    try:
        lab.operator.run("nft", "delete", "table", "netdev", "portcullis_guard", check=False)
        lab.operator.run("nft", "delete", "table", "inet", "portcullis", check=False)
        for program in ("iptables-legacy", "ip6tables-legacy"):
            for chain in ("INPUT", "OUTPUT"):
                lab.operator.run(program, "-P", chain, "ACCEPT")
                lab.operator.run(program, "-F", chain)
        code, tried = trials(gateway)
    finally:
        gateway.signal(18)
    assert code == 1
    assert lab.capture.containing("portcullis-")
    for way in ("IPv4 bound to eth0, UDP", "packet socket on eth0", "DNS over UDP at 127.0.0.11"):
        assert not tried[way]["ok"], way
    gateway.wait_healthy()
