"""A configuration that is read again: what stays, what begins again, and what is answered."""

from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import (
    Backend,
    Candidate,
    Config,
    HostPort,
    Implementation,
    Latency,
    PortRange,
    Protocol,
    Secret,
    ServerList,
    Tunnel,
)
from gateway.model.control import Control
from gateway.model.forwarding import ForwarderKind, Forwarding
from gateway.model.name_server import BlockFile, NameServer
from gateway.model.port_client import ClientKind, ClientUrl, PortClient
from gateway.model.proxies import HttpProxy, SocksProxy
from gateway.model.public_ip import PublicIp
from gateway.policy.actions import Abandon, Build, LookAround, LookUp, Work, WriteNames
from gateway.policy.events import Built, Looked, NotReloaded, Reloaded, Tick, Wrote
from gateway.policy.firewall import ruleset_for
from gateway.policy.machine import step
from gateway.policy.moves import with_candidates
from gateway.policy.reload import (
    LONGEST_FAULT,
    MOST_FAULTS,
    NEED_RESTART,
    VARIABLES,
    Fault,
    Outcome,
    not_reloaded,
    taken_over,
)
from gateway.policy.situation import Situation
from gateway.policy.states import Connected, Connecting, Locked, Reason, Resolving, State, Stopping
from tests.unit.test_machine import (
    ALIVE,
    BUILT,
    CALM,
    CONFIG,
    CONNECTED,
    NAMED,
    NOW,
    PEER,
    QUERY,
    QUIET,
    RESOLVING,
    TIMING,
    TUNNEL,
    UNBUILT,
    at,
    calm,
)

PORT = PortRange(Protocol.TCP, 8080, 8080)
SUBNET = ip_network("192.168.1.0/24")
PUBLIC = ip_network("172.50.0.0/16")
OTHER = replace(TUNNEL, peers=(replace(PEER, public_key="other"),))
OTHER_NAMES = replace(TUNNEL, dns=(ip_address("10.2.0.9"),))


def reloaded(situation: Situation, config: Config) -> tuple[Situation, list[Any]]:
    """Return what follows in `situation` when `config` was read, and the actions.

    The first of them is a look around, which puts the rules into force; it finds nothing new.
    """
    after, actions = step(situation, Reloaded(config, NOW), at(0))
    if LookAround() not in actions:
        return after, list(actions)
    after, more = step(after, Looked(after.facts), at(0))
    return after, [it for it in actions if it != LookAround()] + list(more)


CHANGES: dict[str, dict[str, Any]] = {
    "the tunnel": {"tunnels": (OTHER,)},
    "DNS_ADDRESS": {"tunnels": (OTHER_NAMES,)},
    "FIREWALL_OUTBOUND_SUBNETS": {"outbound_subnets": (SUBNET,), "public_subnets": (PUBLIC,)},
    "FIREWALL_INPUT_PORTS": {"input_ports": (PORT,)},
    "FIREWALL_INPUT_PORTS_WHILE_DOWN": {"input_ports_while_down": False},
    "FIREWALL_VPN_INPUT_PORTS": {"vpn_input_ports": (PORT,)},
    "HEALTH_PROBE": {"health_probe": None},
    "WIREGUARD_ENDPOINT_RESOLVER": {"endpoint_resolver": ip_address("192.168.1.1")},
    "VPN_UP_COMMAND": {"up_command": ("up",)},
    "VPN_DOWN_COMMAND": {"down_command": ("down",)},
    "FIREWALL_BACKEND": {"firewall": Backend.NFTABLES},
    "WIREGUARD_IMPLEMENTATION": {"implementation": Implementation.USERSPACE},
    "HEALTH_SERVER_ADDRESS": {"health_server": HostPort("", 1)},
    "VPN_SERVICE_PROVIDER": {"server_list": ServerList("mullvad", "api.example", "/")},
    "SERVER_ORDER": {"latency": Latency()},
    "UPDATER_PERIOD": {"list_period": 86400},
    "DNS_BLOCK_FILES": {"block_files": (BlockFile("/config/hosts", 1, 2),)},
    "/etc/hosts": {"host_names": (("a.lan", (ip_address("192.168.1.1"),)),)},
    NEED_RESTART["public_ip"]: {"public_ip": PublicIp(())},
    VARIABLES["port_client"]: {
        "port_client": PortClient(
            ClientKind.DELUGE, ClientUrl(ip_address("127.0.0.1"), 8112), "", Secret("")
        )
    },
    VARIABLES["control"]: {"control": Control(provider="mullvad")},
    "HTTP_CONTROL_SERVER_ADDRESS": {"control_server": HostPort("", 8000)},
    NEED_RESTART["name_server"]: {"name_server": NameServer()},
    NEED_RESTART["http_proxy"]: {"http_proxy": HttpProxy(HostPort("", 8888))},
    NEED_RESTART["socks_proxy"]: {"socks_proxy": SocksProxy(HostPort("", 1080))},
    NEED_RESTART["forwarding"]: {"forwarding": Forwarding(ForwarderKind.NATPMP)},
}
"""A change of each variable, by its name in the answer."""


