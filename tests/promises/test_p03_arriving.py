"""P3, the way in: from the endpoint's address nothing arrives but the encrypted flow.

An attacker on the way to the endpoint, or at it, sends to the namespace in the endpoint's name. Raw
sockets listen, which are shown whatever passes the input chain, on any port.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.internet import OUTSIDER, Uplink
from tests.lab.probes import ETH_P_IP, ETH_P_IPV6, ip_packet, syn_packet, udp_packet
from tests.lab.process import Child, eventually
from tests.lab.server import PORT
from tests.lab.topology import Lab
from tests.promises.stages import answer_again, send_frames, unique
from tests.promises.witness import not_by_the_exit, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P3")]

LISTENER = str(Path(__file__).parents[1] / "lab" / "listener.py")
OTHER_PORT = 40123
UDP_LITE, EXPERIMENT = 136, 253
RIGHT = "the flow itself"

Packets = dict[str, tuple[Uplink, bytes]]


def of(family: int, pair: object) -> str:
    """Return the address of this family."""
    return str(tuple(pair)[family == 6])  # type: ignore[call-overload]


def arrivals(lab: Lab, family: int, data: bytes) -> Packets:
    """Return packets by name, each with the link that it comes in by: one part wrong each."""
    first, second = lab.uplinks
    own, endpoint = of(family, first.gateway), of(family, lab.server.endpoint)
    segment = struct.pack("!HHHH", PORT, PORT, 8 + len(data), 0) + data
    icmp, kind = (58, 128) if family == 6 else (1, 8)
    echo = struct.pack("!BBHHH", kind, 0, 0, 1, 1) + data
    syn = syn_packet(endpoint, own, PORT, PORT)[-20:] + data
    return {
        RIGHT: (first, udp_packet(endpoint, own, PORT, PORT, data)),
        "source port": (first, udp_packet(endpoint, own, OTHER_PORT, PORT, data)),
        "destination port": (first, udp_packet(endpoint, own, PORT, OTHER_PORT, data)),
        "source": (first, udp_packet(of(family, OUTSIDER), own, PORT, PORT, data)),
        "tcp": (first, ip_packet(endpoint, own, socket.IPPROTO_TCP, syn, 16)),
        "icmp": (first, ip_packet(endpoint, own, icmp, echo, 2)),
        "udp-lite": (first, ip_packet(endpoint, own, UDP_LITE, segment, 6)),
        "another protocol": (first, ip_packet(endpoint, own, EXPERIMENT, segment, 6)),
        "interface": (second, udp_packet(endpoint, own, PORT, PORT, data)),
        "interface and destination": (
            second,
            udp_packet(endpoint, of(family, second.gateway), PORT, PORT, data),
        ),
    }


def framed(uplink: Uplink, packet: bytes) -> dict[str, object]:
    """Return what sends `packet` to the namespace from the far end of its link."""
    ends = [bytes.fromhex(mac.replace(":", "")) for mac in (uplink.gateway_mac, uplink.router_mac)]
    ether_type = ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP
    frame = b"".join(ends) + struct.pack("!H", ether_type) + packet
    return {"device": uplink.far_end, "frame": frame.hex()}


class Arriving:
    """A listener in the namespace, and a sender with the endpoint's address."""

    def __init__(self, lab: Lab, family: int) -> None:
        """Listen."""
        self._lab, self._family = lab, family
        self._marker = unique("arrival")
        self.names = list(arrivals(lab, family, b""))
        argv = [sys.executable, "-I", "-S", LISTENER, self._marker]
        self._listener: Child = lab.household.start(lab.workload.command(argv), "listener")
        self._listener.wait_for("ready")
        self._rounds = 0

    def heard(self) -> set[str]:
        """Send one of each; return those that reached a socket.

        One to the loopback interface goes last, so that nothing is still on its way.
        """
        self._rounds += 1
        sent: Packets = {}
        for number, name in enumerate(self.names):
            data = f"{self._marker}-{self._rounds}-{number}.".encode()
            sent[name] = arrivals(self._lab, self._family, data)[name]
        send_frames(self._lab.internet, [framed(*packet) for packet in sent.values()])
        last = f"-{self._rounds}-last"
        self._lab.workload.probe(
            "udp", host="127.0.0.1", port=9, marker=f"{self._marker}{last}.", timeout=0.1
        )
        eventually(lambda: last in self._lines(), timeout=5, what="the last packet")
        return {
            name
            for number, name in enumerate(self.names)
            if f"-{self._rounds}-{number}" in self._lines()
        }

    def _lines(self) -> list[str]:
        return self._listener.output().splitlines()


@pytest.fixture
def lab_of_two() -> Iterator[Lab]:
    """Return a lab with two uplinks; the endpoint is reached by the first."""
    with Lab(uplinks=2) as lab:
        yield lab


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_what_arrives_in_the_endpoints_name_with_one_part_wrong_reaches_no_socket(
    lab_of_two: Lab, family: int
) -> None:
    """Ports, protocol, source and interface; while connecting, connected and stopped.

    Controls: all of it arrives in the open namespace, and the right flow while it is admitted.
    Limitations: packet sockets, which are shown what arrives before anybody judges it (P14).
    """
    lab = lab_of_two
    arriving = Arriving(lab, family)
    assert arriving.heard() == set(arriving.names), "control: the open namespace"
    lab.server.cut()
    gateway = lab.gateway()
    gateway.start(gateway.env(family=family)).wait_for_state("connecting")
    lab.capture.wait_for(lambda f: f.destination_port == PORT, since=gateway.started_at)
    assert arriving.heard() == {RIGHT}
    answer_again(lab, gateway)
    assert arriving.heard() == {RIGHT}
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    assert gateway.stop() == 0
    assert arriving.heard() == set()
