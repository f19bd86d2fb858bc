"""What the guest is for: its kernel has WireGuard, nftables and the egress hook.

Runs in the guest before everything else, without the gateway, so that a failure here is one of the
guest.
"""

import os
import socket
from collections.abc import Iterator

import pytest

from tests.lab.namespace import Namespace, connect
from tests.lab.process import run
from tests.lab.server import Keys


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    """Make two namespaces joined by a pair of veth links, 10.9.0.1 and 10.9.0.2."""
    made = [Namespace("parts1"), Namespace("parts2")]
    try:
        for namespace in made:
            namespace.create()
        connect(made[0], "eth0", made[1], "eth0")
        for number, namespace in enumerate(made, 1):
            namespace.ip(f"addr add 10.9.0.{number}/24 dev eth0", "link set eth0 up")
        yield made
    finally:
        for namespace in made:
            namespace.delete()


def test_kernel_wireguard_carries_a_datagram(namespaces: list[Namespace]) -> None:
    """Two interfaces of the kernel shake hands and carry UDP from one to the other."""
    keys = [Keys.generate() for _ in namespaces]
    for number, namespace in enumerate(namespaces, 1):
        namespace.ip("link add wg0 type wireguard", f"addr add 10.8.0.{number}/24 dev wg0")
        configuration = (
            f"[Interface]\nPrivateKey = {keys[number - 1].private}\nListenPort = 51820\n"
            f"[Peer]\nPublicKey = {keys[2 - number].public}\nAllowedIPs = 10.8.0.0/24\n"
            f"Endpoint = 10.9.0.{3 - number}:51820\n"
        )
        namespace.run("wg", "setconf", "wg0", "/dev/stdin", stdin=configuration)
        namespace.ip("link set wg0 up")
    sender, receiver = (n.socket(socket.AF_INET, socket.SOCK_DGRAM) for n in namespaces)
    with sender, receiver:
        receiver.bind(("10.8.0.2", 9))
        receiver.settimeout(30)
        sender.sendto(b"through", ("10.8.0.2", 9))
        assert receiver.recv(100) == b"through"


def test_nftables_take_an_egress_chain() -> None:
    """Nft loads one transaction with an inet table and a netdev egress chain on lo."""
    rules = """
        table inet kernelparts {
            chain output { type filter hook output priority 0; policy accept; }
        }
        table netdev kernelparts {
            chain lo { type filter hook egress device "lo" priority 0; policy accept; }
        }
    """
    run(["nft", "-f", "-"], stdin=rules)
    assert "hook egress" in run(["nft", "list", "table", "netdev", "kernelparts"])
    run(["nft", "delete table inet kernelparts; delete table netdev kernelparts"])


def test_gateway_is_installed_from_its_wheel() -> None:
    """The guest runs the wheel that users install, not a source tree next to the tests."""
    assert not os.path.exists("gateway")  # noqa: PTH110 - the working directory is meant
    assert "site-packages" in run(["python", "-c", "import gateway; print(gateway.__file__)"])
