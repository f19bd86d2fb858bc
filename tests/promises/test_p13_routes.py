"""P13: the routes alone keep ordinary traffic in, with the firewall opened on purpose.

The gateway is halted meanwhile, so that it cannot put its rules back. The neighbour on the link is
the control: he is reached, and seen to be, which no firewall would have allowed.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.frames import addressed_to, wireguard_to
from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.witness import (
    HOST4,
    HOST6,
    not_answered,
    not_by_the_exit,
    not_refused_at_once,
    open_firewall,
    open_routes,
    ordinary,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P13")]


OWN_REPORTS = (addressed_to("ff02::/16"), addressed_to("224.0.0.0/4"))
"""What an open kernel sends to the groups of its link by itself."""


@contextmanager
def opened(lab: Lab, gateway: Gateway) -> Iterator[float]:
    """Halt the gateway and open the firewall; yield the moment from which that is sure."""
    gateway.signal(signal.SIGSTOP)
    try:
        open_firewall(lab)
        since = time.monotonic()
        assert not_answered(ordinary(lab.workload, "open", tuple(lab.uplink.router))) == {}
        assert lab.capture.containing("open", since), "control: the firewall is open"
        yield time.monotonic()
    finally:
        gateway.signal(signal.SIGCONT)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_with_the_firewall_open_traffic_takes_the_tunnel_or_fails(lab: Lab, family: int) -> None:
    """With a tunnel that works, one whose server is silent, and none."""
    gateway = lab.gateway()
    gateway.start(gateway.env(family=family))
    gateway.wait_healthy()
    with opened(lab, gateway) as since:
        assert not_by_the_exit(lab, ordinary(lab.workload, "up")) == {}
        lab.server.cut()
        for host in (HOST4, HOST6):
            answer = lab.workload.probe("udp", host=host, marker="silent", timeout=0.2)
            assert answer.result == "timeout"
        lab.operator.run("ip", "link", "del", "wg0")
        assert not_refused_at_once(ordinary(lab.workload, "gone")) == {}
        assert lab.leaks(since, allowed=OWN_REPORTS) == []
        open_routes(lab)
        assert not_answered(ordinary(lab.workload, "routes")) == {}
        assert lab.capture.containing("routes", since), "control: the routes were what held it"
    lab.server.restore()
    eventually(
        lambda: not not_by_the_exit(lab, ordinary(lab.workload)),
        timeout=15,
        what="the tunnel to be put back",
    )
    eventually(
        lambda: lab.workload.probe("udp", host=lab.uplink.router.ipv4).failed_fast,
        timeout=5,
        what="the rules to be put back",
    )


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_with_the_firewall_open_there_is_no_way_after_the_gateway(
    lab: Lab, ending: signal.Signals
) -> None:
    """The tables end in `unreachable`, and that stays when the gateway ends."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    gateway.signal(ending)
    gateway.wait()
    open_firewall(lab)
    since = time.monotonic()
    assert not_refused_at_once(ordinary(lab.workload, "gone")) == {}
    assert lab.leaks(since, allowed=OWN_REPORTS) == []
    open_routes(lab)
    assert not_answered(ordinary(lab.workload, "routes")) == {}
    assert lab.capture.containing("routes"), "control: the routes were what held it"


def test_with_the_firewall_open_there_is_no_way_before_the_handshake(lab: Lab) -> None:
    """Neither with an interface whose server is silent, nor without one."""
    lab.server.cut()
    gateway = lab.gateway().start()
    lab.capture.wait_for(wireguard_to(lab.server.endpoint.ipv4), since=gateway.started_at)
    for family in ("-4", "-6"):  # the routes come after the interface, which sends at once
        shown = ("ip", family, "route", "show", "table", "51820", "dev", "wg0")
        eventually(lambda s=shown: lab.operator.run(*s), timeout=5, what="the tunnel's routes")
    with opened(lab, gateway) as since:
        for host in (HOST4, HOST6):
            answer = lab.workload.probe("udp", host=host, marker="silent", timeout=0.2)
            assert answer.result == "timeout"
        lab.operator.run("ip", "link", "del", "wg0")
        assert not_refused_at_once(ordinary(lab.workload, "gone")) == {}
        assert lab.leaks(since, allowed=OWN_REPORTS) == []
