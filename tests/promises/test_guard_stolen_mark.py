"""P14: the egress guard's mark can be learned, and a workload that has it still sends no frame.

The attack, by a workload with Docker's default capabilities: see tests/lab/mark_thief.py. With the
mark on a packet socket, frames that look like those of a hole used to pass the guard, though the
firewall had never seen them: DNS to a listed LAN, for one, which the firewall refuses.
"""

import re
import sys
import time
from pathlib import Path

import pytest

from gateway.firewall.nft.guard import ROUTED, TABLE
from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.probes import ROUTER_MAC, ethernet, udp_packet
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P14"), pytest.mark.both_firewalls]

PROGRAMS = Path(__file__).parents[1] / "lab"
OWN4, OWN6 = "172.30.0.2", "fd30::2"


@pytest.mark.parametrize("bypass", [0, 1])
def test_a_frame_that_has_the_stolen_mark_does_not_leave(lab: Lab, bypass: int) -> None:
    """The mark is stolen from a connected gateway, and a DNS question to the LAN sent with it.

    Control: with the same guard less its question for a route, the same frame leaves.
    """
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=",".join(LAN_SUBNETS))).wait_healthy()
    thief = (sys.executable, "-I", "-S", str(PROGRAMS / "mark_thief.py"), "eth0", OWN6)
    stolen = lab.workload.run(*thief).strip()
    guard = lab.operator.run("nft", "list", "table", *TABLE.split())
    assert f"meta mark {int(stolen, 16):#010x}" in guard, "control: it is the guard's mark"
    assert not left(lab, stolen, bypass)
    gateway.kill()  # nothing restores the guard now
    weaker = re.sub(f"{ROUTED.rpartition(' ')[0]} \\S+", "", guard)
    assert weaker != guard
    lab.operator.run("nft", "-f", "-", stdin=f"delete table {TABLE}\n{weaker}")
    assert left(lab, stolen, bypass), "control: the mark alone would be enough"


def left(lab: Lab, mark: str, bypass: int) -> bool:
    """Send a DNS question for the LAN host on a packet socket and say whether it got out."""
    packet = udp_packet(OWN4, LAN_HOST.ipv4, 40003, 53, b"stolen-mark")
    frame = ethernet(ROUTER_MAC, OWN4) + packet
    probe = (sys.executable, "-I", "-S", str(PROGRAMS / "guard_probe.py"))
    since = time.monotonic()
    lab.workload.run(*probe, "send", "eth0", frame.hex(), f"mark={mark}", f"bypass={bypass}")
    return bool(lab.capture.containing("stolen-mark", since))
