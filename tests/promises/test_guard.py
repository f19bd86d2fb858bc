"""The egress guard: no frame from a packet socket leaves, and no workload learns its mark.

The firewall lets workloads reach port 7 of the internet here, so that there is something that
passes, to compare with.
"""

import struct
import sys
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path

import pytest

from gateway.firewall import Firewall
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.guard import Guard
from gateway.firewall.nft.program import Nft
from gateway.firewall.xtables.firewall import IptablesFirewall
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import closed
from gateway.policy.flows import guard_marks, neighbours
from gateway.policy.guard import guard_for
from gateway.policy.rules import Accept, Chain, Family, Ports, Rule, Ruleset, Transport
from tests.lab.frames import Frame
from tests.lab.internet import INTERNET
from tests.lab.late import knows_absent_devices
from tests.lab.probes import ethernet, udp_packet
from tests.lab.process import Child
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P14"), pytest.mark.no_gateway]

HOST4, HOST6 = INTERNET[0]
OWN4, OWN6 = "172.30.0.2", "fd30::2"
ROUTER4, TUNNEL4 = "172.30.0.1", "10.64.0.2"
ROUTER_MAC, OWN_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
MARK = 0x1234ABCD
PROBE = Path(__file__).parents[1] / "lab" / "guard_probe.py"
ETH0 = Uplink("eth0", 2, 1500, (ip_interface(f"{OWN4}/24"), ip_interface(f"{OWN6}/64")))

FIREWALLS: Mapping[str, Callable[[], Firewall]] = {
    "iptables": IptablesFirewall.find,
    "nftables": NftablesFirewall.find,
}


def echo_allowed() -> Ruleset:
    """Return the closed rules with a hole for the echo service, and with the guard's marks."""
    chains = {}
    for family, former in zip(Family, (closed().ipv4, closed().ipv6), strict=True):
        udp = Rule(why="echo", verdict=Accept(), protocol=Transport.UDP)
        entries = [
            (Chain.OUTPUT, out(udp, destination_ports=Ports(7, 7))),
            (Chain.INPUT, Rule(why="echo", verdict=Accept(), in_interface="eth0",
                               protocol=Transport.UDP, source_ports=Ports(7, 7))),
            *neighbours(family, ETH0),
            *guard_marks(Facts((ETH0,), guard_mark=MARK)),
        ]  # fmt: skip
        chains[family] = {
            chain: (*(rule for at, rule in entries if at is chain), *former.get(chain, ()))
            for chain in Chain
        }
    return Ruleset(chains[Family.IPV4], chains[Family.IPV6])


def out(rule: Rule, *, destination_ports: Ports) -> Rule:
    """Return `rule` for eth0 and these ports."""
    return Rule(
        why=rule.why,
        verdict=rule.verdict,
        protocol=rule.protocol,
        out_interface="eth0",
        destination_ports=destination_ports,
    )


class Guarded:
    """A lab whose namespace has a firewall and a guard, without a gateway."""

    def __init__(self, lab: Lab, make: Callable[[], Firewall]) -> None:
        """Put the rules with the hole into force; the guard is not there yet."""
        self.lab = lab
        self.namespace = lab.gateway_namespace
        self.firewall = self.namespace.inside(make)
        self.guard = self.namespace.inside(Guard.find)
        self.namespace.inside(lambda: self.firewall.apply(echo_allowed()))

    def on(self, ruleset: Ruleset | None = None) -> None:
        """Put the guard into force that goes with `ruleset`."""
        rules = guard_for(ruleset or echo_allowed(), Facts((ETH0,), guard_mark=MARK))
        self.namespace.inside(lambda: self.guard.apply(rules))
        assert self.namespace.inside(lambda: self.guard.verify(rules)) == ()

    def on_without_realms(self) -> None:
        """Put the guard into force as on a kernel that cannot check whether a frame was routed."""
        self.guard = Guard(Nft(), in_advance=self.guard.in_advance, routed=False)
        self.on()

    def send(self, frame: bytes, device: str = "eth0", **wishes: int) -> str:
        """Send a frame as a workload does; return what the kernel said."""
        words = (f"{name}={value}" for name, value in wishes.items())
        argv = (sys.executable, "-I", "-S", str(PROBE), "send", device, frame.hex(), *words)
        return self.lab.workload.run(*argv).strip()

    def seen(self, frame: bytes, since: float) -> bool:
        """Return whether the far end has received just this frame."""
        return any(got.raw == frame for got in self.lab.capture.frames(since))

    def passes(self, frame: bytes, **wishes: int) -> bool:
        """Send a frame and say whether the far end received it."""
        since = time.monotonic()
        self.send(frame, **wishes)
        return self.seen(frame, since)


