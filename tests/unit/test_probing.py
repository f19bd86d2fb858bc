"""What is sent into the tunnel to find out whether the server lives."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from gateway.model import (
    Config,
    HealthProbe,
    ProbeKind,
    Tunnel,
)
from gateway.model.name_server import NameServer, Upstream
from gateway.policy.probing import Probe, ProbeProtocol, probe_for
from tests.scenarios import DUAL, IPV4_ONLY, PEER

RESOLVER = ip_address("10.2.0.1")
ALONE = replace(IPV4_ONLY, dns=())
"""No resolver in the tunnel is known."""


def carrying(*networks: str, tunnel: Tunnel = ALONE) -> Tunnel:
    """Return `tunnel` with one peer, whose allowed IPs are `networks`."""
    return replace(tunnel, peers=(replace(PEER, allowed_ips=tuple(map(ip_network, networks))),))


def probe(
    tunnel: Tunnel, kind: ProbeKind = ProbeKind.AUTO, address: str | None = None, lan: str = ""
) -> Probe | None:
    """Return the probe for `tunnel` with this HEALTH_PROBE, and `lan` as a listed subnet."""
    wanted = HealthProbe(kind, ip_address(address) if address else None)
    subnets = (ip_network(lan),) if lan else ()
    return probe_for(tunnel, Config((tunnel,), outbound_subnets=subnets, health_probe=wanted))


def echo(address: str, hops: int | None = None) -> Probe:
    """Return an echo to `address`."""
    return Probe(ProbeProtocol.ICMP, ip_address(address), hops)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ProbeKind.AUTO, Probe(ProbeProtocol.DNS, RESOLVER)),
        (ProbeKind.DNS, Probe(ProbeProtocol.DNS, RESOLVER)),
        (ProbeKind.ICMP, Probe(ProbeProtocol.ICMP, RESOLVER)),
        (ProbeKind.OFF, None),
    ],
)
def test_each_kind_asks_the_first_resolver_in_the_tunnel(
    kind: ProbeKind, expected: Probe | None
) -> None:
    """A question for its answer, or an echo that may pass any number of routers."""
    assert probe(IPV4_ONLY, kind) == expected


def test_only_a_question_blames_the_resolver() -> None:
    """An echo that is not answered says nothing about names."""
    assert Probe(ProbeProtocol.DNS, RESOLVER).is_question
    assert not Probe(ProbeProtocol.ICMP, RESOLVER).is_question


def test_the_host_to_ping_comes_before_the_resolver() -> None:
    """HEALTH_PROBE=icmp:1.1.1.1."""
    assert probe(IPV4_ONLY, ProbeKind.ICMP, "1.1.1.1") == echo("1.1.1.1")


@pytest.mark.parametrize("kind", [ProbeKind.AUTO, ProbeKind.DNS])
def test_our_own_resolver_is_asked_where_the_tunnel_has_none(kind: ProbeKind) -> None:
    """For a name that it has to pass on. Control: not where the upstream is not in the tunnel."""
    upstream = Upstream(ip_address("1.1.1.1"), 853, "a.example")
    config = Config((ALONE,), name_server=NameServer((upstream,)), health_probe=HealthProbe(kind))
    asked = probe_for(ALONE, config)
    assert asked == Probe(ProbeProtocol.NAME, ip_address("127.0.0.1"))
    assert asked.is_question
    assert probe_for(IPV4_ONLY, config) == Probe(ProbeProtocol.DNS, RESOLVER)
    lan = replace(config, outbound_subnets=(ip_network("1.1.1.0/24"),))
    assert probe_for(ALONE, lan) != asked
    other = Upstream(ip_address("2606:4700:4700::1111"), 853, "a.example")
    assert probe_for(ALONE, replace(config, name_server=NameServer((other,)))) != asked


def test_our_own_resolver_is_asked_where_questions_are_redirected() -> None:
    """The tunnel's resolver would get no question of the gateway. Control: else it is asked."""
    server = NameServer(hijack=True)
    config = Config((IPV4_ONLY,), name_server=server)
    ours = Probe(ProbeProtocol.NAME, ip_address("127.0.0.1"))
    assert probe_for(IPV4_ONLY, config) == ours
    off = replace(config, name_server=NameServer())
    assert probe_for(IPV4_ONLY, off) == Probe(ProbeProtocol.DNS, RESOLVER)
    lan = replace(
        config, outbound_subnets=(ip_network("10.2.0.0/24"), ip_network("192.168.0.0/16"))
    )
    assert probe_for(IPV4_ONLY, lan) != ours


