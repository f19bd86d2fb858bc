"""What may be asked of the running gateway: nothing opens anything, and a pause lasts."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.daemon.inbox import Inbox
from gateway.errors import FirewallError, TunnelError
from gateway.model import Config
from gateway.policy.actions import Abandon, LookAround, Remove, Verify, Work
from gateway.policy.agenda import wake_at
from gateway.policy.events import Changed, Event, Looked, Reloaded, Stop, Tick, Verified
from gateway.policy.facts import Facts
from gateway.policy.firewall import ruleset_for
from gateway.policy.machine import interrupted, step, stricter
from gateway.policy.moves import move
from gateway.policy.orders import (
    EFFECTS,
    Effect,
    Order,
    Ordered,
    Removed,
    effect_of,
    with_other_configuration,
)
from gateway.policy.report import name, reason, status_of
from gateway.policy.rules import Accept, Chain, Family
from gateway.policy.situation import Situation
from gateway.policy.states import (
    Connecting,
    Fetching,
    Locked,
    Paused,
    Reason,
    State,
    Trial,
    Turn,
)
from gateway.policy.timing import Moment, Timing
from gateway.policy.vpn_status import VpnStatus, vpn_status
from gateway.policy.wanted import routing_in
from tests.fakes.world import World
from tests.scenarios import CLOSED_WHILE_DOWN, HOLES, ONE_UPLINK, TWO_UPLINKS
from tests.unit.test_moves import EVENTS, NOW, QUERY, SECOND, STATES, TUNNEL
from tests.unit.test_supervisor import BY_NAME, FIRST, ONE, TWO, acts, kills
from tests.unit.test_supervisor import SECOND as OTHER

TIMING = Timing()
THIRD = replace(TUNNEL, listen_port=7)
THREE = Turn((TUNNEL, SECOND, THIRD), tried_at=NOW - 60)
CONNECTED = replace(STATES["connected"], turn=THREE)
PAUSE, RESUME, RECONNECT, NEXT = map(Ordered, Order)

WHILE_PAUSED: list[Event] = [
    *(it for it in EVENTS.values() if it not in {RESUME, Stop()}),
    *(Tick(), Changed(), Looked(ONE_UPLINK), Looked(TWO_UPLINKS), Looked(Facts())),
    *(Verified(drifted=True), Verified(drifted=False), Removed("busy")),
    *(Reloaded(HOLES, NOW), Reloaded(CLOSED_WHILE_DOWN, NOW), Reloaded(Config((SECOND,)), NOW)),
]


def after(state: State, *orders: Ordered, now: float = NOW) -> State:
    """Return the state after `orders`, one after the other at `now`."""
    for order in orders:
        state = move(state, order, Moment(now, TIMING))
    return state


def leaves(state: State, config: Config) -> set[str]:
    """Return why each rule of `state` accepts a packet that leaves."""
    rules = ruleset_for(state, config, ONE_UPLINK)
    return {
        rule.why
        for family in Family
        for rule in rules.of(family).get(Chain.OUTPUT, ())
        if isinstance(rule.verdict, Accept)
    }


def test_orders_have_an_effect_where_it_is_said_and_nowhere_else() -> None:
    """What is answered before an order is what comes of it, in every state."""
    for state in (*STATES.values(), replace(STATES["built"], turn=replace(THREE, trial=Trial()))):
        for order in Order:
            status = status_of(state, NOW)
            is_measured = isinstance(state, Connecting) and state.turn.trial
            why = Reason.MEASURING if is_measured else status.reason
            number = 3 if is_measured else 1
            effect = effect_of(order, status.state, why, number)
            changed = after(state, Ordered(order)) != state
            already = effect in {Effect.ALREADY_PAUSED, Effect.ALREADY_RUNNING}
            is_underway = name(state) in {"resolving", "connecting"} and order in {
                Order.RECONNECT,
                Order.NEXT,
            }
            assert not changed if effect.is_refused or already else changed or is_underway
    assert set(EFFECTS) == set(Effect)
    assert effect_of(Order.NEXT, "connected", Reason.ANSWERS, 2) is Effect.NEXT_SERVER
    assert effect_of(Order.NEXT, "connected", Reason.ANSWERS, 1) is Effect.ONLY_SERVER
    assert effect_of(Order.RECONNECT, "connected", Reason.ANSWERS, 1) is Effect.RECONNECTING


@given(st.sampled_from(sorted(set(STATES) - {"stopping"})), st.data())
def test_nothing_but_a_resume_or_a_stop_ends_a_pause(start: str, data: st.DataObject) -> None:
    """No work but the removal begins, and nothing but input ports passes."""
    situation = Situation(HOLES, after(STATES[start], PAUSE), ONE_UPLINK)
    now = NOW
    for event in data.draw(st.lists(st.sampled_from(WHILE_PAUSED), max_size=12)):
        now += data.draw(st.sampled_from([0.0, 0.5, 5.0, 4000.0]))
        situation, actions = step(situation, event, Moment(now, TIMING))
        assert isinstance(situation.state, Paused)
        assert {type(it) for it in actions} <= {LookAround, Verify, Remove, Abandon}
        assert situation.under_way <= {Work.CONNECT}
    config = situation.config
    assert leaves(situation.state, config) <= {
        *("loopback", "P8 answers from a listed input port"),
        *("P5 neighbour discovery", "P12 errors about a flow of a hole"),
    }
    assert leaves(situation.state, CLOSED_WHILE_DOWN) == {"loopback"}
    assert all(
        it.interface != "wg0" for it in routing_in(situation.state, config, ONE_UPLINK).routes
    )
    assert interrupted(situation).state == situation.state
    assert reason(situation.state) is Reason.PAUSED
    assert not status_of(situation.state, now).healthy


def test_the_interface_is_removed_once_and_again_where_that_failed() -> None:
    """A second later, and the status says why meanwhile; a shortage is tried again like any."""
    situation = Situation(HOLES, after(CONNECTED, PAUSE), ONE_UPLINK, verify_at=NOW + 9)
    situation, actions = step(situation, Tick(), Moment(NOW, TIMING))
    assert actions == (Remove(),)
    assert step(situation, Tick(), Moment(NOW, TIMING))[1] == (), "it is under way"
    assert interrupted(situation).under_way == frozenset()
    failed, actions = step(situation, Removed("busy"), Moment(NOW, TIMING))
    assert (failed.state.detail, actions) == ("busy", ())  # type: ignore[union-attr]
    again, actions = step(failed, Tick(), Moment(NOW + TIMING.rebuild_pause, TIMING))
    assert actions == (Remove(),)
    removed, _ = step(again, Removed(), Moment(NOW + 1, TIMING))
    assert (removed.state.removed, removed.state.detail) == (True, "")  # type: ignore[union-attr]
    assert step(removed, Tick(), Moment(NOW + 2, TIMING))[1] == ()


def test_a_refusal_closes_the_input_ports_of_a_paused_gateway() -> None:
    """The kernel does not take their rules; the gateway stays paused, and what is left closed."""
    paused = after(CONNECTED, PAUSE)
    refused = move(paused, stricter(paused, "no rules"), Moment(NOW, TIMING))
    assert isinstance(refused, Paused)
    assert leaves(paused, HOLES) > leaves(refused, HOLES) == {"loopback"}
    assert status_of(refused, NOW).detail == "no rules"


def test_the_input_ports_of_a_paused_gateway_are_tried_again_ever_more_seldom() -> None:
    """Until the kernel takes their rules; and at once after another configuration."""
    state = replace(after(CONNECTED, PAUSE), removed=True)
    assert isinstance(state, Paused)
    now, waits = NOW, []
    for _ in range(9):
        state = move(state, stricter(state, "no rules"), Moment(now, TIMING))
        assert isinstance(state, Paused)
        assert state.refused
        waits.append(state.open_at - now)
        early = move(state, Tick(), Moment(state.open_at - 0.1, TIMING))
        assert early is state
        situation = Situation(HOLES, state, ONE_UPLINK, verify_at=NOW + 10_000)
        assert wake_at(situation, Moment(state.open_at - 0.5, TIMING)) == state.open_at
        now = state.open_at
        state = move(state, Tick(), Moment(now, TIMING))
    assert waits == sorted(waits)
    assert waits[0] < 2 * TIMING.backoff_first
    assert waits[-1] == waits[-2] == TIMING.backoff_last
    assert leaves(state, HOLES) == leaves(after(CONNECTED, PAUSE), HOLES)
    assert status_of(state, now).detail == ""
    assert move(state, Verified(drifted=False), Moment(now, TIMING)) == replace(state, attempt=0)
    again = with_other_configuration(replace(state, refused=True, open_at=now + 60))
    assert move(again, Tick(), Moment(now, TIMING)) == replace(again, refused=False)


def test_a_resumed_gateway_begins_as_after_a_start() -> None:
    """With the first server, but politely: neither sooner than a reconnect, nor a login."""
    before = replace(
        CONNECTED, turn=replace(THREE, position=2, tried_at=NOW - 0.25, register_at=7.0)
    )
    resumed = after(before, PAUSE, RESUME)
    assert isinstance(resumed, Locked)
    assert (resumed.reason, resumed.retry_at) == (Reason.STARTING, NOW)
    situation = Situation(Config((TUNNEL, SECOND)), resumed, ONE_UPLINK)
    begun, _ = step(situation, Looked(ONE_UPLINK), Moment(NOW, TIMING))
    state = begun.state
    assert isinstance(state, Connecting)
    assert (state.turn.position, state.turn.register_at) == (0, 7.0)
    assert (state.built, state.retry_at) == (False, NOW - 0.25 + TIMING.rebuild_pause)


def test_a_pause_does_not_shorten_what_a_provider_is_spared() -> None:
    """A refused login waits for as long as without the pause, and a new configuration ends that."""
    fetching = replace(STATES["fetching"], reason=Reason.LOGIN_REFUSED, retry_at=NOW + 3600)
    resumed = after(fetching, PAUSE, RESUME)
    again = after(resumed, PAUSE, RESUME, now=NOW + 1)
    for state in (resumed, again):
        assert isinstance(state, Locked)
        assert (state.reason, state.retry_at) == (Reason.LOGIN_REFUSED, NOW + 3600)
    situation = Situation(HOLES, after(fetching, PAUSE), ONE_UPLINK)
    read, _ = step(situation, Reloaded(Config((SECOND,)), NOW), Moment(NOW, TIMING))
    ready = after(read.state, RESUME, now=NOW + 1)
    assert isinstance(ready, Locked)
    assert (ready.reason, ready.retry_at) == (Reason.STARTING, NOW + 1)
    assert after(fetching, RECONNECT, NEXT) is fetching


def test_a_request_that_a_pause_cuts_off_is_not_repeated_at_once() -> None:
    """However often the gateway is paused: neither a list, nor a login before its time."""
    asking = replace(STATES["fetching"], query=QUERY, retry_at=NOW)
    registered = replace(asking, turn=replace(asking.turn, register_at=NOW + 30))
    for fetching, wait in ((asking, TIMING.fetch_first), (registered, 30)):
        resumed = after(fetching, PAUSE, RESUME)
        again = after(resumed, PAUSE, RESUME, now=NOW + 1)
        for state in (resumed, again):
            assert isinstance(state, Locked)
            assert state.retry_at == NOW + wait
            assert isinstance(state.before, Fetching)
            assert state.before.query is None
    waiting = replace(STATES["fetching"], retry_at=NOW)
    assert after(waiting, PAUSE, RESUME).retry_at == NOW, "control"  # type: ignore[union-attr]


def test_next_goes_round_and_no_server_has_failed() -> None:
    """The first one follows the last; a reconnect stays where it is."""
    state: State = CONNECTED
    positions = []
    for _ in range(4):
        state = after(state, NEXT)
        assert isinstance(state, Connecting)
        assert (state.turn.attempt, state.reason, state.built) == (0, Reason.REQUESTED, False)
        positions.append(state.turn.position)
    assert positions == [1, 2, 0, 1]
    again = after(CONNECTED, RECONNECT)
    assert isinstance(again, Connecting)
    assert (again.tunnel, again.turn, again.retry_at) == (TUNNEL, THREE, NOW)


@pytest.mark.parametrize("order", [RECONNECT, NEXT], ids=str)
def test_orders_never_build_twice_in_a_second(order: Ordered) -> None:
    """However many come: what is under way is left alone, or the next one waits."""
    young = replace(CONNECTED, turn=replace(THREE, tried_at=NOW - 0.5))
    state = after(young, order)
    assert isinstance(state, Connecting)
    assert state.retry_at == NOW + 0.5
    for moment in (NOW + 0.1, NOW + 0.2):
        state = after(state, order, now=moment)
        assert isinstance(state, Connecting)
        assert state.retry_at >= NOW + 0.5
    asking = replace(STATES["resolving"], query=QUERY)
    assert after(asking, order) == asking, "the answer is waited for"


def test_servers_that_are_measured_are_measured_to_the_end() -> None:
    """Neither order can choose before."""
    measured = replace(STATES["built"], turn=replace(THREE, trial=Trial()))
    assert after(measured, RECONNECT, NEXT) is measured


def test_the_words_of_gluetun() -> None:
    """Every state has one; a pause is stopped, and what cannot close or answers nothing crashed."""
    words = {
        key: vpn_status(status.state, status.reason)
        for key, state in STATES.items()
        if (status := status_of(state, NOW))
    }
    assert words == {
        **dict.fromkeys(STATES, VpnStatus.STARTING),
        "connected": VpnStatus.RUNNING,
        "paused": VpnStatus.STOPPED,
        "stopping": VpnStatus.STOPPING,
    }
    assert vpn_status("paused", Reason.UNCHECKED) is VpnStatus.STOPPING, "not in force yet"
    assert vpn_status("paused", Reason.KEPT_DOWN) is VpnStatus.STOPPED
    assert vpn_status("locked", Reason.FIREWALL) is VpnStatus.CRASHED
    assert vpn_status("connected", Reason.HUNG) is VpnStatus.CRASHED


def test_a_pause_in_the_queue_is_not_lost_to_an_order_about_the_connection() -> None:
    """Of the orders of one kind the last one counts."""

    async def taken() -> list[Event]:
        inbox = Inbox()
        for order in (RECONNECT, RESUME, PAUSE, NEXT):
            inbox.order(order)
        return [await inbox.get() for _ in range(2)]

    assert asyncio.run(taken()) == [NEXT, PAUSE]


# -- the loop -------------------------------------------------------------------------------------


def asks(world: World, order: Ordered) -> Callable[[], None]:
    """Return an action that asks for `order`."""
    return lambda: world.inbox.order(order)


def changes(world: World) -> Callable[[], None]:
    """Return an action after which the kernel has reported a change."""
    return lambda: world.supervisor.kernel_changed()  # noqa: PLW0108 - it is not there yet


@pytest.mark.promise("P1")
def test_a_paused_gateway_has_no_interface_and_waits_for_ever() -> None:
    """The rules close before the interface goes, and nothing is tried for an hour."""
    world = World(ONE)
    world.run((5, asks(world, PAUSE)), (3000, changes(world)), until=3600)
    done = acts(world)[acts(world).index("rules closed") :]
    assert done == ["rules closed", "routes nowhere", "VPN_DOWN_COMMAND", "down", "down"], done
    status = world.at(3500)
    assert (status.state, status.healthy, status.reason) == ("paused", False, Reason.PAUSED)
    assert status.since == pytest.approx(world.since(5), abs=0.1)
    assert status.verified_age is not None
    assert status.verified_age < 5
    assert dict(status.reconnects) == {"paused": 1}


def test_a_pause_is_resumed_and_the_tunnel_built_again() -> None:
    """Also a pause that begins while the interface is built, and one that ends during removal."""
    for second in (0.02, 5, 5.001):
        world = World(ONE)
        world.run((second, asks(world, PAUSE)), (second + 0.001, asks(world, RESUME)), until=10)
        assert world.at(9).healthy, second
        assert world.at(9).state == "connected"


def test_a_removal_that_fails_is_tried_again_and_opens_nothing() -> None:
    """Health says why meanwhile."""
    world = World(ONE)
    world.fails["down"] = [TunnelError("busy", "wg0")] * 3
    world.run((5, asks(world, PAUSE)), until=20)
    assert world.at(6.5).detail.startswith("busy")
    assert (world.at(15).state, world.at(15).detail) == ("paused", "")


def test_a_pause_stays_closed_when_the_kernel_refuses_its_rules() -> None:
    """The links are down until the closed rules are taken, and it is still paused then."""
    world = World(ONE)
    world.run(
        (4, lambda: world.fails.update(rules=[FirewallError("no")] * 3)),
        (5, asks(world, PAUSE)),
        (60, asks(world, RESUME)),
        until=90,
    )
    assert {it.state for it in world.published if world.since(6) < it.at < world.since(60)} == {
        "paused"
    }
    assert world.at(59).reason is Reason.PAUSED
    assert not world.links_are_down
    assert world.at(80).healthy


def test_next_and_reconnect_on_the_way() -> None:
    """The next server has the tunnel a moment later, and the first one half an hour after that."""
    world = World(TWO)
    world.run((5, asks(world, NEXT)), (2000, asks(world, RECONNECT)), until=2010)
    assert world.at(6).endpoint.startswith(OTHER)
    assert world.at(1700).endpoint.startswith(OTHER)
    assert world.at(1900).endpoint.startswith(FIRST)
    assert dict(world.at(2005).reconnects) == {
        "requested": 2,
        str(Reason.RETURNING): 1,
    }
    assert world.at(2005).healthy
    assert [it.result for it in world.at(2005).candidates] == [Reason.ANSWERS] * 2


def test_orders_while_a_server_is_dead_or_a_name_is_looked_up() -> None:
    """They lead to a connection as soon as there can be one."""
    world = World(TWO)
    world.run((5, kills(world, FIRST)), (6, asks(world, NEXT)), until=20)
    assert world.at(8).healthy
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address(FIRST),)
    world.alive.add(FIRST)
    world.run(*((0.1 * n, asks(world, RECONNECT)) for n in range(1, 9)), until=5)
    assert world.at(4).healthy


def test_a_flood_of_orders_is_polite() -> None:
    """An interface in a second at most, and a pause in between holds."""
    world = World(TWO)
    orders = [(5 + n / 50, asks(world, (NEXT, RECONNECT)[n % 2])) for n in range(500)]
    world.run(*orders, (16, asks(world, PAUSE)), (17, asks(world, NEXT)), until=30)
    built = [line for line in acts(world) if line.startswith(("up", "configure"))]
    assert len(built) <= 14
    assert world.at(29).state == "paused"
