"""P7: nothing that leaves by a hole says where it goes next, and nothing is packed into it.

A source route or routing header names hosts to pass on the way, and a tunnel protocol has another
packet inside: a router in a listed subnet that follows the one or unpacks the other would carry the
packet out. The LAN's router here follows source routes, which few do by default.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.firewall.xtables.firewall import IptablesFirewall
from gateway.firewall.xtables.matches import has_match
from gateway.firewall.xtables.render import Kernel
from gateway.policy.firewall import ruleset_for
from gateway.policy.flows import EXTRA_HEADERS
from gateway.policy.rules import Family
from tests.lab.frames import TCP
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET, LAN_HOST, OUTSIDER
from tests.lab.namespace import Namespace
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4, OWN6, frames_to, unique
from tests.promises.test_p07_lan import FAMILIES, LISTED, of
from tests.scenarios import SCENARIOS

pytestmark = [pytest.mark.lab, pytest.mark.promise("P7")]

INPUT_PORT = 8080
WRAPPING = {"IPIP": 4, "6in4": 41, "GRE": 47, "ESP": 50, "SCTP": 132, "UDP-Lite": 136}
"""Protocols with another packet inside, and others that no LAN hole is for."""


@dataclass(frozen=True)
class Home:
    """A gateway that is connected, whose LAN is listed, and what the LAN carried before."""

    lab: Lab
    gateway: Gateway
    before: dict[str, bool]


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """Return the shared home; everything was tried in its open namespace before the start."""
    with Lab() as lab:
        follow_source_routes(lab)
        before = {f"by the LAN {family}": carried(lab, family) for family in (4, 6)}
        before |= {f"{name} {family}": wrapped(lab, name, family) for name, family in wrappings()}
        gateway = lab.gateway()
        variables = {
            "FIREWALL_OUTBOUND_SUBNETS": LISTED,
            "FIREWALL_INPUT_PORTS": str(INPUT_PORT),
        }
        gateway.start(gateway.env(**variables)).wait_healthy()
        yield Home(lab, gateway, before)


def follow_source_routes(lab: Lab) -> None:
    """Let everybody follow source routes and segment lists, and the LAN's host carry them on."""
    for namespace in (lab.lan_namespace, lab.internet_namespace, lab.gateway_namespace):
        for link in ("all", "default", *links_of(namespace)):
            namespace.sysctl(f"ipv4/conf/{link}/accept_source_route", 1)
            namespace.sysctl(f"ipv6/conf/{link}/seg6_enabled", 1)
    lab.lan_namespace.sysctl("ipv4/ip_forward", 1)
    lab.lan_namespace.sysctl("ipv6/conf/all/forwarding", 1)


def links_of(namespace: Namespace) -> list[str]:
    """Return the names of the namespace's links but loopback."""
    shown = namespace.run("ip", "-o", "link").splitlines()
    names = [line.split(": ")[1].partition("@")[0] for line in shown]
    return [name for name in names if name not in {"lo", "sit0", "tunl0", "ip6tnl0"}]


def wrappings() -> Iterator[tuple[str, int]]:
    """Yield each wrapping protocol in each family."""
    for name in WRAPPING:
        yield from ((name, 4), (name, 6))


DETOURS = 10
"""How often a packet is sent until it arrives, or does not leave: the first may be lost where a
neighbour is still to be found, or an address is new."""


def carried(lab: Lab, family: int) -> bool:
    """Return whether a packet leaves that is to pass the LAN's host on its way to the internet."""
    for _ in range(DETOURS):
        left, arrived = sent_by_the_lan(lab, family)
        if left == arrived:
            return left
    raise AssertionError("who lets it out lets it reach the internet's host")


def sent_by_the_lan(lab: Lab, family: int) -> tuple[bool, bool]:
    """Send such a packet; return whether it left, and whether it arrived."""
    marker = unique("detour")
    lab.workload.probe(
        "source_route", host=of(family, tuple(INTERNET[0])), via=of(family, tuple(LAN_HOST)),
        marker=marker,
    )  # fmt: skip
    time.sleep(0.2)
    own = of(family, (OWN4, OWN6))
    arrived = [event for event in lab.arrivals(client=own) if marker in str(event["data"])]
    left = lab.capture.containing(marker)
    return bool(left), bool(arrived)


def wrapped(lab: Lab, name: str, family: int) -> bool:
    """Return whether a packet of this protocol to the LAN's host leaves."""
    marker = unique(name)
    lab.workload.probe(
        "raw", host=of(family, tuple(LAN_HOST)), protocol=WRAPPING[name], marker=marker
    )
    time.sleep(0.05)
    return bool(lab.capture.containing(marker))


@FAMILIES
def test_no_packet_names_hosts_to_pass_on_its_way(home: Home, family: int) -> None:
    """By setsockopt, which takes no capability; refused at once, like all that is refused."""
    assert home.before[f"by the LAN {family}"], "control: the LAN carries it in the open namespace"
    lan = of(family, tuple(LAN_HOST))
    assert home.lab.workload.probe("udp", host=lan).result == "answered", "control: the hole"
    since = time.monotonic()
    assert not carried(home.lab, family)
    # The answer to the control is a frame to the LAN too, but has no options.
    assert [f for f in frames_to(home.lab, lan, since) if f.protocol != 17] == []
    assert home.lab.workload.probe("options", host=lan).failed_fast, "record route and the like"


