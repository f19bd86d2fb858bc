"""SERVER_ORDER=latency: handshakes are timed before one server is chosen, and times are kept."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.daemon.remembering import Memory
from gateway.model import Candidate, Config, Endpoint, Latency, NamedEndpoint, Times, Tunnel
from gateway.policy.events import Built, Failed, Lost, Reloaded, Sampled
from gateway.policy.facts import PeerStatus, TunnelStatus
from gateway.policy.latency import MOST_TIMED, in_order, trial_for
from gateway.policy.moves import move
from gateway.policy.states import Connected, Connecting, Reason, Resolving, State, Trial, Turn
from gateway.policy.timing import Moment, Timing
from gateway.providers.handshakes import FILE, LARGEST, MOST_AGE, BadTimesError, dumped, kept
from gateway.providers.selection import spread
from gateway.providers.server import Server
from gateway.settings.assemble import load
from tests.configurations import COMPLETE
from tests.fakes.world import World
from tests.scenarios import IPV4_ONLY

NOW = 1000.0
WALL = 1_800_000_000.0
TIMING = Timing()
(PEER,) = IPV4_ONLY.peers


def server(number: int) -> Tunnel:
    """Return a candidate with an endpoint and a key of its own."""
    endpoint = Endpoint(ip_address(f"198.51.100.{number}"), 51820)
    return replace(IPV4_ONLY, peers=(replace(PEER, endpoint=endpoint, public_key=f"key{number}"),))


def text(number: int) -> str:
    """Return the endpoint of `server(number)` as times name it."""
    return f"198.51.100.{number}:51820"


def at(seconds: float) -> Moment:
    """Return the moment `seconds` after NOW."""
    return Moment(NOW + seconds, TIMING)


def begun(*numbers: int) -> Connecting:
    """Return the state in which the first of these servers is timed, before it is built."""
    turn = Turn(tuple(map(server, numbers)), by_latency=True, trial=Trial())
    return Connecting(turn, server(numbers[0]), Reason.STARTING, NOW, NOW)


def sampled(tunnel: Tunnel, handshake: float | None) -> Sampled:
    """Return a sample of `tunnel`."""
    peer = PeerStatus(tunnel.peers[0].public_key, None, handshake, 92 if handshake else 0, 148)
    return Sampled(TunnelStatus(tunnel.listen_port, tunnel.fwmark, (peer,)))


def answered(state: State, seconds: float, now: float = 0.0) -> State:
    """Return what follows when the candidate of `state` is built, and answers after `seconds`."""
    assert isinstance(state, Connecting)
    built = move(state, Built(begun_at=WALL), at(now))
    return move(built, sampled(state.tunnel, WALL + seconds), at(now + 0.5))


def unanswered(state: State) -> State:
    """Return what follows when the candidate of `state` is built, and has had its time."""
    assert isinstance(state, Connecting)
    built = move(state, Built(begun_at=WALL), at(0))
    assert isinstance(built, Connecting)
    assert (built.reason, built.give_up_at) == (Reason.MEASURING, NOW + TIMING.trial_limit)
    early = move(built, sampled(state.tunnel, None), at(TIMING.trial_limit - 0.1))
    assert isinstance(early, Connecting)
    assert early.built
    return move(early, sampled(state.tunnel, None), at(TIMING.trial_limit))


def current(state: State) -> str:
    """Return the endpoint that `state` is about."""
    assert isinstance(state, Connecting | Connected)
    return state.tunnel.endpoint_text


def test_each_server_has_one_handshake_then_the_fastest_is_connected() -> None:
    """No handshake of a trial opens the tunnel; the order then follows the times."""
    state: State = begun(1, 2, 3)
    for number, seconds in ((1, 0.2), (2, 0.03), (3, 0.1)):
        assert current(state) == text(number)
        state = answered(state, seconds)
        assert isinstance(state, Connecting)
        assert not state.built
    assert current(state) == text(2)
    assert [it.endpoint_text for it in state.turn.candidates] == [text(2), text(3), text(1)]
    assert dict(state.turn.times) == pytest.approx({text(1): 0.2, text(2): 0.03, text(3): 0.1})
    state = answered(state, 0.03)
    assert isinstance(state, Connected)
    assert (current(state), state.turn.position) == (text(2), 0)


def test_the_fastest_is_not_left_again_where_it_was_the_last() -> None:
    """Its server would refuse another handshake within 20 ms (WireGuard's rate limit)."""
    state = answered(answered(begun(1, 2), 0.2), 0.03)
    assert isinstance(state, Connected)
    assert current(state) == text(2)


def test_the_clock_of_the_wall_may_jump() -> None:
    """Then the time is what has passed since the interface was built."""
    state = answered(answered(begun(1, 2), -4000.0), 0.9)
    assert isinstance(state, Connecting)
    assert dict(state.turn.times)[text(1)] == pytest.approx(0.5)


def test_a_few_are_timed_and_the_others_follow_in_their_order() -> None:
    """However many servers match."""
    numbers = tuple(range(1, MOST_TIMED + 4))
    state: State = begun(*numbers)
    for number in numbers[:MOST_TIMED]:
        state = answered(state, 1 / number)
    assert isinstance(state, Connected)
    order = [*reversed(numbers[:MOST_TIMED]), *numbers[MOST_TIMED:]]
    assert [it.endpoint_text for it in state.turn.candidates] == list(map(text, order))


def test_a_server_that_does_not_answer_costs_two_seconds_and_comes_after_the_others() -> None:
    """At the end of the order, with those that were not tried."""
    state = answered(answered(unanswered(begun(1, 2, 3)), 0.2), 0.1)
    assert isinstance(state, Connected)
    assert [it.endpoint_text for it in state.turn.candidates] == [text(3), text(2), text(1)]


def test_where_none_answers_the_ordinary_round_follows_then_another_trial() -> None:
    """A slow server has its eight seconds."""
    state: State = unanswered(unanswered(begun(1, 2)))
    assert isinstance(state, Connecting)
    assert (state.turn.trial, state.turn.position, state.turn.times) == (None, 0, ())
    for _ in range(2):
        built = move(state, Built(), at(0))
        assert isinstance(built, Connecting)
        assert built.give_up_at >= NOW + TIMING.patience
        state = move(built, sampled(built.tunnel, None), at(built.give_up_at - NOW))
        assert isinstance(state, Connecting)
    assert (state.turn.trial, state.turn.position) == (Trial(), 0)


def test_what_was_never_sent_does_not_count_as_measured() -> None:
    """Such as before there is an uplink: the trial waits as any round does, and begins again."""
    state: State = begun(1, 2)
    state = move(move(state, Failed("no uplink"), at(0)), Failed("no uplink"), at(0))
    assert isinstance(state, Connecting)
    assert (state.turn.trial, state.turn.position) == (Trial(), 0)
    assert state.retry_at > NOW


def test_a_name_that_does_not_resolve_is_left_out() -> None:
    """The others are chosen from; no wait comes before the fastest."""
    peer = replace(PEER, endpoint=NamedEndpoint("gone.example", 51820))
    candidates = (server(1), server(2), replace(IPV4_ONLY, peers=(peer,)))
    turn = Turn(candidates, by_latency=True, trial=Trial())
    state = answered(answered(Connecting(turn, server(1), Reason.STARTING, NOW, NOW), 0.1), 0.2)
    assert isinstance(state, Resolving)
    after = move(state, Failed("no such name"), at(0))
    assert isinstance(after, Connecting)
    assert (current(after), after.retry_at, after.turn.trial) == (text(1), NOW, None)


def test_an_interface_that_is_lost_meanwhile_is_built_again_for_the_same_server() -> None:
    """The trial continues."""
    state = answered(begun(1, 2), 0.1)
    lost = move(move(state, Built(begun_at=WALL), at(0)), Lost("deleted"), at(0.1))
    assert isinstance(lost, Connecting)
    assert (current(lost), lost.built) == (text(2), False)
    assert lost.turn.trial == Trial(((text(1), pytest.approx(0.1)),), 1)


def test_without_the_variable_nothing_is_timed() -> None:
    """Nor with one server, nor with times that are known."""
    candidates, times = (server(1), server(2)), ((text(2), 0.1),)
    by_latency = Config(candidates, latency=Latency())
    assert trial_for(candidates, Config(candidates), ()) is None
    assert trial_for(candidates[:1], by_latency, ()) is None
    assert trial_for(candidates, by_latency, times) is None
    assert trial_for(candidates, by_latency, ((text(9), 0.1),)) == Trial()
    state = Connecting(Turn(candidates, position=1), server(2), Reason.STARTING, NOW, NOW)
    built = move(state, Built(begun_at=WALL), at(0))
    assert isinstance(built, Connecting)
    after = move(built, sampled(server(2), None), at(built.give_up_at - NOW))
    assert isinstance(after, Connecting)
    assert after.turn.trial is None


def test_equal_times_and_unknown_ones_keep_the_order() -> None:
    """So that each user's own order remains."""
    candidates = tuple(map(server, (4, 3, 2, 1)))
    times = ((text(1), 0.1), (text(2), 0.1))
    assert [it.endpoint_text for it in in_order(candidates, times)] == [
        text(2), text(1), text(4), text(3)
    ]  # fmt: skip


# -- the loop, on a machine in memory -------------------------------------------------------------


def world_of(*numbers: int, times: Times = (), **delays: float) -> World:
    """Return a machine with these servers; `delays` are how long their handshakes take."""
    world = World(Config(tuple(map(server, numbers)), latency=Latency(times)))
    world.tunnel.delays = {text(int(key[1:])): value for key, value in delays.items()}
    return world


def read_again(world: World) -> None:
    """Have the configuration read again: `listed` of the world."""
    assert isinstance(world.listed, Config)
    world.supervisor.read_again(Reloaded(world.listed, world.clock()))


def test_the_gateway_connects_with_the_fastest_and_has_the_times_kept() -> None:
    """One server at a time; while it measures, nothing but the encrypted flow passes."""
    world = world_of(1, 2, 3, _1=0.3, _2=0.05, _3=0.12)
    world.run(until=10)
    status = world.at(9)
    assert (status.healthy, status.endpoint) == (True, text(2))
    tried = [line.split()[-1] for line in world.transcript if line.startswith("configure")]
    assert tried == [text(1), text(2), text(3), text(2)]
    measuring = [it for it in world.published if it.reason is Reason.MEASURING]
    assert {it.endpoint for it in measuring} == {text(1), text(2), text(3)}
    assert not any(it.healthy for it in measuring)
    [(times, servers)] = world.remembered
    assert dict(times) == pytest.approx({text(1): 0.3, text(2): 0.05, text(3): 0.12})
    assert servers == (text(1), text(2), text(3))
    assert len(world.adopted) == 1, "the configuration is the same"


def test_times_that_were_kept_choose_without_a_measurement() -> None:
    """The others follow when it dies; when all are dead, they are measured again."""
    world = world_of(1, 2, 3, times=((text(3), 0.02), (text(1), 0.2)), _1=0.3, _2=0.05, _3=0.12)
    all_of_them = set(world.alive)

    def look() -> None:
        if world.published[-1].reason is Reason.MEASURING:
            world.alive |= all_of_them

    later = ((second / 2, look) for second in range(80, 240))
    world.run((30, world.alive.clear), *later, until=200)
    assert world.at(29).endpoint == text(3)
    tried = [line.split()[-1] for line in world.transcript if line.startswith("configure")]
    assert tried[:3] == [text(1), text(2), text(3)], "after the one that was kept as the fastest"
    assert world.at(199).endpoint == text(2)
    assert world.at(199).healthy
    assert len(world.remembered) == 1


def test_a_reload_with_the_same_servers_keeps_the_one_that_was_measured() -> None:
    """In whatever order the configuration lists them."""
    world = world_of(1, 2, 3, _1=0.3, _2=0.05, _3=0.12)
    world.listed = replace(world.config, tunnels=(*map(server, (4, 3, 2)),))
    world.run((5, lambda: read_again(world)), until=20)
    assert world.at(4).endpoint == text(2)
    assert world.at(19).endpoint == text(2)
    assert world.at(19).reconnects == ()


def test_other_servers_are_measured_when_a_reload_has_none_of_the_former() -> None:
    """The connection ends in any case."""
    world = world_of(1, 2, _1=0.3, _2=0.05)
    world.tunnel.delays |= {text(4): 0.3, text(5): 0.1}
    world.alive |= {"198.51.100.4", "198.51.100.5"}
    world.listed = replace(world.config, tunnels=(server(4), server(5)))
    world.run((5, lambda: read_again(world)), until=20)
    assert world.at(19).endpoint == text(5)
    assert [servers for _, servers in world.remembered] == [(text(1), text(2)), (text(4), text(5))]


# -- the file -------------------------------------------------------------------------------------

SERVERS = (text(1), text(2))
TIMES = ((text(2), 0.03), (text(1), 0.2))


def test_kept_times_are_read_again_for_the_same_servers_in_any_order() -> None:
    """What is written is what is read."""
    raw = dumped(TIMES, SERVERS, WALL)
    assert dict(kept(raw, SERVERS[::-1], WALL + 60)) == pytest.approx(dict(TIMES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it | {"measured": WALL - MOST_AGE - 61}, "too old"),
        (lambda it: it | {"measured": WALL + 1e6}, "from the future"),
        (lambda it: it | {"measured": 10**400}, "from the future"),
        (lambda it: it | {"measured": True}, "no times"),
        (lambda it: it | {"measured": float("nan")}, "too old"),
        (lambda it: it | {"servers": "0" * 64}, "have changed"),
        (lambda it: it | {"milliseconds": [1]}, "no times"),
        (lambda it: it | {"milliseconds": {text(1): -1, text(2): "5"}}, "no times"),
        (lambda it: it | {"milliseconds": {text(1): float("nan"), text(2): 1e9}}, "no times"),
        (lambda it: it | {"milliseconds": {text(3): 5}}, "no times"),
        (lambda it: [it], "not an object"),
    ],
)
def test_a_file_that_anybody_may_have_written_is_distrusted(
    change: Callable[[dict[str, object]], object], message: str
) -> None:
    """It orders servers of the configuration, or it is not used."""
    document = json.loads(dumped(TIMES, SERVERS, WALL))
    with pytest.raises(BadTimesError, match=message):
        kept(json.dumps(change(document)).encode(), SERVERS, WALL)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b" " * (LARGEST + 1), "larger than 16 KiB"),
        (b"[" * LARGEST, "not JSON"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
        (b"9" * 5000, "not JSON"),
    ],
)
def test_a_file_of_any_content_is_an_error_of_ours(raw: bytes, message: str) -> None:
    """Nothing in it can stop the start."""
    with pytest.raises(BadTimesError, match=message):
        kept(raw, SERVERS, WALL)