@pytest.fixture(params=FIREWALLS)
def guarded(request: pytest.FixtureRequest, lab: Lab) -> Guarded:
    """Return a lab with the rules of each backend in turn; the guard is off."""
    return Guarded(lab, FIREWALLS[request.param])


def echo_frame(family: Family, port: int = 7) -> bytes:
    """Return a frame like those that the firewall lets pass."""
    source, host = (OWN4, HOST4) if family is Family.IPV4 else (OWN6, HOST6)
    return ethernet(ROUTER_MAC, source) + udp_packet(source, host, 40002, port, b"guard-probe")


def arp(
    sender: str, target: str, operation: int = 1, padding: int = 0, about: bytes = bytes(6)
) -> bytes:
    """Return an ARP frame from the uplink's own MAC address; `about` is the target's, if known."""
    mac = bytes.fromhex(OWN_MAC.replace(":", ""))
    addresses = [bytes(map(int, address.split("."))) for address in (sender, target)]
    head = b"\xff" * 6 + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation)
    return head + mac + addresses[0] + about + addresses[1] + bytes(padding)


def echoes(guarded: Guarded, timeout: float = 2) -> list[str]:
    """Return what becomes of honest packets of both families within `timeout` seconds."""
    workload = guarded.lab.workload
    probes = [workload.probe("udp", host=host, timeout=timeout) for host in (HOST4, HOST6)]
    return [probe.result for probe in probes]


@pytest.mark.parametrize("bypass", [0, 1])
@pytest.mark.parametrize("family", Family)
def test_a_frame_from_a_packet_socket_leaves_only_while_there_is_no_guard(
    guarded: Guarded, family: Family, bypass: int
) -> None:
    """The firewall never sees it; the guard does, and honest packets pass both."""
    assert guarded.passes(echo_frame(family), bypass=bypass), "control: without the guard"
    guarded.on()
    assert not guarded.passes(echo_frame(family), bypass=bypass)
    assert echoes(guarded) == ["answered", "answered"]


@pytest.mark.parametrize("bypass", [0, 1])
@pytest.mark.parametrize("family", Family)
def test_a_forged_mark_helps_only_him_who_knows_the_guards(
    guarded: Guarded, family: Family, bypass: int
) -> None:
    """The right one passes what has a rule and no more, where the kernel cannot check routes.

    Where it can, not even the right one helps.
    """
    guarded.on()
    assert not guarded.passes(echo_frame(family), mark=MARK, bypass=bypass)
    guarded.on_without_realms()
    for guess in (0xCA6C, 1, MARK ^ 1, 0xFFFFFFFF):
        assert not guarded.passes(echo_frame(family), mark=guess, bypass=bypass)
    assert guarded.passes(echo_frame(family), mark=MARK, bypass=bypass), "control: the right mark"
    assert not guarded.passes(echo_frame(family, port=8), mark=MARK, bypass=bypass)


def test_packets_that_leave_in_fragments_pass(guarded: Guarded) -> None:
    """The second fragment has the mark and the route of the first, but no ports."""
    assert fragments_seen(guarded) == [3, 3], "control: without the guard"
    guarded.on()
    assert fragments_seen(guarded) == [3, 3]


def fragments_seen(guarded: Guarded) -> list[int]:
    """Send an honest packet of three frames to hosts of both families; count those that leave."""
    since = time.monotonic()
    for host in (HOST4, HOST6):
        guarded.lab.workload.probe("udp", host=host, marker="x" * 3000, timeout=0.3)
    frames = guarded.lab.capture.frames(since)
    return [sum(frame.destination == host for frame in frames) for host in (HOST4, HOST6)]


def test_no_socket_is_shown_the_mark(guarded: Guarded) -> None:
    """Not by listening on the uplink, and not by multicast that comes back to its sender.

    Limitations: a packet socket and a raw ICMPv6 socket with SO_RCVMARK (Linux 5.19) stand for all
    ways of asking; classic filters on a socket (SKF_AD_MARK) see what these see.
    """
    control = marks_seen(guarded)
    assert f"packet {MARK:#x}" in control, "control: without the guard a listener sees it"
    guarded.on()
    assert marks_seen(guarded) == set()