def test_every_field_of_a_configuration_is_either_taken_over_or_needs_a_restart() -> None:
    """A new one cannot be forgotten, and none is in both."""
    assert sorted([*VARIABLES, *NEED_RESTART]) == sorted(it.name for it in fields(Config))
    assert {field for change in CHANGES.values() for field in change} == {*VARIABLES, *NEED_RESTART}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_named_and_only_those_that_need_no_restart_are_made(name: str) -> None:
    """The parts of the gateway that were chosen at the start stay."""
    wanted = replace(CONFIG, **CHANGES[name])
    config, answer = taken_over(CONFIG, wanted, 5.0)
    if name == VARIABLES["port_client"]:
        wanted, before = replace(CONFIG, port_client=None), wanted
        config, answer = taken_over(before, wanted, 5.0)
    if name in NEED_RESTART.values():
        assert config is CONFIG
        assert (answer.outcome, answer.needs_restart) == (Outcome.UNCHANGED, (name,))
    else:
        assert config == wanted
        assert (answer.outcome, answer.changed) == (Outcome.ACCEPTED, (name,))
        assert answer.needs_restart == ()
    assert (answer.begun_at, answer.faults, answer.found) == (5.0, (), 0)


def test_a_client_for_the_port_is_not_switched_on_by_a_reload() -> None:
    """Its service is made at the start, so the answer does not say that it runs now."""
    wanted = replace(CONFIG, **CHANGES[VARIABLES["port_client"]])
    config, answer = taken_over(CONFIG, wanted, 5.0)
    assert config is CONFIG
    assert (answer.changed, answer.needs_restart) == ((), (VARIABLES["port_client"],))


def test_what_needs_a_restart_keeps_nothing_else_from_being_taken_over() -> None:
    """And it is named again until it is done."""
    wanted = replace(CONFIG, firewall=Backend.NFTABLES, input_ports=(PORT,))
    config, answer = taken_over(CONFIG, wanted, NOW)
    assert config == replace(CONFIG, input_ports=(PORT,))
    assert (answer.changed, answer.needs_restart) == (
        ("FIREWALL_INPUT_PORTS",),
        ("FIREWALL_BACKEND",),
    )
    again, answer = taken_over(config, wanted, NOW)
    assert again is config
    assert answer.needs_restart == ("FIREWALL_BACKEND",)


def test_an_answer_has_a_limited_size_and_says_how_much_there_is() -> None:
    """Health is read every few seconds, and a file of 64 KiB may be wrong in each line."""
    faults = tuple(Fault(f"line {number}", "x" * 9999) for number in range(5000))
    answer = not_reloaded(NOW, Outcome.REFUSED, faults)
    assert (len(answer.faults), answer.found) == (MOST_FAULTS, 5000)
    assert {len(it.problem) for it in answer.faults} == {LONGEST_FAULT}
    assert answer.faults[0].problem.endswith("...")
    short = (Fault("X", "y" * LONGEST_FAULT),)
    assert not_reloaded(NOW, Outcome.REFUSED, short).faults == short


