"""Where the promises end: what docs/known-issues.md says happens, and its remedy helps."""

import json
import time

import pytest

from gateway.policy.limits import LimitCode
from tests.lab.capture import Capture
from tests.lab.frames import addressed_to
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS, OUTSIDER
from tests.lab.probes import ETH_P_IP, ETH_P_IPV6, ROUTER_MAC, ethernet, udp_packet
from tests.lab.server import CLIENT, PORT
from tests.lab.topology import Lab
from tests.lab.workload import DOCKER_CAPABILITIES, Workload
from tests.promises.stages import (
    INTERFACE,
    OWN4,
    OWN6,
    send_frames,
    unique,
)

pytestmark = [pytest.mark.lab]

CHOSEN_MARK = 0x4711
WITHOUT_NFT = 'mount --bind /dev/null "$(readlink -f "$(command -v nft)")"'


def test_a_killed_gateway_leaves_the_holes_of_its_last_state_and_no_others(lab: Lab) -> None:
    """The LAN is reached still, the internet by no way; a start in place closes the hole again."""
    gateway = lab.gateway()
    gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS=",".join(LAN_SUBNETS))).wait_healthy()
    gateway.kill()
    assert [lab.workload.probe("udp", host=host).result for host in LAN_HOST] == ["answered"] * 2
    for host in INTERNET[0]:
        assert lab.workload.probe("udp", host=host).failed_fast
        assert lab.workload.probe("udp", host=host, device="eth0").failed_fast
    lab.server.cut()
    gateway.restart().wait_for_state("connecting")
    assert all(lab.workload.probe("udp", host=host).failed_fast for host in LAN_HOST)


def test_a_workload_sends_by_xdp_while_no_gateway_runs(lab: Lab) -> None:
    """After a kill and after a stop alike, until the next start; without CAP_NET_RAW it does not.

    Control: while the gateway runs, the same socket cannot be bound.
    """
    packet = udp_packet(OWN4, INTERNET[0].ipv4, 40002, 7, b"xdp-marker")
    job = {"device": "eth0", "frame": (ethernet(ROUTER_MAC, OWN4) + packet).hex()}
    gateway = lab.gateway()
    gateway.start().wait_healthy()
    for end in (gateway.kill, gateway.stop):
        assert lab.workload.send_by_xdp(job) == ["EBUSY"]
        since = time.monotonic()
        end()
        assert lab.workload.send_by_xdp(job) == ["sent"]
        lab.capture.quiet_for(0.1)
        assert lab.capture.containing("xdp-marker", since)
        kept = [name for name in DOCKER_CAPABILITIES if name != "net_raw"]
        assert gateway.workload(capabilities=kept).send_by_xdp(job) == ["EPERM"]
        gateway.restart().wait_healthy()


def test_without_the_egress_guard_the_limit_is_reported_with_its_remedy(lab: Lab) -> None:
    """In the log, by health and by `gateway status`, for people and for programs; still healthy.

    It is as reported: a packet socket gets a frame out, and without CAP_NET_RAW there is none.
    """
    gateway = lab.gateway()
    gateway.workload(capabilities=None).run("sh", "-ec", WITHOUT_NFT)
    gateway.start(gateway.env(FIREWALL_BACKEND="iptables"))
    reported = gateway.wait_healthy().body["limits"]
    (limit,) = [each for each in reported if each["code"] == LimitCode.NO_GUARD]
    assert "nft is not installed" in limit["text"]
    assert "cap_drop: [NET_RAW]" in limit["remedy"]
    assert gateway.status().body["guard"] is False
    assert gateway.events(event="reduced protection on this host", code="no_guard")
    code, shown = gateway.execute(*gateway.argv, "status")
    assert code == 0
    assert f"{limit['text']}; {limit['remedy']}" in shown
    assert reported == json.loads(gateway.execute(*gateway.argv, "status", "--json")[1])["limits"]
    frame = {"host": INTERNET[0].ipv4, "device": "eth0", "source": lab.uplink.gateway.ipv4}
    lab.workload.probe("packet", **frame, marker="no-guard")
    assert lab.capture.containing("no-guard"), "the limit is where we say it is"
    kept = [name for name in DOCKER_CAPABILITIES if name != "net_raw"]
    careful = Workload(lab.gateway_namespace, lab.household, capabilities=kept)
    careful.probe("packet", **frame, marker="remedied")
    assert not lab.capture.containing("remedied")


