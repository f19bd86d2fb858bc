"""The MTU of the tunnel: measured after each connection, lowered where large packets vanish."""

import errno
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.errors import NetworkError
from gateway.model import Config, HealthProbe, ProbeKind
from gateway.policy.actions import Measure, Work
from gateway.policy.agenda import rests
from gateway.policy.events import Built, Measured
from gateway.policy.limits import LimitCode, limits_of_path
from gateway.policy.link import SMALLEST_MTU
from gateway.policy.machine import interrupted, step
from gateway.policy.mtu import LEAST, STEP, WIDEST, fitting, steps
from gateway.policy.probing import MOST_HOSTS, Probe, ProbeProtocol, echoes_for
from gateway.policy.states import Connected, Reason
from gateway.policy.timing import Timing
from gateway.system.inside import USUAL
from tests.fakes.world import World, other_uplink
from tests.scenarios import DUAL, IPV4_ONLY, PEER
from tests.unit.test_machine import (
    ALIVE,
    BUILT,
    CONFIG,
    CONNECTED,
    FAR,
    NOW,
    QUIET,
    TUNNEL,
    at,
    calm,
    due,
    sampled,
)
from tests.unit.test_supervisor import FIRST, ONE, SECOND, TWO, kills

TIMING = Timing()
RESOLVER = Probe(ProbeProtocol.ICMP, ip_address("10.2.0.1"))
SERVER = Probe(ProbeProtocol.ICMP, ip_address("192.0.2.1"), hops=1)
CHOSEN = replace(ONE, tunnels=(replace(ONE.tunnels[0], mtu=1400),))


def narrow(config: Config = ONE, path: int | None = 1315) -> World:
    """Return a world in which only packets of `path` bytes arrive."""
    world = World(config)
    world.path = path
    return world


def sizes(world: World) -> list[str]:
    """Return the calls that are about packets' sizes, without the hosts that were asked."""
    words = [line.split() for line in world.transcript if line.startswith(("echo ", "mtu "))]
    return [f"{word[0]} {word[-1]}" for word in words]


def codes(world: World, second: float) -> set[str]:
    """Return the limits that are reported at `second`."""
    return {str(limit.code) for limit in world.at(second).limits}


def test_the_sizes_are_multiples_of_what_wireguard_pads_to_and_end_with_the_largest() -> None:
    """From the smallest MTU of IPv6 to a path of 1500 bytes over IPv4; below, only for a report."""
    assert steps(1420)[-2:] == (1408, 1420)
    assert all(size % STEP == 0 for size in steps(8920)[:-1])
    assert steps(8920)[-2:] == (WIDEST, 8920)
    assert SMALLEST_MTU in steps(1420)
    assert steps(1200) == (576, 768, 1024, 1152, 1200)
    assert steps(1280) == (576, 768, 1024, 1152, 1280)
    assert steps(LEAST) == (LEAST,)
    assert len(steps(65535)) == 16


@pytest.mark.parametrize("page", ["health.md", "limits.md"])
def test_the_documents_say_what_a_search_costs_at_most(page: str) -> None:
    """Two hosts that do not answer and the server, two sizes each, and then all sizes."""
    hosts = MOST_HOSTS + 1
    packets = USUAL.tries * (2 * hosts + len(steps(65535)))
    seconds = USUAL.tries * USUAL.interval * (hosts + 1)
    text = " ".join((Path(__file__).parents[2] / "docs" / page).read_text("utf-8").split())
    assert f"{packets} packets and {seconds:g} s" in text
    assert page != "health.md" or f"one of {LEAST} bytes" in text


def test_the_mtu_is_never_raised_and_never_below_that_of_ipv6() -> None:
    """For any size that arrives."""
    assert fitting(1420, 1312) == 1312
    assert fitting(1420, 768) == SMALLEST_MTU
    assert fitting(1280, 1440) == 1280


def echoes(config: Config) -> tuple[Probe, ...]:
    """Return the echoes for its only tunnel."""
    [tunnel] = config.tunnels
    return echoes_for(tunnel, config)  # type: ignore[arg-type]  # its server has an address


