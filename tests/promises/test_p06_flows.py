"""P6: no flow outlives its path, neither one that began here nor one that came in."""

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable

import pytest

from tests.lab.frames import Frame
from tests.lab.gateway import Gateway
from tests.lab.hosts import ECHO_PORT, echo
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS, OUTSIDER
from tests.lab.process import PATIENCE, Child, eventually
from tests.lab.topology import Lab
from tests.lab.workload import Traffic
from tests.promises.witness import (
    HOST4,
    HOST6,
    locked,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P6")]

PORT = 6881
LATER = 0.5
"""Seconds in which a flow that lost its path tries to go on: retransmissions begin after 0.2 s."""

PUSH = """
import socket, sys, time
family = socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET
stream = socket.socket(family, socket.SOCK_STREAM)
stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
datagrams = socket.socket(family, socket.SOCK_DGRAM)
for outlet in (stream, datagrams):
    outlet.bind((sys.argv[2], int(sys.argv[3])))
stream.listen()
print("ready", flush=True)
client = stream.accept()[0] if sys.argv[4] == "tcp" else datagrams.recvfrom(100)[1]
while True:
    try:
        if sys.argv[4] == "tcp":
            client.send(b"pushed-to-client")
        else:
            datagrams.sendto(b"pushed-to-client", client)
    except OSError:
        pass
    time.sleep(0.02)
"""
"""A server that keeps sending to its first client, whatever it hears."""


def streams(lab: Lab, marker: str) -> list[Traffic]:
    """Start flows of both protocols to hosts of both families."""
    return [
        lab.workload.stream(host, protocol=protocol, marker=marker, timeout=0.2)
        for host in (HOST4, HOST6)
        for protocol in ("tcp", "udp")
    ]


def wait_until_alive(flows: list[Traffic]) -> None:
    """Wait until each of the flows has had an answer."""
    for flow in flows:
        eventually(
            lambda flow=flow: [e for e in flow.exchanges() if e["result"] == "answered"],
            timeout=5,
            what="an exchange",
        )


def answered_since(flows: list[Traffic], since: float) -> list[dict[str, object]]:
    """Return the exchanges begun after `since` that were answered."""
    return [
        event
        for flow in flows
        for event in flow.exchanges()
        if event["at"] > since and event["result"] == "answered"
    ]


def carries(marker: str) -> Callable[[Frame], bool]:
    """Judge whether a frame carries `marker` unencrypted."""
    return lambda frame: marker.encode() in frame.raw


def test_flows_older_than_the_gateway_die_with_the_lock(lab: Lab) -> None:
    """TCP and UDP, both families; no answer, nothing outside, not even the end of a connection."""
    flows = streams(lab, "older")
    wait_until_alive(flows)
    assert lab.capture.containing("older"), "control: seen while it is open"
    gateway = lab.gateway().start()
    closed_at = locked(gateway)
    gateway.wait_healthy()
    lab.capture.quiet_for(LATER)
    assert lab.leaks(closed_at) == []
    assert answered_since(flows, closed_at) == []
    for flow in flows:
        flow.stop()
    assert lab.leaks(closed_at) == []


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_an_idle_connection_continues_where_a_list_allows_a_new_one_and_nowhere_else(
    lab: Lab, family: int
) -> None:
    """What is in no list is refused, and nothing of it is seen outside.

    Control: the connection to the listed host is seen to go on.
    """
    listed_host, other_host, subnet = (
        address.ipv4 if family == 4 else address.ipv6
        for address in (LAN_HOST, INTERNET[0], LAN_SUBNETS)
    )
    with contextlib.ExitStack() as stack:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        listed, other = (
            stack.enter_context(
                contextlib.closing(lab.gateway_namespace.socket(kind, socket.SOCK_STREAM))
            )
            for _ in range(2)
        )
        for channel, host in ((listed, listed_host), (other, other_host)):
            channel.settimeout(5 * PATIENCE)
            channel.connect((host, ECHO_PORT))
            assert channel.recv(200), "who we are"
        gateway = lab.gateway()
        gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=subnet)).wait_healthy()
        since = time.monotonic()
        listed.sendall(b"goes-on\n")
        assert listed.recv(200) == b"goes-on\n"
        other.sendall(b"ends-here\n")
        with pytest.raises(ConnectionResetError):
            other.recv(200)
        assert lab.capture.containing("goes-on", since), "control"
        assert lab.capture.containing("ends-here", since) == []


def wg0_deleted(lab: Lab, gateway: Gateway) -> None:
    """Delete the interface."""
    del gateway
    lab.operator.run("ip", "link", "del", "wg0")


