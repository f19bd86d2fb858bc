"""The supervisor on a machine in memory: firewall first, failures closed, no hurry.

Times are seconds of a run on a clock that passes by itself.
"""

import asyncio
import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from gateway.errors import FirewallError, NetworkError, NotClosedError, TunnelError
from gateway.model import EVERYTHING, Config, Endpoint, NamedEndpoint, Peer, Tunnel
from gateway.policy.rules import Chain, Family, Ruleset
from gateway.policy.states import Reason
from gateway.policy.timing import Timing
from tests.fakes.world import World, other_uplink, summary
from tests.scenarios import IPV4_ONLY, TWO_UPLINKS

FIRST, SECOND = "198.51.100.10", "198.51.100.20"
DNS = ip_address("10.2.0.1")
TIMING = Timing()


def server(address: str) -> Tunnel:
    """Return a candidate with this endpoint."""
    peer = Peer("cHVibGlj", Endpoint(ip_address(address), 51820), EVERYTHING)
    return replace(IPV4_ONLY, peers=(peer,), dns=(DNS,))


NAMED = replace(
    IPV4_ONLY,
    peers=(Peer("cHVibGlj", NamedEndpoint("vpn.example", 51820), EVERYTHING),),
    dns=(DNS,),
)
ONE = Config((server(FIRST),))
TWO = Config((server(FIRST), server(SECOND)))
BY_NAME = Config((NAMED,))


def kills(world: World, *addresses: str) -> Callable[[], None]:
    """Return an action after which these servers are dead."""
    return lambda: world.alive.difference_update(addresses)


def revives(world: World, *addresses: str) -> Callable[[], None]:
    """Return an action after which these servers live."""
    return lambda: world.alive.update(addresses)


def acts(world: World) -> list[str]:
    """Return what changed the machine: rules, routes, interface and commands."""
    return acts_from(world, 0)


@pytest.mark.promise("P1")
def test_the_rules_come_first_on_the_way_up_and_on_the_way_down() -> None:
    """Nothing else of a state is done before its rules are in force."""
    world = World(ONE)
    world.run(until=5)
    assert acts(world)[1:] == [
        f"rules only {FIRST}",
        "routes nowhere",
        f"up {FIRST}:51820",
        "routes by the tunnel",
        f"rules open {FIRST}",
        "VPN_UP_COMMAND",
        "rules closed",
        "routes nowhere",
        "VPN_DOWN_COMMAND",
        "down",
    ]


def test_a_stop_is_red_before_its_rules_are_in_and_commands_end_while_the_interface_goes() -> None:
    """No workload should use what is about to close; slow commands and links share the time."""
    world = World(ONE)
    world.run(until=5)
    reported = world.transcript.index("published stopping")
    assert [line for line in world.transcript[reported:] if not line.startswith("facts")] == [
        "published stopping",
        "rules closed",
        "routes nowhere",
        "VPN_DOWN_COMMAND",
        "down",
        "finish",
    ]
    stopping = [status for status in world.published if status.state == "stopping"]
    assert not any(status.healthy for status in stopping)
    assert world.published[-1] == stopping[-1]


def test_a_switch_replaces_the_hole_in_the_step_that_opens_the_next_one() -> None:
    """One ruleset, and it comes before the interface gets the other server."""
    world = World(TWO)
    world.run((5, kills(world, FIRST)), until=40)
    switch = acts(world).index(f"rules only {SECOND}")
    assert acts(world)[switch : switch + 6] == [
        f"rules only {SECOND}",
        "routes nowhere",
        "VPN_DOWN_COMMAND",
        "routes nowhere",
        f"configure {SECOND}:51820",
        "routes by the tunnel",
    ]
    assert not [line for line in acts(world)[switch:] if FIRST in line]
    assert (world.at(39).endpoint, world.at(39).switches) == (f"{SECOND}:51820", 1)


@pytest.mark.long
def test_a_dead_server_is_red_within_20_seconds_under_traffic_and_45_idle() -> None:
    """The probe is what finds it out when nothing is sent."""
    for traffic, limit in ((True, 20), (False, 45)):
        for death in (30.0, 30.5, 37.3, 49.9):
            world = World(ONE)
            world.traffic = traffic
            world.run((death, kills(world, FIRST)), until=death + 60)
            red = next(s for s in world.published if s.at > world.since(5) and not s.healthy)
            assert red.reason == Reason.SILENT
            assert red.at - world.since(death) <= limit