def test_resolvers_are_asked_first_and_the_server_last() -> None:
    """An answer of a resolver shows both directions; two are asked, and a host to ping first."""
    config = Config((TUNNEL,))
    assert echoes(config) == (RESOLVER, SERVER)
    three = replace(IPV4_ONLY, dns=tuple(ip_address(f"10.2.0.{n}") for n in (1, 8, 9)))
    second = replace(RESOLVER, address=ip_address("10.2.0.8"))
    assert echoes(Config((three,))) == (RESOLVER, second, SERVER)
    host = HealthProbe(ProbeKind.ICMP, ip_address("1.1.1.1"))
    first = replace(RESOLVER, address=host.address)
    assert echoes(replace(config, health_probe=host)) == (first, RESOLVER, SERVER)


def test_nothing_is_sent_that_would_leave_outside_the_tunnel_or_is_not_wanted() -> None:
    """A resolver in a listed subnet, a tunnel with nothing to ask, and HEALTH_PROBE=off."""
    config = Config((TUNNEL,))
    assert echoes(replace(config, outbound_subnets=(ip_network("10.2.0.0/24"),))) == (SERVER,)
    own = replace(PEER, allowed_ips=(ip_network("10.2.0.2/32"),))
    assert echoes(Config((replace(TUNNEL, peers=(own,)),))) == ()
    assert echoes(replace(config, health_probe=HealthProbe(ProbeKind.OFF))) == ()


def test_a_path_is_measured_once_after_each_connection() -> None:
    """Not before it, and not again while it is calm: an idle gateway is woken no more often."""
    built = calm(replace(BUILT, tunnel=TUNNEL), mtu=1420)
    situation, actions = step(built, sampled(), at(0))
    assert isinstance(situation.state, Connected)
    [measure] = [action for action in actions if isinstance(action, Measure)]
    assert measure == Measure((RESOLVER, SERVER), 1420, is_chosen=False)
    assert measure not in due(situation, 700), "while it is under way"
    quiet = replace(situation, state=QUIET, under_way=frozenset({Work.MEASURE}))
    quiet = replace(quiet, sample_at=FAR, probed_at=NOW + 1)
    assert not rests(quiet, at(1))
    measured, actions = step(quiet, Measured(1420, 1420), at(1))
    assert actions == ()
    assert rests(measured, at(2))
    assert not [it for it in due(measured, 10_000) if isinstance(it, Measure)]


def test_it_is_measured_again_when_packets_seem_to_vanish_but_not_often() -> None:
    """Data that was not answered for three seconds, ten minutes after the last time."""
    doubt = replace(CONNECTED, pulse=replace(ALIVE, unanswered_at=NOW))
    again = TIMING.measure_again

    def measures(seconds: float) -> bool:
        situation = calm(doubt, measured_at=NOW - seconds, probed_at=FAR, mtu=1420)
        return any(isinstance(action, Measure) for action in due(situation, 3.0))

    assert measures(again - 3.0)
    assert not measures(again - 3.1)


def test_without_a_host_to_ask_or_an_interface_of_known_size_nothing_is_measured() -> None:
    """And it is not tried again and again."""
    fresh = calm(QUIET, measured_at=float("-inf"), mtu=1420)
    off = replace(CONFIG, health_probe=HealthProbe(ProbeKind.OFF))
    for situation in (replace(fresh, config=off), replace(fresh, mtu=None)):
        assert due(situation) == []
        assert step(situation, *(Measured(1420, None), at(0)))[0].measured_at == NOW
    assert [type(action) for action in due(fresh)] == [Measure]


def test_a_search_that_was_cut_off_begins_again() -> None:
    """After a shortage; a finished one does not."""
    busy = calm(CONNECTED, mtu=1420, under_way=frozenset({Work.MEASURE}))
    assert interrupted(busy).measured_at == float("-inf")
    assert interrupted(calm(CONNECTED)).measured_at == NOW


def test_what_is_not_found_out_leaves_what_was_known() -> None:
    """Until the next interface."""
    known = calm(CONNECTED, mtu=1312, path_mtu=1312)
    assert step(known, Measured(1312, None), at(0))[0].path_mtu == 1312
    building = calm(replace(BUILT, built=False), mtu=1312, path_mtu=1312)
    after, _ = step(building, Built(mtu=1420), at(0))
    assert (after.mtu, after.path_mtu) == (1420, None)