def marks_seen(guarded: Guarded) -> set[str]:
    """Send honest packets and one solicitation for our own address; return the marks seen."""
    argv = [sys.executable, "-I", "-S", str(PROBE), "listen", "1"]
    workload = guarded.lab.workload
    listener: Child = guarded.lab.household.start(workload.command(argv), "listener")
    listener.wait_for("ready")
    assert echoes(guarded) == ["answered", "answered"]
    workload.run(sys.executable, "-I", "-S", "-c", SOLICIT, OWN6)
    listener.wait()
    return set(listener.output().split("\n")) - {"ready", ""}


SOLICIT = """
import socket, struct, sys
own = socket.inet_pton(socket.AF_INET6, sys.argv[1])
out = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
group = bytes.fromhex("ff0200000000000000000001ff") + own[-3:]
body = struct.pack("!BBHI", 135, 0, 0, 0) + own + bytes.fromhex(*sys.argv[2:] or [""])
out.sendto(body, (socket.inet_ntop(socket.AF_INET6, group), 0))
"""


def test_arp_passes_as_the_kernel_sends_it_and_in_no_other_form(guarded: Guarded) -> None:
    """No other sender (the tunnel's address above all), target, length, operation or type."""
    wrong = {
        "the tunnel's address": arp(TUNNEL4, ROUTER4),
        "off the link": arp(OWN4, HOST4),
        "with a message": arp(OWN4, ROUTER4, padding=18),
        "reverse ARP": arp(OWN4, ROUTER4, operation=3),
        "with data for an address": arp(OWN4, ROUTER4, about=b"hidden"),
    }
    assert all(guarded.passes(frame) for frame in wrong.values()), "control: without the guard"
    guarded.on()
    assert [what for what, frame in wrong.items() if guarded.passes(frame)] == []
    disguised = echo_frame(Family.IPV4)
    assert not guarded.passes(disguised, kind=0x0806)
    assert guarded.passes(arp(OWN4, ROUTER4)), "control: what the kernel sends"
    router = bytes.fromhex(ROUTER_MAC.replace(":", ""))
    assert guarded.passes(arp(OWN4, ROUTER4, operation=2, about=router)), "control: its answers"


def test_neighbour_discovery_carries_no_message(guarded: Guarded) -> None:
    """The firewall accepts a solicitation of any length from a raw socket; the guard does not."""
    assert solicited(guarded, b"message" * 10), "control: without the guard"
    guarded.on()
    assert not solicited(guarded, b"message" * 10)
    assert solicited(guarded, b""), "control: what the kernel sends"


def solicited(guarded: Guarded, message: bytes) -> bool:
    """Ask for our own address with a message behind the question; say whether it got out."""
    since = time.monotonic()
    argv = (sys.executable, "-I", "-S", "-c", SOLICIT, OWN6, message.hex())
    guarded.lab.workload.run(*argv, check=False)  # the guard makes it fail: ENOBUFS
    return any(
        frame.icmp_type == 135 and frame.target == OWN6 and frame.raw.endswith(message)
        for frame in guarded.lab.capture.frames(since)
    )


def test_a_closed_firewall_lets_not_even_arp_out(guarded: Guarded) -> None:
    """Nothing may pass, so no neighbour needs to be found."""
    assert guarded.passes(arp(OWN4, ROUTER4)), "control: without the guard"
    guarded.on(closed())
    guarded.namespace.ip("neigh flush dev eth0")
    since = time.monotonic()
    assert not guarded.passes(arp(OWN4, ROUTER4))
    assert "answered" not in echoes(guarded, timeout=0.3)
    assert guarded.lab.capture.frames(since) == []


def test_an_interface_that_appears_later_is_closed_from_its_first_frame(guarded: Guarded) -> None:
    """Since Linux 6.16 the kernel takes a chain for a device that is not there yet."""
    assert guarded.guard.in_advance == knows_absent_devices()
    if not guarded.guard.in_advance:
        return
    control = guarded.lab.workload.flood("packet4", device="eth1", rate=0)
    guarded.lab.attach_uplink().capture.wait_for(is_flood)
    control.stop()
    guarded.on()
    flood = guarded.lab.workload.flood("packet4", device="eth2", rate=0)
    late = guarded.lab.attach_uplink()
    time.sleep(0.3)
    assert [frame for frame in late.capture.frames() if is_flood(frame)] == []
    assert flood.stop()["errors"]["ENOBUFS"], "the flood did meet the new device"


def is_flood(frame: Frame) -> bool:
    """Return whether the flood sent this frame."""
    return b"flood-marker" in frame.raw