@pytest.mark.parametrize("state", [RESOLVING, UNBUILT, BUILT, CONNECTED], ids=repr)
def test_holes_alone_leave_the_state_and_its_work_as_they_are(state: State) -> None:
    """The same tunnel, the same handshake; the rules follow from the configuration."""
    situation = calm(state, under_way=frozenset({Work.SAMPLE}))
    after, actions = reloaded(situation, replace(CONFIG, input_ports=(PORT,)))
    assert after.state is state
    assert after.config.input_ports == (PORT,)
    assert Abandon() not in actions
    assert after.under_way >= {Work.SAMPLE}


def test_the_rules_of_a_connected_gateway_follow_the_configuration() -> None:
    """Nothing else is needed for a hole to open, or to close."""
    after, _ = reloaded(calm(CONNECTED), replace(CONFIG, input_ports=(PORT,)))
    opened = ruleset_for(after.state, after.config, after.facts)
    assert opened != ruleset_for(CONNECTED, CONFIG, after.facts), "control"
    back, _ = reloaded(after, CONFIG)
    assert ruleset_for(back.state, back.config, back.facts) == ruleset_for(
        CONNECTED, CONFIG, after.facts
    )


def test_the_rules_follow_at_once_or_when_the_interface_is_built() -> None:
    """The namespace is looked at, which brings the kernel into step; not while routes change."""
    wanted = replace(CONFIG, input_ports=(PORT,))
    assert LookAround() in step(calm(CONNECTED), Reloaded(wanted, NOW), at(0))[1]
    assert LookAround() not in step(calm(CONNECTED), Reloaded(CONFIG, NOW), at(0))[1]
    building = calm(UNBUILT, under_way=frozenset({Work.CONNECT}))
    after, actions = step(building, Reloaded(wanted, NOW), at(0))
    assert actions == ()
    assert LookAround() in step(after, Built(), at(1))[1]


def test_a_wrong_configuration_changes_nothing_but_the_answer() -> None:
    """The running one works."""
    answer = not_reloaded(NOW, Outcome.REFUSED, (Fault("X", "no"),))
    situation = calm(QUIET)
    after, actions = step(situation, NotReloaded(answer), at(0))
    assert (after, actions) == (replace(situation, reload=answer), ())


def test_another_server_closes_the_tunnel_and_begins_with_it() -> None:
    """By the state in which only the encrypted flow passes."""
    after, actions = reloaded(calm(CONNECTED), replace(CONFIG, tunnels=(OTHER,)))
    assert isinstance(after.state, Connecting)
    assert (after.state.tunnel, after.state.reason) == (OTHER, Reason.RECONFIGURED)
    assert not after.state.built
    assert actions == [Build(OTHER)]


def test_a_name_is_looked_up_when_it_is_new() -> None:
    """With no more than the question open meanwhile."""
    after, actions = reloaded(calm(CONNECTED), replace(CONFIG, tunnels=(NAMED,)))
    assert isinstance(after.state, Resolving)
    assert actions == [LookUp(NAMED)]


def test_a_server_that_stays_in_the_list_stays_connected_wherever_it_moves() -> None:
    """The first one of the list gets its chance later."""
    after, actions = reloaded(calm(CONNECTED), replace(CONFIG, tunnels=(OTHER, TUNNEL)))
    assert isinstance(after.state, Connected)
    assert after.state.tunnel is not OTHER
    assert (after.state.turn.position, after.state.turn.candidates) == (1, (OTHER, TUNNEL))
    assert (after.state.since, after.state.pulse) == (CONNECTED.since, ALIVE)
    assert actions == []


@pytest.mark.parametrize(
    "change",
    [
        {"private_key": Secret("other")},
        {"mtu": 1300},
        {"listen_port": 40000},
        {"fwmark": 7},
        {"addresses": ()},
        {"peers": (replace(PEER, allowed_ips=(SUBNET,)),)},
        {"peers": (replace(PEER, preshared_key=Secret("p")),)},
        {"peers": (replace(PEER, persistent_keepalive=7),)},
    ],
    ids=str,
)
def test_each_other_parameter_of_the_tunnel_leads_to_a_new_handshake(
    change: dict[str, Any],
) -> None:
    """None of them stays as it was without notice."""
    wanted = replace(TUNNEL, **change)
    after, _ = reloaded(calm(CONNECTED), replace(CONFIG, tunnels=(wanted,)))
    assert isinstance(after.state, Connecting)
    assert after.state.tunnel == wanted