@pytest.mark.long
def test_an_idle_tunnel_stays_green_for_hours() -> None:
    """Answered probes and renewed handshakes are enough."""
    world = World(ONE)
    world.traffic = False
    world.run(until=3600)
    assert world.at(3599).reconnects == ()
    assert all(
        status.healthy
        for status in world.published
        if status.at > world.since(1) and status.state != "stopping"
    )


@pytest.mark.long
def test_a_link_that_loses_every_fifth_packet_stays_green_for_hours() -> None:
    """Each way, idle: a question that finds no answer is asked again before anybody is blamed."""
    world = World(ONE)
    world.traffic, world.loss = False, 0.2
    world.run(until=5400)
    assert [s.reason for s in world.published if s.state == "connected" and not s.healthy] == []
    assert world.at(5399).reconnects == ()


@pytest.mark.long
def test_all_servers_dead_are_tried_for_ever_and_never_in_a_hurry() -> None:
    """Each candidate gets its patience, and the pauses between rounds grow to a minute."""
    world = World(TWO)
    world.alive.clear()
    world.run(until=1800)
    attempts = [line for line in world.transcript if line.startswith(("up", "configure"))]
    assert 40 < len(attempts) < 70
    world = World(TWO)
    world.alive.clear()
    world.run((300, revives(world, SECOND)), until=400)
    assert world.at(399).healthy


@pytest.mark.long
def test_the_first_server_is_tried_again_after_a_while() -> None:
    """And when it is dead still, the second is back in seconds."""
    for alive, endpoint in ((FIRST, FIRST), (SECOND, SECOND)):
        world = World(TWO)
        world.alive.discard(FIRST)
        world.run((60, revives(world, alive)), until=TIMING.return_after + 60)
        assert world.at(TIMING.return_after - 10).endpoint == f"{SECOND}:51820"
        last = world.at(TIMING.return_after + 59)
        assert (last.endpoint, last.healthy) == (f"{endpoint}:51820", True)
        assert dict(last.reconnects) == {Reason.RETURNING: 1}


def test_a_stop_while_the_interface_is_built_ends_closed_at_once() -> None:
    """Even if the build waits for something."""
    world = World(ONE)

    async def never(*_: object) -> None:
        world.call("up")
        await asyncio.sleep(3600)

    world.tunnel.up = never  # type: ignore[method-assign]
    world.run(until=3)
    assert world.published[-1].state == "stopping"
    assert world.clock.now < world.since(4)
    assert world.firewall.summary == "closed"


def test_what_is_lost_at_once_again_and_again_is_built_once_a_second() -> None:
    """A program deletes the interface whenever it is there."""
    world = World(ONE)
    world.fails["status"] = [TunnelError("gone", "wg0")] * 1000
    world.run(until=60)
    built = [line for line in world.transcript if line.startswith(("up", "configure"))]
    assert 50 <= len(built) <= 62


@pytest.mark.long
@pytest.mark.parametrize("part", ["facts", "routes", "up", "fault of", "routing drift", "open"])
def test_a_part_that_fails_for_ever_costs_no_hurry(part: str) -> None:
    """Each failure is reported, and nothing is tried more than a few times a second for it."""
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address(FIRST),)
    world.alive.add(FIRST)
    world.fails[part] = [NetworkError("no", part)] * 100_000
    world.run(until=600)
    assert world.firewall.summary == "closed"
    assert world.calls < 600 * 10
    assert world.transcript.count(f"up {FIRST}:51820") < 400


