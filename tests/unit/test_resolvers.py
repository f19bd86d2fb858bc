"""Resolvers that cannot answer: which are asked, what is found, and what is reported."""

import asyncio
import socket
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from itertools import pairwise

import pytest

from gateway.model import Address, Config, HealthProbe, ProbeKind, Tunnel
from gateway.policy.limits import LimitCode
from gateway.policy.resolvers import Fault, Finding, limits_of_resolvers_asked, to_ask
from gateway.policy.states import RESOLVER_FAILURES, Reason
from gateway.system import asking
from gateway.system.asking import not_answering
from tests.fakes.world import World
from tests.scenarios import IPV4_ONLY

LOOPBACK, IN_TUNNEL, AT_HOME = map(ip_address, ("127.0.0.1", "10.2.0.1", "192.168.1.53"))
ELSEWHERE = ip_address("10.9.0.1")


def tunnel(*resolvers: Address, allowed: str = "0.0.0.0/0") -> Tunnel:
    """Return a tunnel with these resolvers that leads to `allowed`."""
    peers = tuple(replace(it, allowed_ips=(ip_network(allowed),)) for it in IPV4_ONLY.peers)
    return replace(IPV4_ONLY, peers=peers, dns=resolvers, addresses=(ip_interface("10.2.0.2/32"),))


@pytest.mark.parametrize(
    ("resolver", "allowed", "failing", "is_asked"),
    [
        (LOOPBACK, "0.0.0.0/0", False, True),
        (IN_TUNNEL, "0.0.0.0/0", False, False),
        (IN_TUNNEL, "0.0.0.0/0", True, True),
        (ELSEWHERE, "10.2.0.0/24", False, True),
        (ip_address("fd00::53"), "0.0.0.0/0", False, True),
        (AT_HOME, "0.0.0.0/0", True, False),
        (AT_HOME, "10.2.0.0/24", True, False),
    ],
)
def test_those_are_asked_that_no_probe_in_the_tunnel_asks(
    resolver: Address, allowed: str, *, failing: bool, is_asked: bool
) -> None:
    """Never one in a listed subnet: nothing of the gateway's own leaves outside the tunnel."""
    one = tunnel(resolver, allowed=allowed)
    config = Config((one,), outbound_subnets=(ip_network("192.168.1.0/24"),))
    assert to_ask(one, config, failing=failing) == ((resolver,) if is_asked else ())
    off = replace(config, health_probe=HealthProbe(ProbeKind.OFF))
    assert to_ask(one, off, failing=failing) == ()
    public = replace(config, outbound_subnets=(), public_subnets=(IPv4Network("10.9.0.0/16"),))
    if resolver == ELSEWHERE:
        assert to_ask(one, public, failing=True) == ()


@pytest.mark.parametrize(
    ("resolver", "fault", "text", "remedy"),
    [
        (
            LOOPBACK,
            Fault.REFUSED,
            "the resolver 127.0.0.1 does not answer: nothing listens on its UDP port 53",
            "start the container that has the resolver",
        ),
        (ELSEWHERE, Fault.UNREACHABLE, "the tunnel does not lead there", "add 10.9.0.1 to WIREG"),
        (IN_TUNNEL, Fault.SILENT, "no answer comes", "set DNS_ADDRESS to your provider's"),
    ],
)
def test_a_limit_names_the_cause_and_the_remedy(
    resolver: Address, fault: Fault, text: str, remedy: str
) -> None:
    """One for each resolver; none for one that is not configured any more."""
    found = (Finding(resolver, fault),)
    (limit,) = limits_of_resolvers_asked(found, tunnel(resolver))
    assert limit.code is LimitCode.NO_NAMES
    assert text in limit.text
    assert remedy in limit.remedy
    assert list(limits_of_resolvers_asked(found, tunnel(ip_address("10.2.0.77")))) == []


def test_health_names_a_resolver_on_loopback_while_nothing_listens_there() -> None:
    """At once when the tunnel is up, and no longer once a workload's resolver answers."""
    one = tunnel(LOOPBACK)
    world = World(Config((one,)))
    world.faults[LOOPBACK] = Fault.REFUSED
    world.run((30, world.faults.clear), until=70)
    early, late = world.at(5), world.at(69)
    assert early.healthy
    assert ["127.0.0.1" in limit.text for limit in early.limits] == [True]
    assert late.limits == ()
    asked = [line for line in world.transcript if line.startswith("ask resolvers")]
    assert set(asked) == {"ask resolvers 127.0.0.1"}
    assert len(asked) <= 5, "no more often than the tunnel is probed"


def test_a_silent_resolver_in_the_tunnel_is_asked_why() -> None:
    """The detail of the reason has the cause; while it answers the probe, it is not asked."""
    world = World(Config((tunnel(IN_TUNNEL),)))
    world.faults[IN_TUNNEL] = Fault.REFUSED

    def dies() -> None:
        world.resolver_answers = False

    world.run((60, dies), until=200)
    asked = [line for line in world.transcript if line.startswith("ask resolvers")]
    assert asked
    status = world.at(199)
    assert (status.healthy, status.reason) == (False, Reason.RESOLVER_SILENT)
    assert status.detail == (
        "the resolver 10.2.0.1 does not answer: nothing listens on its UDP port 53"
    )
    assert world.at(59).limits == ()
    assert RESOLVER_FAILURES > 1


def test_a_real_socket_finds_each_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer, a port where nothing listens, silence, and no way."""
    here = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for channel, address in zip(here, ("127.0.9.1", "127.0.9.2"), strict=True):
        channel.bind((address, 0))
        channel.setblocking(False)
    monkeypatch.setattr(asking, "INTERVAL", 0.1)

    async def ask(address: str, port: int) -> tuple[Finding, ...]:
        monkeypatch.setattr(asking, "DNS_PORT", port)
        return await not_answering((ip_address(address),))

    async def answer(channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        question, client = await loop.sock_recvfrom(channel, 512)
        await loop.sock_sendto(channel, b"xx" + question[2:], client)
        await loop.sock_sendto(channel, question[:2] + b"an answer", client)

    async def live() -> None:
        ports = [channel.getsockname()[1] for channel in here]
        _, found = await asyncio.gather(answer(here[0]), ask("127.0.9.1", ports[0]))
        assert found == ()
        assert await ask("127.0.9.2", ports[1]) == (Finding(ip_address("127.0.9.2"), Fault.SILENT),)
        for channel in here:
            channel.close()
        assert await ask("127.0.9.1", ports[0]) == (
            Finding(ip_address("127.0.9.1"), Fault.REFUSED),
        )
        broadcast = ip_address("255.255.255.255")
        assert await ask(str(broadcast), 9) == (Finding(broadcast, Fault.UNREACHABLE),)

    asyncio.run(live())
    assert all(one.fileno() == other.fileno() == -1 for one, other in pairwise(here))
