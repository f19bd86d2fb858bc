"""Where the promises end: what docs/known-issues.md says happens, and its remedy helps."""

import signal

import pytest

from tests.lab.frames import addressed_to
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS
from tests.lab.server import PORT
from tests.lab.topology import Lab
from tests.lab.workload import DOCKER_CAPABILITIES, Workload

pytestmark = [pytest.mark.lab]

CHOSEN_MARK = 0x4711


def test_a_killed_gateway_leaves_the_holes_of_its_last_state_and_no_others(lab: Lab) -> None:
    """The LAN is reached still, the internet by no way; a start in place closes the hole again."""
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=",".join(LAN_SUBNETS))).wait_healthy()
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    assert [lab.workload.probe("udp", host=host).result for host in LAN_HOST] == ["answered"] * 2
    for host in INTERNET[0]:
        assert lab.workload.probe("udp", host=host).failed_fast
        assert lab.workload.probe("udp", host=host, device="eth0").failed_fast
    lab.server.cut()
    gateway.restart().wait_for_state("connecting")
    assert all(lab.workload.probe("udp", host=host).failed_fast for host in LAN_HOST)


def test_a_mark_that_the_user_chose_is_shown_and_lets_a_raw_socket_reach_the_endpoint(
    lab: Lab,
) -> None:
    """Nobody else is reached; without CAP_NET_RAW there is neither mark nor raw socket."""
    gateway = lab.gateway()
    gateway.write("/run/secrets/wg0.conf", gateway.wg_quick(extra=f"FwMark = {CHOSEN_MARK:#x}"))
    gateway.start({"LOG_LEVEL": "debug", "LOG_FORMAT": "json"}).wait_healthy()
    assert f"fwmark {CHOSEN_MARK:#x} " in lab.workload.run("ip", "rule", "show")
    own, endpoint = lab.uplink.gateway.ipv4, lab.server.endpoint.ipv4
    flow = {"host": endpoint, "source": own, "source_port": PORT, "port": PORT}
    lab.workload.probe("forged", **flow, mark=CHOSEN_MARK, marker="known-mark")
    assert lab.capture.containing("known-mark"), "the limit is where we say it is"
    elsewhere = flow | {"host": INTERNET[0].ipv4}
    lab.workload.probe("forged", **elsewhere, mark=CHOSEN_MARK, marker="elsewhere")
    assert not lab.capture.containing("elsewhere")
    kept = [name for name in DOCKER_CAPABILITIES if name != "net_raw"]
    careful = Workload(lab.gateway_namespace, lab.household, capabilities=kept)
    answer = careful.probe("forged", **flow, mark=CHOSEN_MARK, marker="without-net-raw")
    assert answer.result == "denied"
    assert not lab.capture.containing("without-net-raw")
    assert lab.leaks(gateway.started_at + 2, allowed=[addressed_to(endpoint)]) == []
