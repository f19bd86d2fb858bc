"""P1 and P3: no kind of packet leaves, whatever its protocol, shape, destination or socket option.

The encrypted flow and the holes are open, and nothing else fits through. Frames from packet
sockets are in it in their plainest form; test_p14_packet_sockets.py has the others.
"""

import time

import pytest

from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.kinds import OWN4, OWN6, Barrage
from tests.lab.topology import Lab
from tests.promises.stages import answer_again, unique
from tests.promises.witness import not_by_the_exit, ordinary

pytestmark = [
    pytest.mark.lab,
    pytest.mark.promise("P1"),
    pytest.mark.promise("P3"),
    pytest.mark.both_firewalls,
]

VARIABLES = {
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(LAN_SUBNETS),
    "FIREWALL_INPUT_PORTS": "8080",
}


def barrage(lab: Lab) -> Barrage:
    """Prepare one of every kind, unbound and bound to the uplink, with a marker of its own."""
    return Barrage(unique("kind"), lab.uplink.name)


def leaving(lab: Lab) -> tuple[set[str], list[str]]:
    """Send every kind; return which got out, and every frame that has no business outside."""
    sent, since = barrage(lab), time.monotonic()
    sent.send(lab.workload)
    lab.capture.quiet_for(0.1)
    return sent.seen(lab.capture.frames(since)), [str(frame) for frame in lab.leaks(since)]


def test_no_kind_of_packet_leaves_in_any_state(lab: Lab) -> None:
    """Locked by a wrong variable, connecting, connected with a LAN hole and an input port, stopped.

    The control is the same in the open namespace; the hole and the tunnel keep working.
    """
    control = barrage(lab)
    assert leaving(lab)[0] == set(control.names), "control: before the gateway starts"
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_ENDPOINT_PORT="no port"))
    assert gateway.wait() != 0
    assert leaving(lab) == (set(), [])
    lab.server.cut()
    gateway.start(gateway.env(**VARIABLES)).wait_for_state("connecting")
    assert leaving(lab) == (set(), [])
    answer_again(lab, gateway)
    assert leaving(lab) == (set(), [])
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}
    for host, own in zip(LAN_HOST, (OWN4, OWN6), strict=True):
        assert lab.workload.probe("udp", host=host).seen == own
    assert gateway.stop() == 0
    assert leaving(lab) == (set(), [])
