"""P14: frames from AF_XDP sockets do not leave while the gateway runs.

A workload with Docker's default capabilities sends whole frames by transmit-only sockets, in every
mode and by every queue. The control is the same salvo before the gateway starts. Links come, go,
get other names and more queues; and another program may have a queue before the gateway does.
"""

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from gateway.policy.limits import LimitCode
from gateway.policy.states import Reason
from tests.lab.capture import Capture
from tests.lab.container import GATEWAY_CAPABILITIES
from tests.lab.internet import INTERNET, LAN_HOST
from tests.lab.namespace import connect
from tests.lab.probes import ROUTER_MAC, ethernet, udp_packet
from tests.lab.process import PATIENCE, Child, eventually
from tests.lab.server import INSIDE
from tests.lab.topology import Lab
from tests.lab.xdp import set_queues
from tests.promises.stages import OWN4, OWN6, connecting, limits_here, unique

pytestmark = [pytest.mark.lab, pytest.mark.promise("P14")]

FLOOD = "xdp-flood-marker"
CLOSED_AFTER = 0.5 * PATIENCE
"""Seconds within which a link that appears is closed, or kept down."""


def frame_of(marker: str, own: str = OWN4) -> str:
    """Return a datagram to the internet with `marker`, in hexadecimal."""
    host = INTERNET[0].ipv6 if ":" in own else INTERNET[0].ipv4
    return (ethernet(ROUTER_MAC, own) + udp_packet(own, host, 40002, 7, marker.encode())).hex()


def jobs_for(device: str) -> Iterator[dict[str, object]]:
    """Yield every way to send by an AF_XDP socket on `device`."""
    for mode in ("copy", "zerocopy", "any"):
        for wakeup in (False, True):
            for queue in (0, 1, 0x10000):  # the last one is queue 0 again in 16 bits
                yield {"device": device, "queue": queue, "mode": mode, "wakeup": wakeup}
    yield {"device": device, "own": OWN6}
    yield {"device": device, "shared": ["wg0", 0]}
    yield {"device": device, "shared": ["lo", 0]}


def salvo(lab: Lab, device: str = "eth0", capture: Capture | None = None) -> set[str]:
    """Send in every way; return what got out, as the mode and queue of each."""
    name, since = unique("xdp"), time.monotonic()
    jobs = [
        {"frame": frame_of(f"{name}.{number}.", str(job.pop("own", OWN4))), **job}
        for number, job in enumerate(jobs_for(device))
    ]
    lab.workload.send_by_xdp(*jobs)
    capture = capture or lab.capture
    capture.quiet_for(0.1)
    return {
        f"{job.get('mode', 'shared')} {job.get('queue', 0)}"
        for number, job in enumerate(jobs)
        if capture.containing(f"{name}.{number}.", since)
    }


def test_no_frame_leaves_in_any_state(lab: Lab) -> None:
    """Connecting, connected with holes, connecting again, and after a restart in its place."""
    assert {"copy 0", "any 0", "shared 0"} <= salvo(lab), "control: before the gateway starts"
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS="192.168.77.0/24,fd77::/64"))
    health = gateway.wait_healthy()
    assert health.body["limits"] == limits_here(lab)
    assert salvo(lab) == set()
    with connecting(lab, gateway):
        assert salvo(lab) == set()
    gateway.restart().wait_healthy()
    assert salvo(lab) == set()
    for host, own in zip(LAN_HOST, (OWN4, OWN6), strict=True):
        assert lab.workload.probe("udp", host=host).seen == own
    for host in INSIDE:
        assert lab.workload.probe("tcp", host=host).result == "connected"


def test_every_queue_is_held_those_that_are_added_too(lab: Lab) -> None:
    """The lab's link has two queues, one of them in use; an operator puts the other to use."""
    lab.gateway_namespace.inside(lambda: set_queues("eth0", 2))
    assert {"copy 0", "copy 1"} <= salvo(lab), "control"
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    assert salvo(lab) == set()


def test_a_queue_that_is_added_later_is_held_with_the_next_comparison(lab: Lab) -> None:
    """Only who has NET_ADMIN, or the host, can add one."""
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    lab.internet_namespace.ip(
        "link add many numtxqueues 4 numrxqueues 4 type veth peer name eth5"
        f" numtxqueues 4 numrxqueues 4 netns {lab.gateway_namespace.name}",
        "link set many up",
    )
    capture = Capture("many", lab.household, enter=lab.internet_namespace.command)
    lab.gateway_namespace.ip("link set eth5 up")
    eventually(lambda: salvo(lab, "eth5", capture) == set(), timeout=5, what="eth5 closed")
    lab.gateway_namespace.inside(lambda: set_queues("eth5", 4))
    eventually(lambda: salvo(lab, "eth5", capture) == set(), timeout=10, what="new queues closed")
    assert gateway.status().code == 200
    gateway.kill()
    eventually(lambda: "copy 1" in salvo(lab, "eth5", capture), timeout=5, what="the control")


