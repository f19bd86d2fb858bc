"""A path that silently drops large packets: the tunnel's MTU follows, and transfers go through.

The router drops every packet of more than NARROW bytes, both ways, without an answer, as many
access networks do. The control is an MTU that the user chose, with which nothing large arrives.
"""

import asyncio
import sys
import time
from ipaddress import ip_address

import pytest

from gateway.model import INTERFACE
from gateway.policy.limits import LimitCode
from gateway.policy.mtu import STEP
from gateway.policy.probing import Probe, ProbeProtocol
from gateway.system.echoes import largest_answered
from gateway.system.netns import Netns
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import OUTSIDER
from tests.lab.namespace import Namespace
from tests.lab.process import PATIENCE, eventually
from tests.lab.server import CLIENT, INSIDE
from tests.lab.topology import Lab
from tests.lab.workload import Workload
from tests.promises.stages import OWN4
from tests.promises.test_vault_gateway import Site
from tests.promises.witness import HOST4, HOST6

pytestmark = pytest.mark.lab

NARROW = 1380
FITS = 1312
"""With 60 bytes of WireGuard over IPv4 it is 1372; 16 bytes more do not pass."""

OTHER = "172.30.0.3"
"""Another address on the first uplink."""

SIZE = 200_000
PORT = 6900
BULK = f"""
import socket, sys
host, port, patience, own = sys.argv[1:]
source = (own, 0) if own else None
with socket.create_connection((host, int(port)), float(patience), source) as peer:
    stream = peer.makefile("rb")
    stream.readline()
    sent = 0
    while sent < {SIZE}:
        peer.sendall(bytes(20_000))
        sent += len(stream.read(20_000))
    print(sent)
"""
"""Sends large pieces to an echo, each once the one before is back; gives up if it is not."""


def narrow(lab: Lab, size: int = NARROW) -> None:
    """Have the router drop larger packets without a word, on the way in either direction."""
    lab.internet_namespace.nft(
        "add table inet narrow\ndelete table inet narrow\n"
        f"table inet narrow {{ chain forward {{ type filter hook forward priority 0; "
        f"meta length > {size} drop; }}; }}"
    )


def transferred(
    place: Workload, host: str, port: int = 7, own: str = "", patience: float = 3 * PATIENCE
) -> int:
    """Return how many bytes came back from the echo: SIZE, or 0 where they vanish."""
    argv = (sys.executable, "-I", "-S", "-c", BULK, host, str(port), str(patience), own)
    return int(place.run(*argv, check=False) or 0)


def measured(gateway: Gateway, path: int) -> dict[str, object]:
    """Return the answer of health once it is known that packets of `path` bytes arrive."""
    eventually(
        lambda: gateway.status().body["path_mtu"] == path, timeout=12 * PATIENCE, what=f"{path}"
    )
    return dict(gateway.status().body)


def mtu_in(namespace: Namespace) -> int:
    """Return the MTU that the kernel has for the tunnel's interface."""
    shown = namespace.run("ip", "-o", "link", "show", INTERFACE)
    return int(shown.partition(" mtu ")[2].split()[0])


def move(lab: Lab, before: str, after: str) -> None:
    """Give the first uplink another address, so that the way to the server changes."""
    device, router = f"dev {lab.uplink.name}", lab.uplink.router.ipv4
    lab.gateway_namespace.ip(
        f"addr add {after}/24 {device}",
        f"addr del {before}/24 {device}",
        f"route replace default via {router} {device}",
    )