@pytest.mark.long
@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    ("code", "most"), [(None, 3), (errno.EAGAIN, 1)], ids=["refused", "shortage"]
)
def test_each_single_failure_is_survived_closed_first(code: int | None, most: int) -> None:
    """One call after the other is broken once; the gateway is healthy again, and ends closed.

    Start, switch, loss, resolving and stop are in it. The world itself asserts, whenever anything
    is published, that the rules are open only where the state says so.
    """
    config = replace(TWO, tunnels=(NAMED, server(SECOND)))

    def story(world: World) -> None:
        world.names["vpn.example"] = (ip_address(FIRST),)
        world.alive.add(FIRST)
        world.run(
            (4, world.tunnel_lost),
            (8, lambda: (kills(world, FIRST)(), world.supervisor.kernel_changed())),
            until=100,
        )

    whole = World(config)
    story(whole)
    assert whole.at(99).healthy
    times: Counter[str] = Counter()
    for number, what in enumerate(whole.transcript, start=1):
        times[what] += 1
        if times[what] > most:
            continue
        world = World(config)
        world.breaks_at, world.breaks_with = number, code
        story(world)
        assert world.published[-1].state == "stopping", (number, what)
        assert world.firewall.summary == "closed", (number, what)
        assert world.at(99).healthy, (number, what, world.transcript[number - 3 : number + 30])


def test_rules_that_are_refused_close_the_gateway_and_are_tried_again() -> None:
    """With more and more time in between."""
    world = World(ONE)
    world.fails["rules"] = [FirewallError("no"), None] * 4
    world.run(until=60)
    assert acts(world)[1:3] == [f"rules only {FIRST}", "rules closed"]
    assert world.at(0.5).reason == Reason.FIREWALL
    assert world.at(59).healthy


def test_rules_that_are_refused_while_connected_are_tried_ever_more_seldom() -> None:
    """A handshake before each refusal makes no difference: the attempts are counted on."""
    world = World(ONE)
    world.fails["rules"] = [None, FirewallError("no"), None] * 1000
    world.run(until=600)
    assert len([line for line in acts(world) if line.startswith("up")]) < 20
    assert world.firewall.summary == "closed"


def test_when_not_even_the_closed_rules_are_taken_the_links_go_down_until_they_are() -> None:
    """Red meanwhile, and healthy afterwards: no exit for what may clear by itself."""
    world = World(ONE)
    world.fails["rules"] = [FirewallError("no")] * 10
    world.run(until=90)
    assert world.transcript.index("links down") < world.transcript.index("links up")
    assert not world.at(5).healthy
    assert (world.at(5).state, world.links_are_down) == ("locked", False)
    assert world.at(89).healthy


def test_a_gateway_whose_rules_are_never_taken_ends_with_the_links_down_and_says_so() -> None:
    """The last line of the log does not claim that rules are in force."""
    world = World(ONE)
    world.fails["rules"] = [FirewallError("no")] * 100_000
    with pytest.raises(NotClosedError, match="every link is down"):
        world.run(until=60)
    assert world.calls < 60 * 10
    world = World(ONE)
    world.fails["rules"] = [FirewallError("no")] * 100_000
    world.still_up = ("eth0",)
    with pytest.raises(NotClosedError, match="still up: eth0"):
        world.run(until=60)


NOT_NOW = NetworkError("not now", "a part", errno.EAGAIN)


@pytest.mark.promise("P15")
@pytest.mark.parametrize("part", ["facts", "status", "fault of", "routing drift"])
def test_a_shortage_changes_no_state_and_is_red_until_it_ends(part: str) -> None:
    """Ten seconds in which nothing can be asked: no rule, no route and no interface changes."""
    world = World(ONE)

    def begins() -> None:
        world.fails[part] = [NOT_NOW] * 100_000

    def ends() -> None:
        del world.fails[part]

    world.run((10, begins), (20, ends), until=40)
    assert (world.at(18).healthy, world.at(18).state) == (False, "connected")
    assert world.at(18).reason == Reason.UNCHECKED
    assert "not now" in world.at(18).detail
    assert (world.at(25).healthy, world.at(39).reconnects) == (True, ())
    assert acts(world).count("rules closed") == 1, "the stop"
    assert all(after.at - before.at <= 4.1 for before, after in pairwise(world.published))


@pytest.mark.promise("P15")
def test_who_reads_the_metrics_during_a_shortage_makes_no_attempt_of_it() -> None:
    """A workload may ask as often as it likes; the waits between the attempts stay as they are."""

    def attempts(asks: int) -> int:
        world = World(ONE)

        def begins() -> None:
            world.fails["facts"] = [NOT_NOW] * 100_000

        def ask() -> None:
            world.supervisor.count()

        asking = [(15 + number / asks, ask) for number in range(asks)]
        world.run((10, begins), *asking, until=18)
        assert world.at(15).reason == Reason.UNCHECKED, "control: the shortage is noticed"
        return 100_000 - len(world.fails["facts"])

    assert attempts(100) <= attempts(1) + 1