def test_a_mark_that_the_user_chose_is_shown_and_lets_a_raw_socket_reach_the_endpoint(
    lab: Lab,
) -> None:
    """No other host is reached; without CAP_NET_RAW there is neither mark nor raw socket."""
    gateway = lab.gateway()
    gateway.write("/run/secrets/wg0.conf", gateway.wg_quick(extra=f"FwMark = {CHOSEN_MARK:#x}"))
    gateway.start({"LOG_LEVEL": "debug", "LOG_FORMAT": "json"}).wait_healthy()
    assert f"fwmark {CHOSEN_MARK:#x} " in lab.workload.run("ip", "rule", "show")
    reported = gateway.status().body["limits"]
    assert LimitCode.CHOSEN_MARK in {limit["code"] for limit in reported}
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


def on_the_tunnel(lab: Lab, marker: str) -> list[str]:
    """Send packets on the tunnel's own packet socket; return the kernel's answers.

    From its addresses ("MARKER own."), from the uplink's ("uplink.") and a stranger's ("stranger.")
    to the internet, in both families.
    """
    frames = []
    sources = {"own": CLIENT, "uplink": (OWN4, OWN6), "stranger": OUTSIDER}
    for name, pair in sources.items():
        for source, host in zip(pair, INTERNET[0], strict=True):
            packet = udp_packet(source, host, 40002, 7, f"{marker} {name}.".encode())
            kind = ETH_P_IPV6 if ":" in host else ETH_P_IP
            frames.append({"device": INTERFACE, "frame": packet.hex(), "kind": kind})
    return send_frames(lab.workload, frames)


def beyond(exit_: Capture, marker: str) -> set[tuple[str, str]]:
    """Return what of `on_the_tunnel` the server's exit has sent on: the name and the source."""
    return {
        (name, frame.source)
        for frame in exit_.frames()
        for name in ("own", "uplink", "stranger")
        if f"{marker} {name}.".encode() in frame.raw
    }


def test_a_packet_socket_on_the_tunnels_interface_sends_into_the_tunnel_and_nowhere_else(
    lab: Lab,
) -> None:
    """Nothing of it is unencrypted on the uplink, while connecting or connected, in both families.

    What it sends before the handshake waits for it. The server takes what is from the tunnel's
    addresses and drops the rest. Control: on the uplink the like is seen without a gateway.
    """
    exit_ = Capture("srv1", lab.household, enter=lab.internet_namespace.command)
    control = unique("uplink")
    frames = [
        ethernet(lab.uplink.router_mac, own) + udp_packet(own, host, 40002, 7, control.encode())
        for own, host in zip((OWN4, OWN6), INTERNET[0], strict=True)
    ]
    send_frames(lab.workload, [{"device": "eth0", "frame": frame.hex()} for frame in frames])
    assert {f.raw for f in lab.capture.containing(control)} >= set(frames), "control: unencrypted"

    lab.server.cut()
    gateway = lab.gateway().start()
    gateway.wait_for_state("connecting")
    lab.capture.wait_for(lambda f: f.destination_port == PORT, since=gateway.started_at)
    since = time.monotonic()
    early = unique("early")
    assert on_the_tunnel(lab, early) == ["sent"] * 6
    lab.capture.quiet_for(0.5)
    assert beyond(exit_, early) == set(), "no handshake, no exit"
    lab.server.restore()
    gateway.wait_healthy(20)
    through = {("own", address) for address in lab.server.exit}
    exit_.wait_for(lambda frame: early.encode() in frame.raw, timeout=10)
    assert beyond(exit_, early) == through, "what waited"
    now = unique("now")
    assert on_the_tunnel(lab, now) == ["sent"] * 6
    exit_.wait_for(lambda frame: now.encode() in frame.raw)
    lab.capture.quiet_for(0.2)
    assert beyond(exit_, now) == through
    assert not [f for marker in (early, now) for f in lab.capture.containing(marker, since)]
    assert lab.leaks(since) == []