def loaded(root: Path, **others: str) -> tuple[Config, str]:
    """Return the configuration with two endpoints, and what is said of SERVER_ORDER."""
    alone = ("WIREGUARD_ENDPOINT_IP", "WIREGUARD_ENDPOINT_PORT")
    variables = {name: value for name, value in COMPLETE.items() if name not in alone}
    found = load(variables | {"SERVER_ORDER": "latency"} | others, root)
    return found.config, " ".join(it.message for it in found.notices if it.where == "SERVER_ORDER")


def test_a_start_uses_the_times_that_another_one_has_kept(tmp_path: Path) -> None:
    """And measures where there are none, or where they are for other servers."""
    endpoints = {"WIREGUARD_ENDPOINTS": "198.51.100.1:51820,198.51.100.2:51820"}
    config, said = loaded(tmp_path, **endpoints)
    assert config.latency == Latency()
    assert config.latency.times == ()
    assert "one handshake each" in said
    place = tmp_path / "config" / "servers"
    place.mkdir(parents=True)
    memory, times = Memory([tmp_path / "missing" / "servers", place]), ((text(2), 0.0301),)

    async def keep() -> None:
        task = asyncio.create_task(memory.run())
        memory.take(times, tuple(it.endpoint_text for it in config.tunnels))
        await asyncio.wait({task}, timeout=0.2)
        task.cancel()

    asyncio.run(keep())
    assert os.listdir(place) == [FILE]  # noqa: PTH208
    config, said = loaded(tmp_path, **endpoints)
    assert config.latency
    assert dict(config.latency.times) == pytest.approx(dict(times))
    assert said == f"{text(2)} answered first, in 30 ms, as /config/servers/{FILE} has it"
    other = {"WIREGUARD_ENDPOINTS": "198.51.100.1:51820,198.51.100.3:51820"}
    config, said = loaded(tmp_path, **other)
    assert config.latency
    assert config.latency.times == ()
    assert "the servers to choose from have changed; servers are measured again" in said


def test_a_pipe_in_place_of_the_file_stops_nothing(tmp_path: Path) -> None:
    """It is not opened, as it would never end."""
    place = tmp_path / "config" / "servers"
    place.mkdir(parents=True)
    os.mkfifo(place / FILE)
    config, said = loaded(tmp_path, WIREGUARD_ENDPOINTS="198.51.100.1:51820,198.51.100.2:51820")
    assert config.latency == Latency()
    assert "is not a regular file" in said


def test_the_servers_that_are_timed_are_in_different_places() -> None:
    """One of each city comes first, in the order of the list; then the second ones."""
    cities = ("A", "A", "A", "B", "C", "B")
    servers = [
        Server(f"{city}{number}", "key", country="X", city=city)
        for number, city in enumerate(cities)
    ]
    assert [it.hostname for it in spread(servers)] == ["A0", "B3", "C4", "A1", "B5", "A2"]


def test_a_candidate_is_named_by_its_endpoints() -> None:
    """Each once, as the user wrote them."""
    peers = (*server(1).peers, *server(1).peers, *server(2).peers)
    assert Candidate(IPV4_ONLY.private_key, (), peers).endpoint_text == f"{text(1)}, {text(2)}"
