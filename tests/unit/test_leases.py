"""Ports that the server forwards: open as long as their lease, in their tunnel, and no longer."""

import json
from dataclasses import replace

import pytest

from gateway.model import Config, Protocol
from gateway.model.lease import MOST_LEASES, Connection, Lease
from gateway.policy.events import Leased
from gateway.policy.firewall import ruleset_for, ruleset_in_vault
from gateway.policy.leases import leases_of
from gateway.policy.moves import move
from gateway.policy.reports import ServiceReport
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.policy.states import Connecting, Reason
from gateway.policy.timing import Moment, Timing
from gateway.services.health.board import Board
from gateway.services.health.server import respond
from tests.fakes.world import World
from tests.scenarios import IPV4_ONLY, ONE_UPLINK, connected, connecting

CONFIG = Config((IPV4_ONLY,))
LEASE = Lease(40123, 51413, until=100.0)
WHY = "P9 a port that the server forwards"
NOW = Moment(10.0, Timing())

pytestmark = pytest.mark.promise("P9")


def opened(rules: Ruleset) -> list[tuple[int, str, str]]:
    """Return family, protocol and ports that `rules` open for leases."""
    return [
        (family.value, str(it.protocol), str(it.destination_ports))
        for family in Family
        for it in rules.of(family)[Chain.INPUT]
        if it.why == WHY
    ]


def test_a_lease_opens_its_port_here_for_its_protocols_and_family() -> None:
    """In a vault too. Control: without one, nothing is opened."""
    state, up = connected(IPV4_ONLY), replace(connected(IPV4_ONLY), leases=(LEASE,))
    port = "Ports(first=51413, last=51413)"
    assert opened(ruleset_for(state, CONFIG, ONE_UPLINK)) == []
    both = [(4, "tcp", port), (4, "udp", port)]
    assert opened(ruleset_for(up, CONFIG, ONE_UPLINK)) == both
    assert opened(ruleset_in_vault(up, CONFIG, None)) == both
    udp = replace(LEASE, protocols=(Protocol.UDP,))
    assert opened(ruleset_for(replace(up, leases=(udp,)), CONFIG, ONE_UPLINK)) == both[1:]
    of_ipv6 = replace(up, leases=(replace(LEASE, version=6),))
    assert opened(ruleset_for(of_ipv6, CONFIG, ONE_UPLINK)) == []


def test_leases_of_another_tunnel_or_state_open_nothing() -> None:
    """They may be late: the tunnel that they belong to is gone."""
    other = replace(IPV4_ONLY, listen_port=4)
    assert move(connected(IPV4_ONLY), Leased(other, (LEASE,)), NOW) == connected(IPV4_ONLY)
    before = connecting(IPV4_ONLY)
    assert move(before, Leased(IPV4_ONLY, (LEASE,)), NOW) == before
    assert leases_of(move(connected(IPV4_ONLY), Leased(IPV4_ONLY, (LEASE,)), NOW)) == (LEASE,)


def test_what_has_ended_is_not_opened_and_there_are_not_endlessly_many() -> None:
    """Each has rules of its own."""
    many = tuple(replace(LEASE, port=port) for port in range(1024, 1024 + 2 * MOST_LEASES))
    late = replace(LEASE, until=NOW.now)
    state = move(connected(IPV4_ONLY), Leased(IPV4_ONLY, (late, *many)), NOW)
    assert len(leases_of(state)) == MOST_LEASES - 1
    assert late not in leases_of(state)


def test_a_lost_tunnel_loses_its_leases() -> None:
    """A new one has to ask for them again."""
    state = replace(connected(IPV4_ONLY), leases=(LEASE,))
    assert leases_of(Connecting(state.turn, IPV4_ONLY, Reason.STARTING, 0.0, 0.0)) == ()


def test_a_port_is_closed_when_its_lease_ends_and_who_depends_on_it_is_informed() -> None:
    """To the moment, in a calm tunnel too, which is looked at seldom."""
    world = World(CONFIG)
    world.traffic = False
    lease = replace(LEASE, until=0.0)

    def begin() -> None:
        nonlocal lease
        lease = replace(LEASE, until=world.clock() + 601.5)
        world.inbox.lease(Leased(world.tunnel_now, (lease,)))

    seen: list[tuple[float, bool]] = []

    def look() -> None:
        seen.append((world.clock(), bool(opened(world.firewall.applied[-1]))))

    looks = [(second, look) for second in (99.0, 101.0, 701.0, 701.6)]
    world.run((100.0, begin), *looks, until=710)
    assert [is_open for _, is_open in seen] == [False, True, True, False]
    tunnels = [it.leases if it else None for it in world.carried]
    assert tunnels == [(), (lease,), (), None]


def test_what_is_forwarded_is_reported() -> None:
    """In health, with the seconds that are left, and in the metrics; services too."""
    world = World(CONFIG)
    now = world.clock() + 50
    board = Board(lambda: now, lambda: 0.0)
    lease = replace(LEASE, until=now + 50)
    world.run((20.0, lambda: world.inbox.lease(Leased(world.tunnel_now, (lease,)))), until=50.0)
    board.publish(next(it for it in reversed(world.published) if it.leases))
    problem = ServiceReport("proxy", problem="the port is taken", remedy="use another", starts=3)
    board.services = lambda: (ServiceReport("client", is_running=True, starts=1), problem)
    code, _, text = respond(b"GET", b"/healthz", board)
    body = json.loads(text)
    assert (code, body["forwarded_ports"]) == (
        200,
        [
            {
                "port": 40123,
                "listening": 51413,
                "arriving": 51413,
                "version": 4,
                "protocols": ["tcp", "udp"],
                "seconds": 50.0,
            }
        ],
    )
    assert [it["name"] for it in body["services"]] == ["client", "proxy"]
    assert body["limits"][-1] == {
        "code": "service_not_working",
        "text": "proxy: the port is taken",
        "remedy": "use another",
    }
    metrics = respond(b"GET", b"/metrics", board)[2].decode()
    assert 'portcullis_forwarded_port_info{port="40123"} 1.0' in metrics
    assert 'portcullis_service_up{service="proxy"} 0.0' in metrics
    assert 'portcullis_service_starts_total{service="proxy"} 3.0' in metrics


def test_a_connection_is_a_tunnel_with_its_leases() -> None:
    """Equal ones mean that nothing has changed."""
    assert Connection(IPV4_ONLY, (LEASE,)) != Connection(IPV4_ONLY)