@pytest.mark.promise("P15")
def test_what_a_shortage_keeps_from_being_done_is_done_when_it_ends() -> None:
    """The rules of the next state come late; nothing of that state is done before them."""
    world = World(ONE)

    def begins() -> None:
        world.fails["rules"] = [NOT_NOW] * 100_000
        world.tunnel_lost()

    def ends() -> None:
        del world.fails["rules"]

    world.run((10, begins), (17, ends), until=40)
    assert not world.at(16).healthy
    late = world.transcript.index(
        "published connecting", world.transcript.index("published connected")
    )
    assert [line for line in acts_from(world, late) if not line.startswith("rules only")][:3] == [
        "routes nowhere",
        "VPN_DOWN_COMMAND",
        "routes nowhere",
    ]
    assert "links down" not in world.transcript
    assert world.at(39).healthy


def acts_from(world: World, start: int) -> list[str]:
    """Return what changed the machine from position `start` of the transcript on."""
    changing = ("rules", "routes", "up", "configure", "down", "links", "VPN", "open", "ask")
    return [line for line in world.transcript[start:] if line.startswith(changing)]


@pytest.mark.promise("P15")
@pytest.mark.parametrize("seconds", [2, 60])
def test_a_stop_during_a_shortage_ends_closed(seconds: int) -> None:
    """By rules where it ends in time, by the links where it does not; the error says which."""
    world = World(ONE)

    def begins() -> None:
        world.fails["rules"] = [NOT_NOW] * 100_000

    def ends() -> None:
        world.fails.clear()

    if seconds < TIMING.closing_time:
        world.run((10, begins), (12 + seconds, ends), until=12)
        assert world.firewall.summary == "closed"
        assert "links down" not in world.transcript
    else:
        with pytest.raises(NotClosedError, match=r"not now.*every link is down"):
            world.run((10, begins), until=12)
        assert world.links_are_down
    assert world.clock.now - world.since(12) < TIMING.closing_time + 2
    assert acts(world)[-1] == "down", "the interface and its key are away"


@pytest.mark.promise("P1")
def test_a_fault_of_ours_during_a_shortage_ends_closed_too() -> None:
    """An unforeseen error meets rules that cannot be written for some seconds."""
    world = World(ONE)

    def begins() -> None:
        world.fails["rules"] = [NOT_NOW] * 20
        world.fails["status"] = [RuntimeError("a fault")]

    with pytest.raises(RuntimeError):
        world.run((10, begins), until=60)
    assert world.firewall.summary == "closed"
    assert acts(world)[-1] == "rules closed", "nothing is opened after it"


@pytest.mark.promise("P1")
def test_rules_that_are_refused_during_a_shortage_are_closed_when_it_ends() -> None:
    """The refusal is remembered; no link goes down for the shortage."""
    world = World(ONE)

    def begins() -> None:
        world.fails["rules"] = [FirewallError("no"), *[NOT_NOW] * 5]
        world.tunnel_lost()

    world.run((10, begins), until=60)
    assert "links down" not in world.transcript
    assert "locked" in {status.state for status in world.published if status.at > world.since(10)}
    assert world.at(59).healthy


def test_an_unforeseen_error_ends_the_gateway_closed() -> None:
    """A fault of ours in the middle of being connected."""
    world = World(ONE)
    world.fails["status"] = [*[None] * 10, RuntimeError("a fault")]
    with pytest.raises(RuntimeError):
        world.run(until=120)
    assert f"rules open {FIRST}" in world.transcript
    assert world.firewall.summary == "closed"


def test_a_name_is_looked_up_through_a_hole_that_is_open_for_the_question_alone() -> None:
    """Closed before and after; a resolver that is dead later does not keep the gateway down."""
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address(SECOND), ip_address(FIRST))
    world.alive.add(FIRST)
    world.run(
        (20, world.names.clear), (30, kills(world, FIRST)), (60, revives(world, FIRST)), until=120
    )
    assert acts(world)[1:6] == [
        "open",
        "rules only 172.18.0.53",
        "routes nowhere",
        "ask vpn.example",
        f"rules only {SECOND}",
    ]
    assert world.at(19).endpoint == f"{FIRST}:51820", "the second address after the first was dead"
    assert world.at(119).healthy, "the last good address"
    assert world.transcript.count("ask vpn.example") >= 3


