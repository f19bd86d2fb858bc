"""What a probe in the tunnel shows: of a resolver, of the server, and of the way there."""

import asyncio
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.policy.actions import SendProbe
from gateway.policy.probing import UNASSIGNED, Outcome, Probe, ProbeProtocol
from gateway.system.inside import USUAL
from gateway.system.netns import Netns
from gateway.system.probe import THOROUGH, probe
from tests.lab.encrypted import NAME
from tests.lab.gateway import PROJECT
from tests.lab.process import PATIENCE
from tests.lab.server import INSIDE
from tests.lab.tls import authority
from tests.lab.topology import Lab
from tests.lab.workload import Workload
from tests.promises.test_own_resolver import upstream
from tests.promises.test_partial_outages import UNDER_TRAFFIC, busy, counted, dropped, red

pytestmark = pytest.mark.lab

RESOLVER = Probe(ProbeProtocol.DNS, ip_address(INSIDE.ipv4))
OURS = Probe(ProbeProtocol.NAME, ip_address("127.0.0.1"))
TO_THE_SERVER = {
    version: Probe(ProbeProtocol.ICMP, address, hops=1) for version, address in UNASSIGNED.items()
}
ANSWERED = Outcome(answered=True, reached=True, tries=1)


def came_of(
    lab: Lab, wanted: Probe, echo: Probe | None = None, *, thorough: bool = False
) -> tuple[Outcome, float]:
    """Return what came of a probe, and the seconds that it took."""
    begun = time.monotonic()
    netns = Netns.at(lab.gateway_namespace.path)
    outcome = asyncio.run(probe(SendProbe(wanted, echo, thorough), netns))
    return outcome, time.monotonic() - begun


def test_what_comes_of_a_probe(lab: Lab) -> None:
    """A resolver that answers, is silent or refuses, alone and with an echo to the server.

    At the end nothing arrives any more, and a thorough probe takes its time to find that out.
    """
    gateway = lab.gateway()
    gateway.start(gateway.env(HEALTH_PROBE="off")).wait_healthy()
    assert came_of(lab, RESOLVER)[0] == ANSWERED
    for echo in TO_THE_SERVER.values():
        assert came_of(lab, echo)[0] == ANSWERED, "the hop limit was exceeded"
    assert came_of(lab, RESOLVER, TO_THE_SERVER[4])[0] == ANSWERED
    elsewhere = Probe(ProbeProtocol.DNS, ip_address(lab.server.exit.ipv4))
    assert came_of(lab, elsewhere)[0] == Outcome(answered=False, reached=True), "it refuses"
    counted(lab, "prerouting", f'iifname "{lab.server.interface}" udp dport 53')
    silent = Outcome(answered=False, reached=False, tries=USUAL.tries, lost=USUAL.tries)
    assert came_of(lab, RESOLVER)[0] == silent
    both, seconds = came_of(lab, RESOLVER, TO_THE_SERVER[6], thorough=True)
    assert both == Outcome(answered=False, reached=True)
    assert seconds < THOROUGH.tries * THOROUGH.interval - 1
    assert dropped(lab, "prerouting"), "control"
    assert came_of(lab, OURS)[0].reached is None, "nothing is known of the server"
    own = came_of(lab, OURS, TO_THE_SERVER[4])[0]
    assert (own.answered, own.reached) == (False, True)
    lab.server.cut("in")
    lost, seconds = came_of(lab, RESOLVER, TO_THE_SERVER[4], thorough=True)
    assert lost == Outcome(answered=False, reached=False)
    full = THOROUGH.tries * THOROUGH.interval
    assert full - 0.5 < seconds < full + 2 * PATIENCE
    assert came_of(lab, OURS, TO_THE_SERVER[4], thorough=True)[0].reached is False


WITHOUT_RAW = """
import asyncio, sys
from ipaddress import ip_address
from gateway.policy.actions import SendProbe
from gateway.policy.probing import Probe, ProbeProtocol
from gateway.system.probe import probe
for address in sys.argv[1:]:
    wanted = Probe(ProbeProtocol.ICMP, ip_address(address), hops=1)
    print(asyncio.run(probe(SendProbe(wanted))).reached)
"""


def test_an_echo_without_net_raw_hears_that_the_hop_limit_was_exceeded(lab: Lab) -> None:
    """As with a vault, whose namespace opens no raw sockets; control: a server that is cut off."""
    gateway = lab.gateway()
    gateway.start(gateway.env(HEALTH_PROBE="off")).wait_healthy()
    addresses = map(str, UNASSIGNED.values())
    place = Workload(lab.gateway_namespace, lab.household, capabilities=("net_admin",))
    argv = ("env", f"PYTHONPATH={PROJECT}", sys.executable, "-c", WITHOUT_RAW, *addresses)
    assert place.run(*argv).split() == ["True", "True"]
    lab.server.cut("in")
    assert place.run(*argv).split() == ["False", "False"]


def test_a_lost_way_is_found_where_names_are_asked_over_tls(lab: Lab, tmp_path: Path) -> None:
    """The gateway's own resolver says nothing about the server, so an echo comes with it."""
    trusted = authority(tmp_path)
    upstream(lab, trusted.issue(NAME))
    changes = {
        "DNS_SERVER": "on",
        "DNS_ADDRESS": "",
        "DNS_UPSTREAM_RESOLVERS": f"{INSIDE.ipv4}@853#{NAME}",
        "SSL_CERT_FILE": str(trusted.certificate),
    }
    with busy(lab, **changes) as gateway:
        time.sleep(6)
        assert gateway.status().code == 200
        begun = time.monotonic()
        lab.server.cut("in")
        health = red(gateway, begun, UNDER_TRAFFIC)
        assert health.body["reason_code"] in {"one_way", "resolver_down"}
        gateway.wait_for_state("connecting", timeout=20)
        assert gateway.status().body["reconnects"] == {"one_way": 1}
        lab.server.restore()
        gateway.wait_healthy(timeout=60)