@pytest.mark.parametrize(("name", "family"), list(wrappings()))
def test_a_lan_hole_carries_no_other_packets_inside(home: Home, name: str, family: int) -> None:
    """TCP, UDP and echo requests pass, and nothing that a router could unpack."""
    assert home.before[f"{name} {family}"], "control: in the open namespace"
    assert not wrapped(home.lab, name, family)


@FAMILIES
@pytest.mark.parametrize("size", [100, 1400, 3000])
def test_long_datagrams_and_pings_reach_the_lan_in_fragments(
    home: Home, family: int, size: int
) -> None:
    """The egress guard takes later fragments for what they are."""
    lan = of(family, tuple(LAN_HOST))
    for kind in ("udp", "ping"):
        # The echo's answer is cut; that there is one says that all fragments arrived.
        answer = home.lab.workload.probe(kind, host=lan, marker="x" * size)
        assert answer.result == "answered", kind


def test_no_answer_goes_where_a_client_says(home: Home) -> None:
    """Linux answers a client with the source route that it came by, reversed."""
    lab, hop = home.lab, LAN_HOST.ipv4
    served = lab.workload.serve({"kind": "echo", "address": OWN4, "port": INPUT_PORT})

    def answers(since: float, port: int) -> list[str]:
        return [
            frame.destination
            for frame in lab.capture.frames(since)
            if (frame.protocol, frame.source, frame.source_port, frame.destination_port)
            == (TCP, OWN4, INPUT_PORT, port)
        ]

    try:
        since = time.monotonic()
        assert lab.internet.probe("tcp", host=OWN4, port=INPUT_PORT, source=OUTSIDER.ipv4,
                                  source_port=41000).result == "connected", "control"  # fmt: skip
        assert set(answers(since, 41000)) == {OUTSIDER.ipv4}
        since = time.monotonic()
        ask(lab, hop, 41001)
        time.sleep(0.3)
        assert answers(since, 41001) == []
    finally:
        served.close()


def test_control_an_open_namespace_answers_where_a_client_says(lab: Lab) -> None:
    """The control of the test above, and of the sysctls that go with it."""
    follow_source_routes(lab)
    served = lab.workload.serve({"kind": "echo", "address": OWN4, "port": INPUT_PORT})
    try:
        since = time.monotonic()
        ask(lab, LAN_HOST.ipv4, 41001)
        eventually(
            lambda: [f for f in frames_to(lab, LAN_HOST.ipv4, since) if f.protocol == TCP],
            timeout=3, what="an answer by the LAN's host",
        )  # fmt: skip
    finally:
        served.close()


def ask(lab: Lab, hop: str, port: int) -> None:
    """Ask the input port for a connection, in an outsider's name, by a source route over `hop`."""
    lab.internet.probe(
        "routed_syn", host=OWN4, source=OUTSIDER.ipv4, via=hop, port=INPUT_PORT, source_port=port
    )


def test_a_kernel_whose_tables_cannot_ask_for_options_has_the_other_rules_and_says_so(
    lab: Lab,
) -> None:
    """As NAS kernels without xt_u32: the limit names the module, and the rules are held."""
    ruleset = ruleset_for(*SCENARIOS["connected-holes"])
    blind = IptablesFirewall(kernel=lambda _family: Kernel(extra_headers=False))
    sharp = IptablesFirewall()

    def put(firewall: IptablesFirewall) -> tuple[tuple[str, ...], tuple[str, ...]]:
        firewall.apply(ruleset)
        return firewall.verify(ruleset), firewall.limits

    inside = lab.gateway_namespace.inside
    held, limits = inside(lambda: put(blind))
    assert held == ()
    assert ["xt_u32" in limits[0].text, "ip6t_ipv6header" in limits[1].text] == [True, True]
    saved = lab.operator.run("iptables-legacy-save") + lab.operator.run("ip6tables-legacy-save")
    assert EXTRA_HEADERS not in saved
    assert "P7 a listed LAN subnet" in saved
    assert inside(lambda: put(sharp)) == ((), ()), "control: this kernel has both"
    saved = lab.operator.run("iptables-legacy-save") + lab.operator.run("ip6tables-legacy-save")
    assert saved.count(EXTRA_HEADERS) == 4


def test_the_kernel_is_asked_which_matches_it_has(lab: Lab) -> None:
    """One that is there, one that belongs to the other family, and one that is unassigned."""
    inside = lab.gateway_namespace.inside
    assert inside(lambda: has_match(Family.IPV4, "u32"))
    assert inside(lambda: has_match(Family.IPV6, "ipv6header"))
    assert not inside(lambda: has_match(Family.IPV4, "ipv6header"))
    assert not inside(lambda: has_match(Family.IPV6, "nonesuch"))