def test_the_mtu_follows_a_narrow_path_and_transfers_go_through(lab: Lab) -> None:
    """Upwards, downwards, and for a port that the provider forwards, in both families.

    Control: with an MTU that was chosen too large, nothing large arrives, and a limit says so.
    """
    narrow(lab)
    lab.server.forward_port(PORT)
    gateway = lab.gateway()
    for chosen in (True, False):
        changes = {"WIREGUARD_MTU": "1420"} if chosen else {}
        gateway.start(gateway.env(FIREWALL_VPN_INPUT_PORTS=str(PORT), **changes)).wait_healthy()
        served = lab.workload.serve(*(echo(address, PORT) for address in CLIENT))
        body = measured(gateway, FITS)
        assert body["healthy"]
        assert body["mtu"] == mtu_in(lab.gateway_namespace) == (1420 if chosen else FITS)
        codes = {limit["code"] for limit in body["limits"]}  # type: ignore[attr-defined]
        assert (LimitCode.MTU_TOO_LARGE in codes) == chosen
        assert ("tunnel MTU lowered" in gateway.logs()) != chosen
        assert lab.workload.probe("tcp", host=HOST4).seen, "control: small packets pass"
        small = lab.internet.probe(
            "tcp", host=lab.server.exit.ipv4, port=PORT, source=OUTSIDER.ipv4
        )
        assert small.seen == OUTSIDER.ipv4, "control: the port is open"
        patience = 3 if chosen else 3 * PATIENCE
        arrived = [
            *(transferred(lab.workload, host, patience=patience) for host in (HOST4, HOST6)),
            *(
                transferred(lab.internet, host, PORT, own, patience)
                for host, own in zip(lab.server.exit, OUTSIDER, strict=True)
            ),
        ]
        assert arrived == [0 if chosen else SIZE] * 4
        assert gateway.status().body["reconnects"] == {}
        served.close()
        gateway.stop()


def test_a_change_of_the_way_begins_again_with_the_largest_packet(lab: Lab) -> None:
    """A path that was wide, is narrow after the change, and is wide after the next one."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    measured(gateway, 1420)
    assert "tunnel MTU lowered" not in gateway.logs()
    lab.operator.run("sysctl", "-w", f"net.ipv4.conf.{lab.uplink.name}.promote_secondaries=1")
    narrow(lab)
    move(lab, OWN4, OTHER)
    assert measured(gateway, FITS)["mtu"] == mtu_in(lab.gateway_namespace) == FITS
    lab.internet_namespace.nft("delete table inet narrow")
    move(lab, OTHER, OWN4)
    assert measured(gateway, 1420)["mtu"] == mtu_in(lab.gateway_namespace) == 1420


def test_a_server_that_answers_no_echo_changes_nothing(lab: Lab) -> None:
    """Nor does one that answers only small ones, because no path is that narrow."""
    narrow(lab)
    muted = f'iifname "{lab.server.interface}" meta l4proto {{ icmp, icmpv6 }}'
    for which in ("", "meta length > 500"):
        lab.server.namespace.nft(
            "add table inet mute\ndelete table inet mute\ntable inet mute { chain arrival {"
            f" type filter hook prerouting priority -300; {muted} {which} drop; }}; }}"
        )
        gateway = lab.gateway().start()
        gateway.wait_healthy()
        time.sleep(8)  # two hosts, three tries of a second each
        body = gateway.status().body
        assert (body["mtu"], body["path_mtu"], body["healthy"]) == (1420, None, True)
        assert mtu_in(lab.gateway_namespace) == 1420
        gateway.stop()
        gateway.close()


@pytest.mark.parametrize(
    ("host", "hops"),
    [(INSIDE.ipv4, None), (INSIDE.ipv6, None), ("192.0.2.1", 1), ("2001:db8::1", 1)],
    ids=["IPv4", "IPv6", "IPv4 as far as the server", "IPv6 as far as the server"],
)
def test_the_largest_echo_that_arrives_is_found(lab: Lab, host: str, hops: int | None) -> None:
    """A host behind the tunnel answers, and the server says that the hop limit was exceeded."""
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_MTU="1420")).wait_healthy()
    wanted = Probe(ProbeProtocol.ICMP, ip_address(host), hops)
    sizes = (576, 1280, FITS, FITS + STEP, 1420)

    def largest() -> int | None:
        netns = Netns.at(lab.gateway_namespace.path)
        return asyncio.run(largest_answered(wanted, sizes, netns))

    since = time.monotonic()
    assert largest() == 1420, "control: a wide path"
    narrow(lab)
    assert largest() == FITS
    assert lab.leaks(since) == []


def test_the_interface_in_a_vault_follows_too(lab: Lab) -> None:
    """It is in another namespace than the gateway, and the probes are sent there."""
    narrow(lab)
    site = Site(lab).start()
    assert measured(site.gateway, FITS)["mtu"] == mtu_in(lab.vault_namespace) == FITS
    assert [transferred(lab.vault_workload, host) for host in (HOST4, HOST6)] == [SIZE] * 2