# -- another program has a queue ----------------------------------------------------------------


def holder(lab: Lab, device: str = "eth0") -> Child:
    """Let a workload take the queue of `device` whenever it can, and send by it."""
    return lab.workload.hold_queue(device=device, frame=frame_of(FLOOD))


def test_a_link_whose_queue_a_workload_has_is_kept_down_until_it_is_free(lab: Lab) -> None:
    """So it is after a restart, when a workload took the queue while no gateway ran."""
    routes = routes_of_eth0(lab)
    holds = holder(lab)
    lab.capture.wait_for(lambda frame: FLOOD.encode() in frame.raw)
    time.sleep(PATIENCE)
    assert not is_quiet(lab), "control: it continues until it is stopped"
    gateway = lab.gateway()
    gateway.start()
    eventually(lambda: gateway.status().code and is_quiet(lab), timeout=10, what="silence")
    red = gateway.status()
    assert red.code == 503
    assert red.body["reason"] == "another program could send past the firewall"
    assert "eth0 is kept down: hold queue 0: " in red.body["detail"]
    since = time.monotonic()
    time.sleep(4 * PATIENCE)  # more than one comparison
    assert not lab.capture.containing(FLOOD, since)
    assert gateway.status().code == 503
    holds.close()
    gateway.wait_healthy(20)
    assert routes_of_eth0(lab) == routes
    assert salvo(lab) == set()
    assert len(gateway.events(event="links kept down")) == 1, "reported once"
    gateway.kill()
    holds = holder(lab)
    eventually(lambda: "bound" in holds.output(), timeout=5, what="a workload that is faster")
    gateway.restart()
    eventually(lambda: is_quiet(lab), timeout=10, what="silence")
    holds.close()
    gateway.wait_healthy(20)
    assert routes_of_eth0(lab) == routes


def test_the_gateway_closes_where_it_cannot_hold_any_queue(lab: Lab) -> None:
    """Its sockets share the memory of one on loopback, and a workload can have that queue too."""
    holds = holder(lab, "lo")
    eventually(lambda: "bound" in holds.output(), timeout=5, what="the queue of lo")
    assert "copy 0" in salvo(lab), "control"
    gateway = lab.gateway()
    gateway.start()
    red = gateway.wait_unhealthy()
    eventually(lambda: "(lo)" in gateway.status().body["detail"], timeout=5, what=str(red))
    assert salvo(lab) == set()
    holds.close()
    gateway.wait_healthy(20)
    assert salvo(lab) == set()


def routes_of_eth0(lab: Lab) -> set[str]:
    """Return the routes by eth0 in the main table, both families, as ip(8) shows them."""
    shown = lab.operator.run("ip", "route") + lab.operator.run("ip", "-6", "route")
    return {line.strip() for line in shown.splitlines() if "dev eth0" in line}


def is_quiet(lab: Lab) -> bool:
    """Return whether nothing of the flood was seen for half a second."""
    return not lab.capture.containing(FLOOD, time.monotonic() - 0.5 * PATIENCE)


def test_a_link_that_appears_is_closed_to_a_workload_that_waits_for_it(lab: Lab) -> None:
    """Whichever is faster: the gateway holds the queue, or the link is kept down."""
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    holds = holder(lab, "eth1")
    late = lab.attach_uplink()
    time.sleep(CLOSED_AFTER)
    since = time.monotonic()
    time.sleep(PATIENCE)
    frames = [f for f in late.capture.frames() if FLOOD.encode() in f.raw]
    sys.stdout.write(f"{len(frames)} frames, bound: {'bound' in holds.output()}\n")
    assert not late.capture.containing(FLOOD, since)
    holds.close()
    gateway.wait_healthy(20)
    assert salvo(lab, "eth1", late.capture) == set()
    gateway.kill()
    control = eventually(lambda: salvo(lab, "eth1", late.capture), timeout=5, what="the control")
    assert "copy 0" in control


def test_a_link_that_goes_and_comes_back_and_one_that_is_renamed_are_held(lab: Lab) -> None:
    """Queues are held by the link's index, and again when the link is another one."""
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    for delete in (True, False):
        connect(lab.internet_namespace, "upx", lab.gateway_namespace, "eth7")
        lab.internet_namespace.ip("link set upx up")
        capture = Capture("upx", lab.household, enter=lab.internet_namespace.command)
        lab.gateway_namespace.ip("link set eth7 up")
        time.sleep(CLOSED_AFTER)
        assert salvo(lab, "eth7", capture) == set()
        lab.gateway_namespace.ip(
            "link set eth7 down", "link set eth7 name other8", "link set other8 up"
        )
        assert salvo(lab, "other8", capture) == set()
        if delete:
            lab.internet_namespace.ip("link del upx")
    gateway.kill()
    eventually(lambda: salvo(lab, "other8", capture), timeout=5, what="the control")