def test_other_resolvers_are_written_at_once_without_another_handshake() -> None:
    """What is being written meanwhile is cut off: its success would say nothing about these."""
    situation = calm(CONNECTED, under_way=frozenset({Work.NAMES, Work.SAMPLE}))
    after, actions = reloaded(situation, replace(CONFIG, tunnels=(OTHER_NAMES,)))
    assert isinstance(after.state, Connected)
    assert after.state.tunnel == OTHER_NAMES
    assert actions[0] == Abandon()
    assert WriteNames(OTHER_NAMES) in actions
    assert after.names_problem
    written, _ = step(after, Wrote(), at(0.1))
    assert written.names_problem == ""


def test_other_resolvers_of_an_interface_without_a_handshake_are_written_with_it() -> None:
    """The file was written when the interface was built."""
    after, _ = reloaded(calm(BUILT), replace(CONFIG, tunnels=(OTHER_NAMES,)))
    assert isinstance(after.state, Connecting)
    assert after.state.built
    assert after.names_problem


def test_a_locked_gateway_tries_a_corrected_configuration_at_once() -> None:
    """Its next attempt may have been a minute away."""
    locked = Locked(Reason.FIREWALL, NOW, NOW + 60, 9)
    after, actions = reloaded(calm(locked), replace(CONFIG, input_ports=(PORT,)))
    assert isinstance(after.state, Connecting)
    assert actions == [Build(TUNNEL)]
    unchanged, actions = reloaded(calm(locked), CONFIG)
    assert (unchanged.state, actions) == (locked, [])


def test_a_pending_question_begins_again_for_other_candidates_or_another_resolver() -> None:
    """Its hole closes with it."""
    asking = calm(replace(RESOLVING, query=QUERY), under_way=frozenset({Work.CONNECT}))
    asking = replace(asking, config=replace(CONFIG, tunnels=(NAMED,)))
    for change in ({"tunnels": (NAMED, OTHER)}, {"endpoint_resolver": ip_address("10.0.0.1")}):
        after, actions = reloaded(asking, replace(asking.config, **change))
        assert isinstance(after.state, Resolving)
        assert after.state.query is None
        assert actions == [Abandon(), LookUp(NAMED)]
    after, actions = reloaded(asking, replace(asking.config, input_ports=(PORT,)))
    assert (after.state, actions) == (asking.state, [])


def test_no_attempt_begins_within_a_second_of_the_last_one() -> None:
    """However often the configuration changes."""
    tried = replace(CONNECTED, turn=replace(CONNECTED.turn, tried_at=NOW - 0.4))
    after, actions = reloaded(calm(tried), replace(CONFIG, tunnels=(OTHER,)))
    assert actions == []
    assert isinstance(after.state, Connecting)
    assert after.state.retry_at == NOW + 0.6
    assert step(after, Tick(), at(0.6))[1] == (Build(OTHER),)


def test_a_listen_port_that_was_given_up_stays_given_up_unless_another_is_chosen() -> None:
    """The reason for it is not in the configuration."""
    moved = replace(TUNNEL, listen_port=50000)
    state = replace(CONNECTED, turn=replace(CONNECTED.turn, candidates=(moved,)), tunnel=moved)
    after, _ = reloaded(calm(state), replace(CONFIG, tunnels=(TUNNEL, OTHER)))
    assert isinstance(after.state, Connected)
    assert after.state.tunnel == moved
    assert [it.listen_port for it in after.state.turn.candidates] == [50000, 50000]
    chosen = replace(TUNNEL, listen_port=40000)
    after, _ = reloaded(calm(state), replace(CONFIG, tunnels=(chosen,)))
    assert isinstance(after.state, Connecting)
    assert after.state.tunnel == chosen


