"""TCP connections of workloads continue when the gateway is stopped, killed or replaced.

The container that owns the namespace runs `gateway hold`; gateways come and go in another one. One
connection of each kind carries data all the time, in the direction in which the workload's side
says nothing by itself wherever that is possible: only retransmissions can bring it back.
"""

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.lab.errors import LabError
from tests.lab.internet import LAN_HOST, LAN_SUBNETS, OUTSIDER
from tests.lab.process import PATIENCE, promised
from tests.lab.server import CLIENT
from tests.lab.topology import Lab
from tests.lab.transfers import sink, source
from tests.promises.test_hold import anchor, held, waiting
from tests.promises.witness import (
    AT_ONCE,
    FLOOD,
    HOST4,
    HOST6,
    flooded,
    links,
    locked,
    not_answered,
    not_refused_at_once,
    ordinary,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P6", "P15")]

FAR, LISTED, INPUT = 9100, 6881, 8080
HOLES = {
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(LAN_SUBNETS),
    "FIREWALL_INPUT_PORTS": str(INPUT),
    "FIREWALL_VPN_INPUT_PORTS": str(LISTED),
}
IN_PLACE = 2.0
"""Seconds without data when a gateway starts as soon as the last one has ended."""


class Site:
    """A held namespace with a connected gateway, one connection of each kind, and a flood."""

    def __init__(self, lab: Lab, *, flood: bool = True) -> None:
        self.lab = lab
        if flood:
            flooded(lab, *(k for k in FLOOD if not k.startswith("packet")), rate=50)
        self.anchor = held(anchor(lab))
        self.locked_at = locked(self.anchor)
        self.gateway = lab.gateway(pid_namespace=True)
        self.start()
        lab.server.forward_port(LISTED)
        home, internet = lab.household, lab.internet
        for host in (HOST4, HOST6):
            source(internet, home, host, FAR)
        source(lab.lan, home, LAN_HOST.ipv4, FAR)
        source(lab.workload, home, CLIENT.ipv4, LISTED)
        source(lab.workload, home, lab.uplink.gateway.ipv4, INPUT)
        self.in_tunnel = [
            sink("the download by IPv4", lab.workload, home, HOST4, FAR),
            sink("the download by IPv6", lab.workload, home, HOST6, FAR),
            sink("the listed port", internet, home, lab.server.exit.ipv4, LISTED, OUTSIDER.ipv4),
        ]
        around = [
            sink("the LAN", lab.workload, home, LAN_HOST.ipv4, FAR),
            sink("the input port", internet, home, lab.uplink.gateway.ipv4, INPUT, OUTSIDER.ipv4),
        ]
        self.all = [*self.in_tunnel, *around]

    def start(self, **changes: str) -> None:
        """Start the gateway."""
        self.gateway.start(self.gateway.env(**(HOLES | changes))).wait_healthy()

    def all_continue_after(self, since: float, timeout: float = 5) -> None:
        """Wait until each connection has carried data after `since`."""
        for transfer in self.all:
            transfer.continues_after(since, timeout)

    def nothing_leaked(self) -> None:
        """Check what was captured outside since the lock, apart from what the lists name.

        The flood was seen before, which is the control.
        """
        own = self.lab.uplink.gateway.ipv4
        listed = [
            lambda f: (f.source, f.destination, f.destination_port) == (own, LAN_HOST.ipv4, FAR),
            lambda f: (f.source, f.source_port, f.destination) == (own, INPUT, OUTSIDER.ipv4),
        ]
        assert self.lab.leaks(self.locked_at, allowed=listed) == []
        assert self.lab.capture.containing("flood-marker", self.locked_at) == []


@pytest.fixture
def site(lab: Lab) -> Iterator[Site]:
    """Yield the site; afterwards nothing may have leaked."""
    found = Site(lab)
    yield found
    found.nothing_leaked()


def stopped(site: Site) -> None:
    """End the gateway by SIGTERM."""
    assert site.gateway.stop() == 0


def killed(site: Site) -> None:
    """End it by SIGKILL."""
    site.gateway.kill()


def killed_and_held_again(site: Site) -> None:
    """End it by SIGKILL; then another `gateway hold` closes the namespace."""
    site.gateway.kill()
    waiting(anchor(site.lab).start({}))


ENDS = (stopped, killed, killed_and_held_again)


@pytest.mark.quiet
@pytest.mark.both_firewalls
@pytest.mark.parametrize("end", [stopped, killed])
def test_a_restart_in_place_costs_two_seconds(
    site: Site, end: Callable[[Site], None], record_property: Callable[[str, object], None]
) -> None:
    """The new gateway starts as soon as the last one has ended."""
    since = time.monotonic()
    end(site)
    site.start()
    back = time.monotonic()
    site.all_continue_after(back)
    gaps = {transfer.name: round(transfer.longest_gap(since), 2) for transfer in site.all}
    record_property("gaps", gaps)
    assert max(gaps.values()) < promised(IN_PLACE)


@pytest.mark.parametrize("end", [stopped, killed])
def test_a_download_continues_with_the_next_gateway(lab: Lab, end: Callable[[Site], None]) -> None:
    """On the kernel's WireGuard too, where an emulated processor serves no flood.

    Control: a stop removes the interface.
    """
    site = Site(lab, flood=False)
    end(site)
    assert end is killed or "wg0" not in links(lab)
    site.start()
    now = time.monotonic()
    for transfer in site.in_tunnel:
        transfer.continues_after(now, 20)
    site.nothing_leaked()


@pytest.mark.parametrize("end", ENDS)
def test_connections_continue_after_five_seconds_without_a_gateway(
    site: Site, end: Callable[[Site], None]
) -> None:
    """Meanwhile what begins is refused at once, and nothing is carried."""
    end(site)
    assert not_refused_at_once(ordinary(site.lab.workload)) == {}
    since = time.monotonic()
    time.sleep(5)
    for transfer in site.in_tunnel:
        assert transfer.moments()[-1] < since, "control: there is an interruption"
    site.start()
    site.all_continue_after(time.monotonic(), timeout=12)
    assert not_answered(ordinary(site.lab.workload)) == {}


def test_connections_continue_after_forty_seconds_without_a_gateway(site: Site) -> None:
    """Retransmissions are then as far apart as the outage was long (RFC 6298)."""
    stopped(site)
    time.sleep(40)
    site.start()
    site.all_continue_after(time.monotonic(), timeout=50)


def test_connections_continue_after_the_server_was_gone(site: Site) -> None:
    """The gateway closes while it reconnects, with the interface there."""
    site.lab.server.cut()
    site.gateway.wait_unhealthy()
    time.sleep(2)
    site.lab.server.restore()
    site.gateway.wait_healthy(30)
    site.all_continue_after(time.monotonic(), timeout=50)


def test_a_workload_that_sends_while_all_is_closed_keeps_its_connection(site: Site) -> None:
    """With the interface and its routes still there, when its packets meet the closed rules.

    A wrong command line locks, and the gateway hangs meanwhile. Control: a new connection is reset.
    """
    lab = site.lab
    with closing(lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_STREAM)) as channel:
        channel.settimeout(10 * PATIENCE)
        channel.connect((HOST4, 7))
        channel.recv(200)
        site.gateway.signal(signal.SIGSTOP)
        code, _ = site.gateway.execute(sys.executable, "-m", "gateway", "stauts")
        assert code == 2
        assert "wg0" in lab.operator.run("ip", "-br", "link"), "control: it is still there"
        channel.sendall(b"goes-on\n")
        refused = lab.workload.probe("tcp", host=HOST4)
        assert refused.failed_fast
        assert refused.errno == "ECONNREFUSED"
        assert refused.seconds < AT_ONCE
        time.sleep(1)
        site.gateway.signal(signal.SIGCONT)
        assert channel.recv(200) == b"goes-on\n"


@pytest.mark.promise("P9")
def test_a_connection_to_a_port_that_is_no_longer_listed_ends_with_the_restart(site: Site) -> None:
    """The kernel remembers the connection; the list decides. Control: the others continue."""
    stopped(site)
    site.start(FIREWALL_VPN_INPUT_PORTS="1")
    since = time.monotonic()
    *others, port = site.in_tunnel
    for transfer in others:
        transfer.continues_after(since, 5)
    with pytest.raises(LabError, match="waited"):
        # Its data may still leave once, but what the client answers is dropped.
        port.continues_after(since + 3, 6)