def test_a_name_that_was_never_answered_is_asked_for_again_with_growing_pauses() -> None:
    """And the reason says what is missing."""
    world = World(BY_NAME)
    world.run(until=600)
    assert world.at(599).reason == Reason.NOT_RESOLVED
    assert 10 < world.transcript.count("ask vpn.example") < 20


def test_an_uplink_with_another_address_means_a_new_handshake_by_the_new_way() -> None:
    """At once, without building the interface again."""
    world = World(ONE)

    def move() -> None:
        world.facts = other_uplink(world.facts)
        world.supervisor.kernel_changed()

    world.run((10, move), until=12)
    assert world.transcript.count(f"configure {FIRST}:51820") == 1
    assert dict(world.at(11.5).reconnects) == {Reason.MOVED: 1}
    assert world.at(11.5).healthy


def test_an_uplink_that_comes_back_ends_the_waiting() -> None:
    """However long the pause has become."""
    world = World(ONE)

    def lose() -> None:
        world.facts = replace(world.facts, uplinks=(), routes=())
        world.supervisor.kernel_changed()

    def find() -> None:
        world.facts = TWO_UPLINKS
        world.supervisor.kernel_changed()

    world.run((10, lose), (400, find), until=402)
    assert not world.at(11).healthy
    assert "no uplink has a route" in world.at(399).detail
    assert world.at(401.5).healthy


def test_drift_is_red_until_it_is_seen_to_be_gone() -> None:
    """It is put back, counted, and named as the reason."""
    world = World(ONE)

    def drift() -> None:
        world.firewall.rules[Family.IPV4, Chain.OUTPUT] = ()

    world.run((10, drift), until=30)
    red = [
        status for status in world.published if status.at > world.since(5) and not status.healthy
    ]
    assert {status.reason for status in red[:1]} == {Reason.DRIFT}
    assert "OUTPUT" in red[0].detail
    assert (world.at(29).healthy, world.at(29).drift) == (True, 1)
    assert world.at(29).reconnects == ()


def test_a_link_that_is_kept_down_is_red_whatever_the_tunnel_does() -> None:
    """It may be another one than the tunnel's, whose server answers all the time."""
    world = World(ONE)

    def keep_down(*links: str) -> None:
        world.kept_down = links

    world.run((10, lambda: keep_down("eth1 is kept down")), (20, keep_down), until=30)
    red = world.at(15)
    assert (red.state, red.healthy, red.reason) == ("connected", False, Reason.KEPT_DOWN)
    assert red.detail == "eth1 is kept down"
    assert world.at(29).healthy
    assert world.at(29).reconnects == ()


def test_the_kernel_counts_as_read_back_only_where_it_was_found_as_wanted() -> None:
    """The age restarts with each comparison that finds nothing, and grows through drift."""
    world = World(ONE)

    def drift() -> None:
        world.firewall.rules[Family.IPV4, Chain.OUTPUT] = ()

    world.run((10, drift), until=30)
    red = [status.verified_age for status in world.published if status.reason == Reason.DRIFT]
    assert red, "control: the drift was found"
    assert all(age is not None and age >= TIMING.verify_every for age in red)
    for second in (9, 29):
        age = world.at(second).verified_age
        assert age is not None
        assert age <= TIMING.verify_every + TIMING.heartbeat


def test_a_gateway_at_rest_compares_the_kernel_and_does_nothing_else() -> None:
    """No turn of the loop: what is compared is confirmed, and drift is found as soon as ever."""
    world = World(ONE)
    world.traffic = False

    def drift() -> None:
        world.firewall.rules[Family.IPV4, Chain.OUTPUT] = ()

    before: list[int] = []
    world.run(
        (40, lambda: before.append(world.transcript.count("status"))),
        (100, lambda: before.append(world.transcript.count("status"))),
        (101, drift),
        until=130,
    )
    assert 3 <= before[1] - before[0] <= 8, "a sample with each probe"
    resting = [s for s in world.published if world.since(40) < s.at < world.since(100)]
    pauses = [b.at - a.at for a, b in pairwise(resting)]
    assert TIMING.verify_every - 0.1 < max(pauses) < TIMING.verify_every + 0.1
    assert all(s.healthy for s in resting)
    ages = [s.verified_age for s in resting if s.verified_age is not None]
    assert len(ages) == len(resting)
    assert max(ages) <= TIMING.verify_every
    red = [s.at for s in world.published if s.reason == Reason.DRIFT]
    assert world.since(101) < min(red) < world.since(101) + TIMING.verify_every + 0.1
    assert world.at(129).healthy