@pytest.mark.parametrize("kind", [ProbeKind.DNS, ProbeKind.ICMP])
def test_without_a_resolver_there_is_nothing_to_ask(kind: ProbeKind) -> None:
    """`auto` has another probe then; these two were chosen."""
    assert probe(ALONE, kind) is None


@pytest.mark.parametrize(
    ("resolver", "networks", "lan"),
    [
        ("192.168.1.53", ["0.0.0.0/0"], "192.168.1.0/24"),
        ("127.0.0.1", ["0.0.0.0/0"], ""),
        ("192.168.1.53", ["10.0.0.0/8"], ""),
        ("fd02::53", ["::/0"], ""),
    ],
    ids=["in a listed subnet", "loopback", "not an allowed IP", "a family without an address"],
)
def test_a_resolver_that_is_not_behind_the_tunnel_is_not_asked(
    resolver: str, networks: list[str], lan: str
) -> None:
    """Its answer would prove nothing about the server."""
    outside = carrying(*networks, tunnel=replace(ALONE, dns=(ip_address(resolver),)))
    assert probe(outside, ProbeKind.DNS, lan=lan) is None
    both = replace(outside, dns=(ip_address(resolver), RESOLVER))
    expected = Probe(ProbeProtocol.DNS, RESOLVER) if networks != ["::/0"] else None
    assert probe(both, ProbeKind.DNS, lan=lan) == expected


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["0.0.0.0/0"], "192.0.2.1"),
        (["0.0.0.0/0", "::/0"], "192.0.2.1"),
        (["10.0.0.0/8"], "10.255.255.254"),
        (["10.9.0.7/32"], "10.9.0.7"),
        (["10.9.0.6/31"], "10.9.0.6"),
        (["10.2.0.2/32", "10.9.0.7/32"], "10.9.0.7"),
    ],
)
def test_an_echo_to_the_server_goes_to_an_address_that_the_tunnel_carries(
    networks: list[str], address: str
) -> None:
    """One that no host has where everything is routed, else the last that is not a broadcast.

    It is never the tunnel's own, and its hop limit ends it at the server.
    """
    assert probe(carrying(*networks)) == echo(address, hops=1)


def test_an_ipv6_network_has_no_broadcast_address() -> None:
    """Its last address is one of a host."""
    six = replace(DUAL, dns=(), addresses=(ip_interface("fd02::2/128"),))
    assert probe(carrying("fd77::/64", tunnel=six)) == echo("fd77::ffff:ffff:ffff:ffff", hops=1)
    assert probe(carrying("::/0", tunnel=six)) == echo("2001:db8::1", hops=1)


@pytest.mark.parametrize(
    ("networks", "lan"),
    [
        (["::/0"], ""),
        (["10.2.0.2/32"], ""),
        (["192.168.1.7/32"], "192.168.1.0/24"),
        (["127.0.0.1/32"], ""),
    ],
    ids=["a family without an address", "its own address", "a listed subnet", "loopback"],
)
def test_where_no_address_is_in_the_tunnel_nothing_is_sent(networks: list[str], lan: str) -> None:
    """A packet that goes elsewhere would prove nothing."""
    assert probe(carrying(*networks), lan=lan) is None


def test_a_second_resolver_is_not_asked() -> None:
    """Workloads ask the first as well."""
    both = replace(IPV4_ONLY, dns=(RESOLVER, ip_address("10.2.0.9")))
    assert probe(both, ProbeKind.DNS) == Probe(ProbeProtocol.DNS, RESOLVER)
