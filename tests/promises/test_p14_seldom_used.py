"""P14 and P1: ways to send that few programs use, judged outside like all others."""

import sys
import time
from pathlib import Path

import pytest

from tests.lab import families
from tests.lab.frames import Frame
from tests.lab.internet import INTERNET
from tests.lab.probes import ROUTER_MAC, ethernet, udp_packet
from tests.lab.topology import Lab
from tests.promises.stages import OWN4, connecting, unique

pytestmark = [pytest.mark.lab, pytest.mark.promise("P14")]

PROGRAM = str(Path(families.__file__))


def left(lab: Lab, way: str) -> bool:
    """Send by `way` from a workload and say whether it got out of the namespace."""
    host, marker, since = INTERNET[0].ipv4, unique("seldom"), time.monotonic()
    packet = udp_packet(OWN4, host, 40002, families.PORT, marker.encode())
    frame = (ethernet(ROUTER_MAC, OWN4) + packet).hex()
    argv = (sys.executable, "-I", "-S", PROGRAM)
    said = lab.workload.run(*argv, way, "eth0", host, marker, frame)
    if said in {"EPROTONOSUPPORT", "ENOPROTOOPT"}:
        pytest.skip(f"this kernel has no {way}")
    lab.capture.quiet_for(0.1)

    def is_ours(found: Frame) -> bool:
        to_port = way == "mptcp" and found.destination_port == families.PORT
        return to_port or marker.encode() in found.raw

    return any(is_ours(found) for found in lab.capture.frames(since))


@pytest.mark.parametrize("way", families.WAYS)
def test_what_few_programs_use_does_not_leave_either(lab: Lab, way: str) -> None:
    """Connected, and while connecting. Control: it leaves before the gateway starts."""
    assert left(lab, way), "control"
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    assert not left(lab, way)
    with connecting(lab, gateway):
        assert not left(lab, way)