def test_a_link_that_leaves_the_namespace_and_returns_under_its_index_is_held(lab: Lab) -> None:
    """Leaving unbinds every socket of a link, so the gateway has to bind again."""
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    connect(lab.internet_namespace, "upx", lab.gateway_namespace, "eth7")
    lab.internet_namespace.ip("link set upx up")
    capture = Capture("upx", lab.household, enter=lab.internet_namespace.command)
    index = lab.gateway_namespace.inside(lambda: socket.if_nametoindex("eth7"))
    lab.gateway_namespace.ip("link set eth7 up")
    time.sleep(CLOSED_AFTER)
    assert salvo(lab, "eth7", capture) == set()
    lab.gateway_namespace.ip(f"link set eth7 netns {lab.lan_namespace.name}")
    lab.lan_namespace.ip(f"link set eth7 netns {lab.gateway_namespace.name}")
    lab.gateway_namespace.ip("link set eth7 up")
    again = lab.gateway_namespace.inside(lambda: socket.if_nametoindex("eth7"))
    assert again == index, "else it is a new link for the gateway"
    time.sleep(CLOSED_AFTER)
    assert salvo(lab, "eth7", capture) == set()
    gateway.kill()
    eventually(lambda: salvo(lab, "eth7", capture), timeout=5, what="the control")


def test_without_net_raw_the_gateway_says_that_it_cannot_stop_them(lab: Lab) -> None:
    """And only then: it works as well as before otherwise, and the remedy is named."""
    kept = tuple(name for name in GATEWAY_CAPABILITIES if name != "net_raw")
    gateway = lab.gateway(capabilities=kept)
    gateway.start(gateway.env(FIREWALL_BACKEND="nftables"))
    limits = gateway.wait_healthy().body["limits"]
    (limit,) = [limit for limit in limits if limit["code"] == LimitCode.NO_QUEUES]
    assert "add NET_RAW to cap_add of the gateway" in limit["remedy"]
    assert "cap_drop: [NET_RAW]" in limit["remedy"]
    assert "copy 0" in salvo(lab), "it is true"


def test_a_link_that_was_kept_down_has_its_guard_when_it_comes_up(lab: Lab) -> None:
    """A packet socket sends by it all the time, and gets nothing out once it has been down.

    The control is the same flood before the gateway starts.
    """
    connect(lab.internet_namespace, "upx", lab.gateway_namespace, "net0")
    lab.internet_namespace.ip("link set upx up")
    capture = Capture("upx", lab.household, enter=lab.internet_namespace.command)
    lab.gateway_namespace.ip("link set net0 up")
    flood = lab.workload.flood("packet4", device="net0", marker="kept-down-flood", rate=2000)
    capture.wait_for(lambda frame: b"kept-down-flood" in frame.raw, since=0)
    holder = lab.workload.hold_queue(device="net0", frame=frame_of(FLOOD))
    eventually(lambda: "bound" in holder.output(), timeout=5, what="the queue to be taken")
    gateway = lab.gateway().start()
    eventually(
        lambda: gateway.status().body.get("reason_code") == Reason.KEPT_DOWN,
        timeout=10,
        what="the link to be kept down",
    )
    closed_at = time.monotonic()
    time.sleep(0.5)
    holder.close()
    gateway.wait_healthy(20)
    assert "net0" in lab.operator.run("ip", "-o", "link", "show", "up")
    time.sleep(0.5)
    assert capture.containing("kept-down-flood", closed_at) == []
    flood.stop()


def test_a_link_whose_queue_is_taken_is_down_before_the_configuration_is_read(lab: Lab) -> None:
    """So it is after a wrong one, which ends the gateway. The control: frames leave until then."""
    holder = lab.workload.hold_queue(device="eth0", frame=frame_of(FLOOD))
    lab.capture.wait_for(lambda frame: FLOOD.encode() in frame.raw, since=0)
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_ENDPOINT_PORT="no port"))
    assert gateway.wait() != 0
    ended_at = time.monotonic()
    time.sleep(0.5)
    assert "eth0" not in lab.operator.run("ip", "-o", "link", "show", "up")
    assert lab.capture.containing(FLOOD, ended_at) == []
    holder.close()
    gateway.start().wait_healthy(20)
