"""P15: one more address on an uplink is not a reason to reconnect, and one less may be."""

import time

import pytest

from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.witness import HOST4

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

FAMILIES = pytest.mark.parametrize("family", [4, 6])
MORE = {4: ("172.30.0.{}/24", "172.30.0.2/24"), 6: ("fd30::{}/64 nodad", "fd30::2/64")}


@FAMILIES
def test_a_new_address_on_the_uplink_costs_nothing(lab: Lab, family: int) -> None:
    """Health stays green and traffic flows, however often a neighbour or an engine adds one."""
    gateway = lab.gateway()
    variables = {"FIREWALL_OUTBOUND_SUBNETS": "192.168.77.0/24,fd77::/64"}
    gateway.start(gateway.env(family=family, **variables)).wait_healthy()
    stream = lab.workload.stream(HOST4, interval=0.02, timeout=0.5)
    eventually(lambda: len(stream.exchanges()) > 5, timeout=5, what="exchanges")
    more, first = MORE[family]
    reported = []
    for number in range(10):
        lab.gateway_namespace.ip(f"addr add {more.format(20 + number)} dev eth0")
        reported += watched(gateway, 0.5)
    address = more.format(29).split()[0].partition("/")[0]
    eventually(
        lambda: address in rules(lab), timeout=5, what="control: the gateway has heard of it"
    )
    assert {health.code for health in reported} == {200}
    assert gateway.status().body["reconnects"] == {}
    assert set(stream.stop()["kinds"]) == {"answered"}
    # Control: the address that is used goes.
    lab.gateway_namespace.ip(f"addr del {first} dev eth0")
    eventually(
        lambda: gateway.status().body["reconnects"],
        timeout=5,
        what="the loss to be counted; health may be red for less than a second",
    )


def watched(gateway: Gateway, seconds: float) -> list:
    """Return what health said in these seconds."""
    reported, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        reported.append(gateway.status())
        time.sleep(0.02)
    return reported


def rules(lab: Lab) -> str:
    """Return all firewall rules, of either backend."""
    shown = (("nft", "list", "ruleset"), ("iptables-legacy-save",), ("ip6tables-legacy-save",))
    return "".join(lab.operator.run(*argv, check=False) for argv in shown)