def test_a_stopping_gateway_stays_so() -> None:
    """No state follows on it."""
    after, actions = reloaded(calm(Stopping(NOW)), replace(CONFIG, tunnels=(OTHER,)))
    assert (after.state, actions) == (Stopping(NOW), [])


TUNNELS = st.lists(
    st.sampled_from([TUNNEL, OTHER, OTHER_NAMES, NAMED, replace(TUNNEL, mtu=1300)]),
    min_size=1,
    max_size=4,
    unique_by=lambda it: (it.peers, it.dns, it.mtu),
).map(tuple)
CONFIGS = st.builds(
    Config,
    tunnels=TUNNELS,
    input_ports=st.sampled_from([(), (PORT,)]),
    outbound_subnets=st.sampled_from([(), (SUBNET,)]),
)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Return a situation of any state that its configuration can have led to."""
    config = draw(CONFIGS)
    position = draw(st.integers(0, len(config.tunnels) - 1))
    candidate = config.tunnels[position]
    turn = replace(CONNECTED.turn, candidates=config.tunnels, position=position)
    tunnel = replace(TUNNEL, dns=candidate.dns, mtu=candidate.mtu)
    if isinstance(candidate, Tunnel):
        tunnel = candidate if not candidate.names else tunnel
    states: list[State] = [
        Locked(),
        Stopping(),
        replace(RESOLVING, turn=turn, query=draw(st.sampled_from([None, QUERY]))),
        replace(UNBUILT, turn=turn, tunnel=tunnel),
        replace(BUILT, turn=turn, tunnel=tunnel),
        replace(CONNECTED, turn=turn, tunnel=tunnel),
    ]
    work = draw(st.frozensets(st.sampled_from(list(Work))))
    situation: dict[str, Any] = CALM | {"under_way": work}
    return Situation(config, draw(st.sampled_from(states)), **situation)


def _is_of(tunnel: Candidate, config: Config) -> bool:
    """Return whether `config` has a candidate that `tunnel` is, with addresses for its names."""
    return any(
        replace(candidate, peers=()) == replace(tunnel, peers=())
        and [it.public_key for it in candidate.peers] == [it.public_key for it in tunnel.peers]
        for candidate in config.tunnels
    )


@given(situations(), CONFIGS)
def test_after_any_change_the_state_is_one_of_the_new_configuration(
    situation: Situation, wanted: Config
) -> None:
    """No server, key or resolver of the former one stays, and no work for another tunnel counts."""
    after, actions = reloaded(situation, wanted)
    state = after.state
    assert after.config == wanted
    assert isinstance(state, Stopping) == isinstance(situation.state, Stopping)
    if isinstance(state, Resolving | Connecting | Connected):
        assert state.turn.candidates == wanted.tunnels
    former = situation.state
    if isinstance(state, type(former)) and isinstance(former, Resolving | Connecting | Connected):
        assert isinstance(state, Resolving | Connecting | Connected)
        if situation.under_way - after.under_way:
            assert Abandon() in actions
        if situation.under_way and Abandon() not in actions:
            assert state.turn.candidate == former.turn.candidate
    if isinstance(state, Connecting | Connected):
        assert _is_of(state.tunnel, wanted)
    if isinstance(state, Connected):
        assert isinstance(situation.state, Connected)
        assert replace(state.tunnel, dns=()) == replace(situation.state.tunnel, dns=())
    again, _ = reloaded(after, wanted)
    assert again.state is state
    assert again.reload is not None
    assert again.reload.outcome is Outcome.UNCHANGED


def test_where_the_candidate_is_nowhere_the_first_one_begins() -> None:
    """With the time of the last attempt."""
    state = with_candidates(CONNECTED, (OTHER, TUNNEL), None, at(0))
    assert isinstance(state, Connecting)
    assert (state.turn.position, state.tunnel, state.since) == (0, OTHER, NOW)
    assert with_candidates(BUILT, (OTHER,), None, at(0)).since == BUILT.since
    assert TIMING.rebuild_pause == 1.0