def test_traffic_ends_a_rest() -> None:
    """What is sent into a tunnel whose server has died unnoticed is missed as early as ever."""
    world = World(ONE)
    world.traffic = False

    def dies_and_is_used() -> None:
        world.alive.clear()
        world.traffic = True

    world.run((61, dies_and_is_used), until=130)
    lost = next(s.at for s in world.published if s.at > world.since(61) and not s.healthy)
    assert lost - world.since(61) <= TIMING.verify_every + TIMING.silent_after + 2


def test_a_link_that_is_kept_down_ends_a_rest() -> None:
    """It need not be an uplink; without one the namespace looks the same."""
    world = World(ONE)
    world.traffic = False

    def keep_down() -> None:
        world.kept_down = ("eth1 is kept down",)

    world.run((41, keep_down), until=60)
    red = next(s for s in world.published if not s.healthy and s.at > world.since(41))
    assert red.reason == Reason.KEPT_DOWN
    assert red.at <= world.since(41) + TIMING.verify_every + 0.1


@pytest.mark.parametrize("second", range(41, 62, 2))
def test_a_server_that_dies_at_rest_is_missed_within_45_seconds(second: int) -> None:
    """Whenever that is between two probes; its resolver falls silent with it."""
    world = World(ONE)
    world.traffic = False
    world.run((second, world.alive.clear), until=second + 60)
    died = world.since(second)
    lost = next(s for s in world.published if s.at > died and not s.healthy)
    assert lost.reason == Reason.SILENT
    assert lost.at - died <= 45


@pytest.mark.parametrize("part", ["carried", "facts", "routing drift"])
def test_an_error_at_rest_is_answered_by_a_turn(part: str) -> None:
    """What could not be compared is compared again at once, with the usual answer."""
    world = World(ONE)
    world.traffic = False
    world.run((41, lambda: world.fails.update({part: [NetworkError("no", "", 5)]})), until=90)
    assert world.fails[part] == [], "control: it was asked"
    assert world.at(89).healthy
    assert world.at(89).reconnects == ()


def test_a_silent_resolver_is_a_reason_of_its_own_within_a_minute() -> None:
    """The tunnel stays open, because addresses work; health is red, because names do not."""
    world = World(ONE)

    def fall_silent() -> None:
        world.resolver_answers = False

    def speak() -> None:
        world.resolver_answers = True

    world.run((30, fall_silent), (120, speak), until=180)
    assert world.at(90).reason == Reason.RESOLVER_SILENT
    assert (world.at(90).healthy, world.at(90).state) == (False, "connected")
    assert world.at(179).healthy


def test_refused_packets_are_counted_on_over_changes_of_rules() -> None:
    """On request; the kernel's counts restart with each ruleset."""
    world = World(ONE)

    def asks() -> None:
        world.supervisor.count()

    def refuse() -> None:
        world.firewall.counts["ipv4", "out"] = 5

    world.run((10, refuse), (20, world.tunnel_lost), (30, refuse), (35, asks), until=40)
    assert world.at(34.9).refused == (("ipv4", "out", 5),), "before the rules were replaced"
    counted_at = world.at(39).counted_at
    assert counted_at is not None
    assert world.since(35) <= counted_at <= world.since(36)
    assert world.at(39).refused == (("ipv4", "out", 10),)


def test_a_user_port_that_is_taken_is_replaced_and_the_rules_follow() -> None:
    """WireGuard's own port is in the rules before the interface is made."""
    world = World(ONE)
    world.tunnel.taken.add(51820)
    world.run(until=10)
    assert world.at(9).healthy


