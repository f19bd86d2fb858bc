"""A way to the server that is lost while its packets still arrive, and what looks like it."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.model import Config, PortRange, Protocol
from gateway.policy.actions import Work
from gateway.policy.evidence import KEEPALIVE_SIZE, Pulse
from gateway.policy.facts import PeerStatus, TunnelStatus
from gateway.policy.limits import LimitCode
from gateway.policy.machine import interrupted
from gateway.policy.probing import UNSENT, Outcome, Probe, ProbeProtocol
from gateway.policy.proof import FEW, MEMORY, MUCH, Proof
from gateway.policy.situation import LONG_AGO, Situation
from gateway.policy.source_port import DYNAMIC_PORTS, another_port, from_another_port
from gateway.policy.states import (
    Connected,
    Connecting,
    Locked,
    Reason,
    Resolving,
    State,
    Trial,
    Turn,
)
from gateway.policy.timing import Moment, Timing
from gateway.system.inside import USUAL
from gateway.system.probe import THOROUGH
from tests.fakes.world import World
from tests.unit.test_supervisor import DNS, FIRST, ONE, SECOND, TWO, kills, server

TIMING = Timing()
TUNNEL = server(FIRST)
PORT = 51820
EVERY_PORT = 0


def torrent(config: Config = ONE) -> World:
    """Return a world with traffic both ways, some of which was begun outside."""
    world = World(config)
    world.pushed = True
    return world


def loses(world: World, port: int | None) -> Callable[[], None]:
    """Return an action after which nothing arrives at the server from `port`."""
    return lambda: setattr(world, "lost_port", port)


def red_after(world: World, second: float) -> tuple[Reason, float]:
    """Return why health is red first after `second`, and how many seconds later."""
    red = next(s for s in world.published if s.at > world.since(second) and not s.healthy)
    return red.reason, red.at - world.since(second)


def ports_tried(world: World) -> set[int]:
    """Return the listen ports of the interface that is there, as a test of the last one."""
    return {world.tunnel.standing.listen_port} if world.tunnel.standing else set()


@pytest.mark.parametrize("second", [30.0, 32.3, 34.9, 37.1, 39.5])
def test_a_lost_way_to_the_server_is_red_within_20_seconds_and_another_port_is_used(
    second: float,
) -> None:
    """Whenever that is between two probes; the mapping of the first port never comes back."""
    world = torrent()
    seen: list[set[int]] = []
    world.run(
        (second, loses(world, PORT)),
        (second + 60, lambda: seen.append(ports_tried(world))),
        until=second + 61,
    )
    reason, seconds = red_after(world, second)
    assert reason == Reason.ONE_WAY
    assert seconds <= 20
    assert world.at(second + 22).healthy
    assert world.at(second + 60).reconnects == ((Reason.ONE_WAY, 1),)
    (port,) = seen[0]
    assert port in DYNAMIC_PORTS


def test_the_reason_is_explained() -> None:
    """Until the first handshake has failed, and then by what is known of that."""
    world = torrent()
    world.run((30, loses(world, EVERY_PORT)), until=70)
    lost = next(s for s in world.published if s.reason == Reason.ONE_WAY)
    assert lost.state == "connecting"
    assert "for 10 s nothing has answered ours" in lost.detail
    assert "another source port" in lost.detail
    assert world.at(69).reason == Reason.NO_HANDSHAKE


def test_another_server_is_tried_first_and_from_the_same_port() -> None:
    """Where there is one: it is another flow for what translates addresses."""
    world = torrent(TWO)
    second_only: list[str] = []

    def lose() -> None:
        world.lost_port = EVERY_PORT

    def find() -> None:
        world.lost_port = None
        second_only.extend(world.transcript)

    world.run((30, lose), (48, find), until=60)
    assert f"configure {SECOND}:{PORT}" in world.transcript
    assert world.at(59).endpoint.startswith(SECOND)


def test_a_round_without_a_handshake_ends_with_another_port() -> None:
    """A mapping that leads nowhere is kept alive by the handshakes themselves."""
    world = World(ONE)
    world.lost_port = PORT
    world.run(until=30)
    assert world.at(29).healthy
    assert ports_tried(world) == set()  # it has ended
    assert world.transcript.count(f"up {FIRST}:{PORT}") == 2, "the server's port is the same"


def test_an_echo_that_the_server_answers_shows_that_only_the_resolver_is_silent() -> None:
    """It is the only thing that is wrong, so nothing is connected again."""
    world = torrent()
    world.run((30, lambda: setattr(world, "resolver_answers", False)), until=200)
    assert world.at(199).reason == Reason.RESOLVER_SILENT
    assert world.at(199).reconnects == ()
    assert red_after(world, 30)[1] <= 45


def test_a_server_that_answers_no_echo_is_connected_with_again_once() -> None:
    """Whether its resolver or the way is lost cannot be known, and then a handshake shows it."""
    world = torrent()
    world.server_echoes = False
    world.run((30, lambda: setattr(world, "resolver_answers", False)), until=400)
    assert world.at(399).reason == Reason.RESOLVER_SILENT
    assert world.at(399).reconnects == ((Reason.ONE_WAY, 1),)


def test_where_nothing_has_ever_answered_nothing_is_concluded() -> None:
    """The resolver is reported, and the connection stays."""
    world = torrent()
    world.server_echoes = world.resolver_answers = False
    world.run(until=300)
    assert world.at(299).reconnects == ()
    assert world.at(299).reason == Reason.RESOLVER_SILENT


def test_a_server_that_is_gone_is_still_silent_and_not_one_way() -> None:
    """Nothing arrives either, so the other direction is lost too."""
    for second in (30.0, 33.3, 36.6):
        world = torrent()
        world.run((second, kills(world, FIRST)), until=second + 30)
        assert red_after(world, second)[0] == Reason.SILENT


@pytest.mark.long
@pytest.mark.parametrize("traffic", [True, False], ids=["traffic", "idle"])
def test_a_link_that_loses_half_of_what_is_answered_stays_connected_for_hours(
    *, traffic: bool
) -> None:
    """Half of the questions get no answer; health says so."""
    world = World(ONE)
    world.traffic = world.pushed = traffic
    world.loss = 0.3
    world.run(until=4 * 3600)
    assert world.at(4 * 3600 - 1).reconnects == ()


@pytest.mark.long
def test_a_link_that_loses_every_second_packet_each_way_stays_connected_under_traffic() -> None:
    """Three of four questions get no answer."""
    world = torrent()
    world.loss = 0.5
    world.run(until=4 * 3600)
    assert world.at(4 * 3600 - 1).reconnects == ()


def test_a_lossy_link_is_reported_while_it_is_one() -> None:
    """With a rounded share and a remedy; health is green."""
    world = torrent()
    world.loss = 0.3
    world.run((120, lambda: setattr(world, "loss", 0.0)), until=500)
    (limit,) = world.at(119).limits
    assert (limit.code, world.at(119).healthy) == (LimitCode.PACKET_LOSS, True)
    assert re.match(r"about [4-6]0 % of what is asked", limit.text)
    assert "another server" in limit.remedy
    assert world.at(499).limits == ()


def test_probes_are_more_frequent_only_while_data_moves() -> None:
    """Each 4 or 5 s instead of each 20 s, and none is thorough as long as they are answered."""
    counts: Counter[str] = Counter()
    for name, traffic in (("idle", False), ("busy", True)):
        world = World(ONE)
        world.traffic = traffic
        world.run(until=600)
        assert not [line for line in world.transcript if line.startswith("thorough")]
        counts[name] = sum(line.startswith("probe") for line in world.transcript)
    assert counts["idle"] <= 600 / (TIMING.probe_every - TIMING.verify_every) + 2
    assert 600 / (TIMING.probe_moving + 1) <= counts["busy"] <= 600 / TIMING.verify_every + 2


def attempted(**changes: Any) -> Connecting:
    """Return the state of an attempt whose handshake has not come yet."""
    state = Connecting(Turn(ONE.tunnels), TUNNEL, Reason.NO_HANDSHAKE, 0.0, 0.0, built=True)
    return replace(state, **changes)


AGAIN = replace(attempted(), built=False, turn=Turn(ONE.tunnels).next())
CONNECTED = Connected(Turn(ONE.tunnels), TUNNEL, 0.0, Pulse())


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        (attempted(), AGAIN, True),
        (CONNECTED, replace(AGAIN, reason=Reason.SILENT), True),
        (CONNECTED, replace(AGAIN, reason=Reason.ONE_WAY), True),
        (CONNECTED, replace(AGAIN, reason=Reason.MOVED), False),
        (CONNECTED, replace(AGAIN, reason=Reason.INTERFACE_LOST), False),
        (CONNECTED, CONNECTED, False),
        (attempted(built=False), AGAIN, False),
        (attempted(), replace(AGAIN, turn=Turn(ONE.tunnels)), False),
        (attempted(), replace(AGAIN, turn=replace(AGAIN.turn, trial=Trial())), False),
        (attempted(), attempted(), False),
        (attempted(turn=Turn(TWO.tunnels)), replace(AGAIN, turn=Turn(TWO.tunnels).next()), False),
        (attempted(turn=Turn(TWO.tunnels, 1)), replace(AGAIN, turn=Turn(TWO.tunnels, 0, 2)), True),
        (Locked(), AGAIN, False),
        (attempted(), Locked(), False),
    ],
)
def test_another_port_follows_on_a_round_without_an_answer(
    before: State, after: State, *, moves: bool
) -> None:
    """And on nothing else: not on what happened here, and not while handshakes are timed."""
    found = from_another_port(before, after, ONE, Moment(0.0, TIMING, 0.0))
    if not moves:
        assert found is after
        return
    assert isinstance(found, Connecting)
    assert found.tunnel.listen_port == DYNAMIC_PORTS[0]
    assert {it.listen_port for it in found.turn.candidates} == {DYNAMIC_PORTS[0]}
    assert replace(found, turn=after.turn, tunnel=TUNNEL) == after


def test_a_name_that_is_looked_up_again_gets_the_port_too() -> None:
    """The candidates have it, and what is resolved follows from them."""
    after = Resolving(AGAIN.turn, Reason.NO_HANDSHAKE, 0.0, 0.0)
    found = from_another_port(attempted(), after, ONE, Moment(0.0, TIMING, 0.0))
    assert isinstance(found, Resolving)
    assert found.turn.candidate.listen_port == DYNAMIC_PORTS[0]


# -- the parts ------------------------------------------------------------------------------------


ANSWERED = Outcome(answered=True, reached=True, tries=1)
LOST = Outcome(answered=False, reached=False, tries=3, lost=3)


def test_only_what_has_answered_before_is_missed() -> None:
    """From the first probe that was not answered until one is; what was not sent proves nothing."""
    assert Proof().after(LOST, 5.0).missed_at is None
    proof = Proof().after(ANSWERED, 1.0)
    missed = proof.after(LOST, 5.0).after(LOST, 9.0)
    assert missed.missed_at == 5.0
    assert missed.after(UNSENT, 12.0) == missed
    assert missed.after(ANSWERED, 12.0).missed_at is None


@pytest.mark.parametrize(
    ("pulse", "expected"),
    [
        (Pulse(), "waits"),
        (Pulse(heard_at=8.9, data_at=8.9), "waits"),
        (Pulse(heard_at=9.0, data_at=9.0), "one way"),
        (Pulse(heard_at=9.0, data_at=8.0), "useless"),
        (Pulse(heard_at=9.0, data_at=9.0, handshake_at=5.0), "useless"),
        (Pulse(heard_at=9.0, data_at=9.0, handshake_at=4.9), "one way"),
    ],
)
def test_data_of_the_server_without_an_answer_is_one_way(pulse: Pulse, expected: str) -> None:
    """Acknowledgements and handshakes show that it hears us, and silence shows nothing yet."""
    missed = Proof().after(ANSWERED, 1.0).after(LOST, 5.0)
    judged = missed.judged(pulse, 9.0)
    if judged is None:
        found = "one way"
    else:
        found = "useless" if not judged.reached and judged.missed_at is None else "waits"
    assert found == expected


def test_a_proof_without_anything_missed_stays() -> None:
    """There is nothing to judge."""
    proof = Proof().after(ANSWERED, 1.0)
    assert proof.judged(Pulse(heard_at=9.0, data_at=9.0), 9.0) == proof


def test_loss_is_reported_when_there_is_much_of_it_and_enough_is_known() -> None:
    """And not while nothing at all is answered, which is another matter."""
    proof = Proof()
    for second in range(FEW // 2 - 1):
        proof = proof.after(Outcome(answered=True, reached=True, tries=2, lost=1), second)
        assert proof.loss is None
    proof = proof.after(Outcome(answered=True, reached=True, tries=2, lost=1), 50)
    assert proof.loss == 0.5
    assert proof.after(LOST, 60).loss is None
    good = proof
    for second in range(MEMORY):
        good = good.after(ANSWERED, second)
    assert good.loss is None
    assert good.tries <= MEMORY
    edge = Proof(reached=True, tries=100 * MUCH, lost=30 * MUCH)
    assert edge.loss == MUCH
    assert replace(edge, lost=29.9 * MUCH).loss is None


def test_what_arrives_is_data_if_it_cannot_be_a_keepalive() -> None:
    """One may come each ten seconds from each peer, and with a handshake."""

    def received(size: int, seconds: float = 1.0) -> Pulse:
        def status(total: int) -> TunnelStatus:
            return TunnelStatus(PORT, 1, (PeerStatus("key", None, 1.0, total, 0),))

        return Pulse().after(status(0), 1000).after(status(size), 1000 + seconds)

    assert received(KEEPALIVE_SIZE).data_at is None
    assert received(KEEPALIVE_SIZE).heard_at == 1001
    assert received(2 * KEEPALIVE_SIZE).data_at == 1001
    assert received(2 * KEEPALIVE_SIZE, 20.0).data_at is None
    assert received(128).data_at == 1001
    assert received(0).data_at is None
    assert received(148).data_at is None


def test_another_port_is_neither_the_former_one_nor_listed() -> None:
    """Chance chooses it from those that RFC 6335 leaves free."""
    assert another_port(PORT, ONE, 0.0) == DYNAMIC_PORTS[0]
    assert another_port(DYNAMIC_PORTS[0], ONE, 0.0) == DYNAMIC_PORTS[1]
    assert another_port(PORT, ONE, 0.999999) == DYNAMIC_PORTS[-1]
    listed = replace(ONE, input_ports=(PortRange(Protocol.UDP, 49152, 49999),))
    assert another_port(PORT, listed, 0.0) == 50000
    tcp = replace(ONE, input_ports=(PortRange(Protocol.TCP, 49152, 49999),))
    assert another_port(PORT, tcp, 0.0) == 49152
    last = replace(ONE, input_ports=(PortRange(Protocol.UDP, 65535, 65535),))
    assert another_port(PORT, last, 0.999999) == 49152, "the search begins again"
    everything = replace(ONE, input_ports=(PortRange(Protocol.UDP, 1, 65535),))
    assert another_port(PORT, everything, 0.5) == PORT


def test_a_lost_way_is_found_in_time() -> None:
    """The longest time from one probe to the next, the probe, the pause and the thorough one."""
    usual, thorough = (pace.tries * pace.interval for pace in (USUAL, THOROUGH))
    seconds = TIMING.probe_moving + usual + TIMING.probe_in_doubt + thorough
    assert seconds + 2 * TIMING.heartbeat <= 20


def test_the_gateways_own_resolver_comes_with_an_echo_while_data_moves() -> None:
    """That it is silent says nothing about the server."""
    world = torrent(replace(ONE, tunnels=(replace(server(FIRST), dns=()),)))
    world.run(until=10)
    assert Probe(ProbeProtocol.ICMP, ip_address("192.0.2.1"), hops=1) in world.probed
    assert DNS not in {probe.address for probe in world.probed}


def test_a_probe_that_a_shortage_cut_off_is_sent_again_at_once() -> None:
    """Nothing that was not answered since the handshake can be missed later."""
    situation = Situation(ONE, CONNECTED, probed_at=5.0)
    assert interrupted(situation).probed_at == 5.0
    cut = replace(situation, under_way=frozenset({Work.PROBE}))
    assert interrupted(cut).probed_at == LONG_AGO
