"""What the guest is for: its kernel has WireGuard, nftables and the egress hook.

Runs in the guest before everything else: without the lab and without the gateway, so that a failure
here is one of the guest.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pyroute2 import IPRoute, NetNS, WireGuard, netns

from tests.lab.process import run

LEFT, RIGHT = "kpleft", "kpright"


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Make two namespaces joined by a pair of veth links, 10.9.0.1 and 10.9.0.2."""
    with ExitStack() as stack:
        for name in (LEFT, RIGHT):
            netns.create(name)
            stack.callback(netns.remove, name)
        with IPRoute() as links:
            links.link("add", ifname="kp1", kind="veth", peer={"ifname": "kp2"})
            for link, name in (("kp1", LEFT), ("kp2", RIGHT)):
                links.link("set", index=links.link_lookup(ifname=link)[0], net_ns_fd=name)
        for link, name, address in (("kp1", LEFT, "10.9.0.1"), ("kp2", RIGHT, "10.9.0.2")):
            with NetNS(name) as inside:
                index = inside.link_lookup(ifname=link)[0]
                inside.addr("add", index=index, address=address, prefixlen=24)
                inside.link("set", index=index, state="up")
        yield LEFT, RIGHT


def test_kernel_wireguard_carries_a_datagram_between_two_namespaces(
    namespaces: tuple[str, str],
) -> None:
    """Two kernel interfaces set up through pyroute2 shake hands and carry UDP."""
    private = [run(["wg", "genkey"]).strip() for _ in namespaces]
    public = [run(["wg", "pubkey"], stdin=key).strip() for key in private]
    for number, name in enumerate(namespaces):
        other = 1 - number
        with NetNS(name) as inside:
            inside.link("add", ifname="wg0", kind="wireguard")
            index = inside.link_lookup(ifname="wg0")[0]
            inside.addr("add", index=index, address=f"10.8.0.{number + 1}", prefixlen=24)
        netns.pushns(name)
        with WireGuard() as wireguard:
            wireguard.set(
                "wg0",
                private_key=private[number],
                listen_port=51820,
                peer={
                    "public_key": public[other],
                    "endpoint_addr": f"10.9.0.{other + 1}",
                    "endpoint_port": 51820,
                    "allowed_ips": ["10.8.0.0/24"],
                },
            )
        netns.popns()
        with NetNS(name) as inside:
            inside.link("set", index=index, state="up")
    sockets = []
    for name in namespaces:
        netns.pushns(name)
        sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        netns.popns()
    sender, receiver = sockets
    with sender, receiver:
        receiver.bind(("10.8.0.2", 9))
        receiver.settimeout(30)
        sender.sendto(b"through", ("10.8.0.2", 9))
        assert receiver.recvfrom(100)[0] == b"through"


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
    """The guest runs the wheel that users install, not a source tree beside the tests."""
    assert not os.path.exists("gateway")  # noqa: PTH110 - the working directory is meant
    assert "site-packages" in run(["python", "-c", "import gateway; print(gateway.__file__)"])