def test_a_narrow_path_lowers_the_mtu_and_is_reported() -> None:
    """Health is green before that is known: nothing waits for it."""
    world = narrow()
    with capture_logs() as logs:
        world.run(until=20)
    green = next(status for status in world.published if status.healthy)
    assert (green.mtu, green.path_mtu) == (1420, None)
    assert green.at < world.since(1)
    assert sizes(world) == ["echo 1420", "echo 1420", "mtu 1312"]
    status = world.at(19)
    assert (status.mtu, status.path_mtu, status.healthy) == (1312, 1312, True)
    assert world.tunnel.mtu == 1312
    assert LimitCode.MTU_TOO_LARGE not in codes(world, 19)
    lines = [it for it in logs if "MTU" in it["event"] or "vanish" in it["event"]]
    assert lines == [{"event": "tunnel MTU lowered", "log_level": "info", "old": 1420, "new": 1312}]
    assert status.reconnects == ()


def test_a_wide_path_is_measured_by_one_echo_and_nothing_is_set() -> None:
    """And nothing is logged."""
    world = World(ONE)
    with capture_logs() as logs:
        world.run(until=60)
    assert sizes(world) == ["echo 1420"]
    assert (world.at(59).mtu, world.at(59).path_mtu) == (1420, 1420)
    assert not [it for it in logs if "MTU" in it["event"]]


def test_a_server_that_answers_no_echo_changes_nothing() -> None:
    """Each host is asked once, and it is known that nothing is known."""
    world = narrow(path=None)
    world.run(until=60)
    assert sizes(world) == ["echo 1420"] * 2
    assert (world.at(59).mtu, world.at(59).path_mtu) == (1420, None)
    assert world.at(59).limits == ()


def test_a_server_that_goes_while_it_is_measured_changes_nothing() -> None:
    """It answered a small packet, and then none of any size."""
    world = narrow()

    def goes() -> None:
        world.path = None

    world.run((2, goes), until=8)
    assert sizes(world) == ["echo 1420"] * 3, "control: all sizes were tried, and the next host"
    assert (world.at(7.9).mtu, world.at(7.9).path_mtu) == (1420, None)


def test_an_mtu_that_was_chosen_stays_and_a_limit_says_that_it_is_too_large() -> None:
    """It is the user's to change, and the remedy can be pasted."""
    world = narrow(CHOSEN)
    with capture_logs() as logs:
        world.run(until=20)
    assert sizes(world) == ["echo 1400", "echo 1400"]
    assert (world.at(19).mtu, world.at(19).path_mtu, world.at(19).healthy) == (1400, 1312, True)
    assert codes(world, 19) == {"mtu_too_large"}
    [limit] = world.at(19).limits
    assert "WIREGUARD_MTU=1312" in limit.remedy
    vanish = {"event": "packets vanish in the tunnel", "log_level": "warning"}
    assert vanish | {"mtu": 1400, "arrives": 1312} in logs


@pytest.mark.parametrize(
    ("tunnel", "remedy"),
    [
        (replace(DUAL, mtu=1400), "leave it out: the gateway finds one that fits"),
        (replace(IPV4_ONLY, mtu=1400), "set WIREGUARD_MTU=1152, or leave it out"),
        (DUAL, "use a network that carries larger packets"),
        (IPV4_ONLY, "set WIREGUARD_MTU=1152, or use a network"),
    ],
)
def test_a_path_below_the_smallest_mtu_of_ipv6_is_a_limit(tunnel: object, remedy: str) -> None:
    """The remedy is not a variable that would be refused."""
    [limit] = limits_of_path(tunnel, 1280, 1152)  # type: ignore[arg-type]  # both are tunnels
    assert limit.remedy.startswith(remedy)
    assert not [*limits_of_path(DUAL, 1280, 1280), *limits_of_path(DUAL, None, 1)]


def test_the_smallest_mtu_is_set_where_even_that_does_not_arrive() -> None:
    """And the limit remains."""
    world = narrow(path=1000)
    world.run(until=20)
    assert (world.at(19).mtu, world.at(19).path_mtu) == (1280, 768)
    assert codes(world, 19) == {"mtu_too_large"}