def wg0_deleted_while_the_gateway_hangs(lab: Lab, gateway: Gateway) -> None:
    """Delete the interface, while the gateway cannot put it back."""
    gateway.signal(signal.SIGSTOP)
    lab.operator.run("ip", "link", "del", "wg0")


def stopped(lab: Lab, gateway: Gateway) -> None:
    """Ask the gateway to stop."""
    del lab
    assert gateway.stop() == 0


def killed(lab: Lab, gateway: Gateway) -> None:
    """Kill the gateway."""
    del lab
    gateway.kill()


def server_dead(lab: Lab, gateway: Gateway) -> None:
    """Silence the server."""
    del gateway
    lab.server.cut()


ENDS = (wg0_deleted, wg0_deleted_while_the_gateway_hangs, stopped, killed, server_dead)


@pytest.mark.parametrize("end", ENDS)
def test_flows_in_the_tunnel_do_not_continue_outside(
    lab: Lab, end: Callable[[Lab, Gateway], None]
) -> None:
    """However the tunnel ends."""
    control = lab.workload.stream(HOST4, marker="inside")
    lab.capture.wait_for(carries("inside"))
    control.stop()
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    since = time.monotonic()
    flows = streams(lab, "inside")
    wait_until_alive(flows)
    end(lab, gateway)
    lab.capture.quiet_for(LATER)
    assert not lab.capture.containing("inside", since)
    assert lab.leaks(since) == []


def pusher(lab: Lab, family: int, protocol: str, address: str) -> Child:
    """Start a workload that pushes data to its first client."""
    argv = [sys.executable, "-I", "-S", "-c", PUSH, str(family), address, str(PORT), protocol]
    child = lab.household.start(lab.workload.command(argv), "pusher")
    child.wait_for("ready")
    return child


def call(lab: Lab, protocol: str, host: str, source: str) -> None:
    """Call the pusher as an outsider and leave the flow as it is."""
    lab.internet.probe(protocol, host=host, port=PORT, source=source, timeout=0.5)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_a_flow_that_came_in_by_the_tunnel_gets_no_answer_outside(
    lab: Lab, family: int, protocol: str
) -> None:
    """Even at a port that is listed on the uplink too: its answers belong to where it began.

    The control is the same server, called at the uplink's address.
    """
    at = family == 6
    own, exit_, outsider = (
        tuple(host)[at] for host in (lab.uplink.gateway, lab.server.exit, OUTSIDER)
    )
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_INPUT_PORTS=str(PORT), FIREWALL_VPN_INPUT_PORTS=str(PORT)))
    gateway.wait_healthy()
    lab.server.forward_port(PORT)
    control = pusher(lab, family, protocol, own)
    call(lab, protocol, own, outsider)
    lab.capture.wait_for(carries("pushed-to-client"), since=gateway.started_at)
    control.close()
    lab.capture.quiet_for(0.1)

    since = time.monotonic()
    child = pusher(lab, family, protocol, "::" if at else "0.0.0.0")
    call(lab, protocol, exit_, outsider)
    gateway.signal(signal.SIGSTOP)
    lab.operator.run("ip", "link", "del", "wg0")
    lab.capture.quiet_for(LATER)
    gateway.signal(signal.SIGCONT)
    gateway.wait_healthy(15)
    lab.capture.quiet_for(LATER)
    child.close()
    assert not [f for f in lab.capture.frames(since) if carries("pushed-to-client")(f)]
    assert lab.leaks(since) == []


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
def test_a_call_injected_on_loopback_gets_no_answer_out(
    lab: Lab, family: int, protocol: str
) -> None:
    """A workload pretends that a stranger called a listed port; the answer stays inside."""
    at = family == 6
    own, stranger = tuple(lab.uplink.gateway)[at], (HOST4, HOST6)[at]
    served = lab.workload.serve(echo(own, PORT))
    lab.gateway_namespace.sysctl("ipv4/conf/lo/accept_local", 1)
    probe = {
        "device": "lo", "source": stranger, "host": own, "port": PORT, "transport": protocol,
        "marker": "injected",
    }  # fmt: skip

    def answers(frame: Frame) -> bool:
        return frame.source_port == PORT and frame.destination == stranger

    since = time.monotonic()
    lab.workload.probe("packet", **probe)
    lab.capture.wait_for(answers, since=since)  # control: an open namespace answers outside
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_INPUT_PORTS=str(PORT), FIREWALL_VPN_INPUT_PORTS=str(PORT)))
    closed_at = locked(gateway)
    gateway.wait_healthy()
    for _ in range(3):
        lab.workload.probe("packet", **probe)
    lab.capture.quiet_for(LATER)
    served.close()
    assert lab.leaks(closed_at) == []