@pytest.mark.promise("P17")
def test_drift_is_put_back_and_reported_while_the_interface_is_being_built() -> None:
    """However long that takes: health stays fresh, and foreign rules do not wait for it."""
    world = World(ONE)
    world.building = 7.5

    def opens() -> None:
        world.firewall.policies[Family.IPV4, Chain.OUTPUT] = "ACCEPT"

    world.run((4, opens), until=20)
    put_back = [s for s in world.published if s.drift]
    assert world.since(4) < put_back[0].at <= world.since(8)
    assert put_back[0].state == "connecting"
    assert all(after.at - before.at <= 4.1 for before, after in pairwise(world.published))
    assert [it for it in world.published if it.state != "stopping"][-1].healthy


def test_rules_that_cannot_be_put_back_while_the_interface_is_being_built_end_the_building() -> (
    None
):
    """Closed first; then it begins again."""
    world = World(ONE)
    world.building = 7.5

    def opens() -> None:
        world.firewall.policies[Family.IPV4, Chain.OUTPUT] = "ACCEPT"
        world.fails["rules"] = [FirewallError("refused")]

    world.run((4, opens), until=30)
    assert "locked" in {status.state for status in world.published if status.at > world.since(4)}
    assert acts(world).count(f"up {FIRST}:51820") == 2
    assert [it for it in world.published if it.state != "stopping"][-1].healthy


@pytest.mark.promise("P1")
@pytest.mark.parametrize("lasts", [True, False])
def test_rules_that_went_in_before_a_shortage_do_not_outlive_a_stop(*, lasts: bool) -> None:
    """The kernel took them and could not be read back: neither they nor the former are certain."""
    world = World(ONE)
    put, is_short = world.firewall.apply, False

    def apply(ruleset: Ruleset) -> None:
        nonlocal is_short
        if is_short:
            raise NOT_NOW
        put(ruleset)
        if summary(ruleset) != "closed":
            is_short = lasts
            raise NOT_NOW

    world.firewall.apply = apply  # type: ignore[method-assign]
    if lasts:
        with pytest.raises(NotClosedError, match="every link is down"):
            world.run(until=2.2)
    else:
        world.run(until=2.2)
        assert world.firewall.summary == "closed"


@pytest.mark.promise("P17")
@pytest.mark.parametrize("code", [None, errno.EAGAIN], ids=["refused", "shortage"])
def test_rules_that_are_seen_to_be_gone_and_cannot_be_put_back_set_the_links_down(
    code: int | None,
) -> None:
    """For any reason: what is in force is known to be something else."""
    world = World(ONE)
    seen: list[bool] = []

    def flushed() -> None:
        world.firewall.rules.clear()
        world.firewall.policies.clear()
        world.fails["rules"] = [FirewallError("put", "", code)] * 100_000

    def ends() -> None:
        del world.fails["rules"]

    world.run((5, flushed), (20, lambda: seen.append(world.links_are_down)), (21, ends), until=60)
    assert seen == [True]
    assert not world.links_are_down
    assert world.at(59).healthy


def test_a_stop_is_heard_that_comes_before_the_building_has_begun() -> None:
    """The rules of the state go in without a pause, and the signal waits for that."""
    world = World(ONE)
    put = world.firewall.apply
    ended = 0.0

    async def never(*_: object) -> None:
        await asyncio.sleep(3600)

    def apply(ruleset: Ruleset) -> None:
        put(ruleset)
        if summary(ruleset) != "closed":
            world.supervisor.stop()

    world.tunnel.up = never  # type: ignore[method-assign]
    world.firewall.apply = apply  # type: ignore[method-assign]
    world.run(until=60)
    ended = world.clock.now - world.since(0)
    assert ended < 3
    assert world.firewall.summary == "closed"


@pytest.mark.parametrize("part", ["up", "ask"])
def test_work_that_takes_too_long_has_failed_after_eight_seconds(part: str) -> None:
    """The look-up and the building of the interface; health is published all the time."""
    world = World(BY_NAME if part == "ask" else ONE)
    world.alive.add(FIRST)

    async def never(*_: object) -> None:
        await asyncio.sleep(3600)

    if part == "ask":
        world.names["vpn.example"] = (ip_address(FIRST),)
        world.looking_up = 3600.0
    else:
        world.tunnel.up = never  # type: ignore[method-assign]
    world.run(until=11)
    assert "not done after 8 s" not in world.at(7.9).detail
    assert "not done after 8 s" in world.at(8.9).detail
    assert all(after.at - before.at <= 1.1 for before, after in pairwise(world.published))