def widens(world: World) -> Callable[[], None]:
    """Return what gives the uplink another address, on a path that is wide."""

    def change() -> None:
        world.path = 65535
        world.facts = other_uplink(world.facts)
        world.supervisor.kernel_changed()

    return change


def test_another_way_begins_with_the_largest_packet_again() -> None:
    """The interface stays, and gets its first MTU back before the new way is measured."""
    world = narrow()
    world.run((20, widens(world)), until=40)
    assert world.at(39).reconnects == ((Reason.MOVED, 1),)
    assert sum(line.startswith("up ") for line in world.transcript) == 1, "control: it stays"
    assert sizes(world)[2:] == ["mtu 1312", "mtu 1420", "echo 1420"]
    assert (world.at(39).mtu, world.at(39).path_mtu) == (1420, 1420)


def test_a_path_that_becomes_narrow_under_traffic_is_found_within_ten_minutes() -> None:
    """Nothing small is lost, so nothing else shows it; an idle tunnel is not searched again."""
    for traffic in (True, False):
        world = World(ONE)
        world.traffic = world.pushed = traffic
        world.run((20, lambda world=world: setattr(world, "path", 1312)), until=640)
        assert world.at(639).mtu == (1312 if traffic else 1420)
        assert world.at(639).reconnects == ()


def test_the_same_way_keeps_the_mtu_and_another_server_does_not() -> None:
    """A server that was silent for a while does not cost large packets again."""
    world = narrow()
    world.run((20, kills(world, FIRST)), (50, lambda: world.alive.add(FIRST)), until=80)
    assert world.at(79).reconnects == ((Reason.SILENT, 1),)
    assert sizes(world)[2:] == ["mtu 1312", "echo 1312"]
    two = narrow(TWO)
    two.run((20, kills(two, FIRST)), until=60)
    assert two.at(59).endpoint == f"{SECOND}:51820", "control"
    assert sizes(two)[2:] == ["mtu 1312", "mtu 1420", "echo 1420", "echo 1420", "mtu 1312"]


def test_an_interface_that_is_made_again_begins_with_its_first_mtu() -> None:
    """And is measured."""
    world = narrow()
    world.run((20, world.tunnel_lost), until=40)
    assert sizes(world) == ["echo 1420", "echo 1420", "mtu 1312"] * 2
    assert world.at(39).mtu == 1312


@pytest.mark.parametrize("part", ["echo", "mtu"])
def test_a_shortage_of_the_search_is_waited_for(part: str) -> None:
    """Then it begins again."""
    world = narrow()
    world.fails[part] = [NetworkError("not now", "wg0", errno.ENOBUFS)]
    world.run(until=40)
    assert Reason.UNCHECKED in {status.reason for status in world.published}, "control"
    assert (world.at(39).mtu, world.at(39).path_mtu, world.at(39).healthy) == (1312, 1312, True)


def test_an_mtu_that_the_kernel_refuses_is_not_reported_as_set() -> None:
    """What the interface has is what health shows."""
    world = narrow()
    world.fails["mtu"] = [NetworkError("no", "wg0", errno.EINVAL)]
    world.run(until=40)
    assert (world.at(39).mtu, world.at(39).path_mtu, world.at(39).healthy) == (1420, None, True)


def test_an_interface_that_does_not_take_the_mtu_of_another_way_is_made_again() -> None:
    """With that MTU."""
    world = narrow()
    world.run(
        (19, lambda: world.fails.update(mtu=[NetworkError("no", "wg0", errno.EINVAL)])),
        (20, widens(world)),
        until=40,
    )
    assert sum(line.startswith("up ") for line in world.transcript) == 2
    assert (world.at(39).mtu, world.tunnel.mtu, world.at(39).healthy) == (1420, 1420, True)


def test_a_gateway_without_an_interface_has_no_mtu() -> None:
    """While it connects again, for example."""
    world = narrow()
    world.run((20, kills(world, FIRST)), until=60)
    assert {it.mtu for it in world.published if it.state == "locked"} == {None}
    assert world.published[0].path_mtu is None
    assert {it.mtu for it in world.published if it.state == "stopping"} == {None}
