"""A key is registered with a provider's servers: when the supervisor does that, and when again."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.errors import LoginError, NetworkError
from gateway.model import Candidate, Config, KeyRequest, Latency, Login, Registration, Secret
from gateway.policy.events import Opened
from gateway.policy.moves import move
from gateway.policy.reload import Fault, Outcome, not_reloaded
from gateway.policy.states import Fetching, Reason, Transfer, Turn
from gateway.policy.timing import Moment, Timing
from tests.fakes.world import World
from tests.scenarios import IPV4_ONLY, ONE_UPLINK, TWO_UPLINKS

HOST, FIRST = "login.example", ip_address("203.0.113.5")
NAMES = ("one", "two", "three", "four")
SERVERS = tuple(ip_address(f"198.51.100.{number}") for number in range(11, 15))
LOGIN = Login("pia", HOST, "/token", user=Secret("user"), password=Secret("password"))
REQUESTS = tuple(
    KeyRequest("pia", name, "/addKey", 1337, address=address, public_key="key")
    for name, address in zip(NAMES, SERVERS, strict=True)
)
BEGUN = replace(IPV4_ONLY, peers=(), addresses=(), registration=Registration(LOGIN, REQUESTS))
"""What is wanted of servers that do not know the key yet."""


def registered(*numbers: int, made: int = 1) -> Config:
    """Return the configuration once servers of these numbers have taken the key."""
    (peer,) = IPV4_ONLY.peers
    known = replace(IPV4_ONLY, registration=Registration(LOGIN, REQUESTS, made))
    return Config(tuple(_at(number, replace(known, peers=(peer,))) for number in numbers))


def _at(number: int, known: Candidate) -> Candidate:
    (peer,) = known.peers
    endpoint = replace(known.endpoints[0], address=SERVERS[number])
    return replace(known, peers=(replace(peer, endpoint=endpoint),))


def world(config: Config | None = None) -> World:
    """Return a world in which a login works, and three servers take the key and answer."""
    made = World(config or Config((BEGUN,)))
    made.facts = ONE_UPLINK
    made.names[HOST] = (FIRST,)
    made.listed = registered(0, 1, 2, made=2)
    made.alive = set(map(str, SERVERS))
    return made


def calls(made: World, *words: str) -> list[str]:
    """Return the lines of the transcript that begin with one of `words`."""
    return [line for line in made.transcript if line.startswith(words)]


WORDS = ("ask", "open login", "open key", "read again", "up")


def test_a_login_and_three_servers_lead_to_a_connection() -> None:
    """One connection at a time, each with its own hole; a fourth server is not asked."""
    made = world()
    made.run(until=20)
    assert calls(made, *WORDS) == [
        f"ask {HOST}", f"open login {FIRST}", f"open key {SERVERS[0]}", f"open key {SERVERS[1]}",
        f"open key {SERVERS[2]}", "read again", f"up {SERVERS[0]}:51820",
    ], made.transcript  # fmt: skip
    assert made.at(19).healthy
    assert (made.at(0.2).state, made.at(0.2).endpoint) == ("fetching", HOST)


def test_a_server_that_does_not_take_the_key_is_left_out() -> None:
    """The next one is asked in its place."""
    made = world()
    made.fails["two"] = [NetworkError("connect: refused", str(SERVERS[1]))]
    made.run(until=20)
    assert calls(made, "open key")[-1] == f"open key {SERVERS[3]}"
    assert made.at(19).healthy


def test_one_server_is_enough() -> None:
    """The others do not answer."""
    made = world()
    made.listed = registered(0, made=2)
    for name in NAMES[1:]:
        made.fails[name] = [NetworkError("connect: refused", name) for _ in range(9)]
    made.run(until=20)
    assert calls(made, "read again") == ["read again"]
    assert made.at(19).healthy


def test_a_refused_login_is_named_and_repeated_once_an_hour() -> None:
    """Also when the network changes meanwhile: a neighbour could make the account be locked."""
    made = world()
    made.fails["fetched"] = [LoginError("OPENVPN_USER is not accepted", HOST) for _ in range(99)]

    def attach() -> None:
        made.facts = TWO_UPLINKS if made.facts == ONE_UPLINK else ONE_UPLINK
        made.supervisor.kernel_changed()

    made.run((100, attach), (200, attach), (300, attach), until=7100)
    assert len(calls(made, "request")) == 2
    status = made.at(7000)
    assert (status.state, status.reason) == ("fetching", Reason.LOGIN_REFUSED)
    assert "OPENVPN_USER is not accepted" in status.detail
    assert calls(made, "open key") == []


def test_another_password_is_tried_at_once() -> None:
    """After a reload."""
    made = world()
    made.fails["fetched"] = [LoginError("not accepted", HOST)]
    other = Registration(replace(LOGIN, password=Secret("other")), REQUESTS)

    def reload() -> None:
        made.listed = Config((replace(BEGUN, registration=other),))
        made._read_again()  # noqa: SLF001 - what SIGHUP leads to
        made.listed = registered(0, 1, 2, made=2)

    made.run((50, reload), until=60)
    assert made.at(59).healthy


def test_failures_are_tried_again_less_and_less_often() -> None:
    """With a login each: ten in an hour at most."""
    made = world()
    for name in NAMES:
        made.fails[name] = [NetworkError("the server did not take the key", name)] * 999
    made.run(until=3600)
    assert 4 <= len(calls(made, "open login")) <= 10
    assert made.at(3599).reason is Reason.NOT_REGISTERED
    assert "did not take the key" in made.at(3599).detail
    assert calls(made, "up") == []


def test_flapping_links_do_not_log_in_again_and_again() -> None:
    """Each change of the way begins again, but not before `register_first`."""
    made = world()
    made.fetching = 3.0

    def flap() -> None:
        made.facts = TWO_UPLINKS if made.facts == ONE_UPLINK else ONE_UPLINK
        made.supervisor.kernel_changed()

    made.run(*((5 + 2.0 * number, flap) for number in range(60)), until=130)
    assert len(calls(made, "open login")) <= 6, calls(made, "open login")


def test_servers_that_forget_the_key_are_given_it_again() -> None:
    """After a round in which none of them answers; then the new answers are used."""
    made = world(registered(0, 1, 2))
    made.alive = {str(SERVERS[0])}

    def forget() -> None:
        made.alive.clear()

    def remember() -> None:
        if calls(made, "request"):
            made.alive = set(map(str, SERVERS))

    made.listed = registered(2, 1, made=2)
    made.run((20, forget), *((40 + n, remember) for n in range(60)), until=110)
    begun = made.transcript.index(f"open login {FIRST}")
    tried = [
        line.split()[-1] for line in made.transcript[:begun] if line.startswith(("up", "conf"))
    ]
    assert [f"{server}:51820" for server in SERVERS[:3]] == list(dict.fromkeys(tried))
    assert made.at(109).healthy
    assert made.at(109).endpoint == f"{SERVERS[2]}:51820"


def test_the_same_answers_again_are_used_too() -> None:
    """A server may assign the same address; the gateway does not wait for another one."""
    made = world(registered(0))
    made.alive.clear()
    made.listed = registered(0, made=2)

    def remember() -> None:
        made.alive = set(map(str, SERVERS))

    made.run((30, remember), until=100)
    assert calls(made, "request")
    assert made.at(99).healthy


@pytest.mark.parametrize("how", [LoginError, NetworkError])
def test_servers_get_another_chance_while_the_key_cannot_be_registered(
    how: type[NetworkError],
) -> None:
    """The provider's login may be gone, and the servers only have been."""
    made = world(registered(0, 1))
    made.alive.clear()
    made.fails["fetched"] = [how("not now", HOST) for _ in range(99)]

    def remember() -> None:
        made.alive = set(map(str, SERVERS))

    made.run((200, remember), until=300)
    assert made.at(299).healthy
    logins = calls(made, "open login")
    assert len(logins) == 1 if how is LoginError else 2 <= len(logins) <= 4
    assert calls(made, "read again") == []


def test_registering_does_not_hammer_when_no_server_ever_answers() -> None:
    """As where UDP is blocked: the key is taken each time, and nothing comes of it."""
    made = world(registered(0, 1, 2))
    made.alive.clear()
    number = 2

    def answer() -> None:
        nonlocal number
        number += 1
        made.listed = registered(0, 1, 2, made=number)

    made.run(*((float(at), answer) for at in range(5, 900, 5)), until=900)
    assert 3 <= len(calls(made, "open login")) <= 6


def test_answers_that_contradict_the_configuration_are_named() -> None:
    """Such as an address of a listed subnet: it is not requested again for an hour."""
    made = world()
    fault = Fault("FIREWALL_OUTBOUND_SUBNETS", "contains the tunnel's own address")
    made.listed = not_reloaded(1000.0, Outcome.REFUSED, (fault,))
    made.run(until=3000)
    assert len(calls(made, "open login")) == 1
    status = made.at(2999)
    assert status.reason is Reason.NOT_REGISTERED
    assert status.detail.startswith("FIREWALL_OUTBOUND_SUBNETS contains")


def test_another_list_of_servers_leaves_a_connection_alone() -> None:
    """As long as its own server is among those that have the key."""
    made = world(registered(0, 1))

    def refresh() -> None:
        known = registered(0, 1)
        others = Registration(LOGIN, REQUESTS[:2], 1)
        made.listed = Config(tuple(replace(it, registration=others) for it in known.tunnels))
        made._read_again()  # noqa: SLF001 - what SIGHUP leads to

    made.run((20, refresh), until=40)
    assert len(calls(made, "up")) == 1
    assert made.at(39).healthy


def test_chance_makes_no_pause_between_logins_shorter() -> None:
    """The first is 30 s, the last 15 minutes, as docs/security.md says."""
    timing = Timing()
    fetching = Fetching(Turn((BEGUN,)), Reason.STARTING, since=0.0, retry_at=0.0)
    for chance in (0.0, 0.5, 0.999):
        turn, pauses = fetching.turn, []
        for _ in range(9):
            opened = Opened(Transfer(FIRST, 443, 40001, 8))
            before = replace(fetching, turn=turn)
            after = move(before, opened, Moment(0.0, timing, chance))
            assert isinstance(after, Fetching)
            turn = after.turn
            pauses.append(turn.register_at)
        assert min(pauses) == pauses[0] >= timing.register_first
        assert max(pauses) == pauses[-1] <= timing.register_last
        assert pauses == sorted(pauses)


def test_the_least_time_between_two_logins_is_more_than_one_round() -> None:
    """Or a restarted server would be waited for in vain."""
    timing = Timing()
    assert timing.register_first <= 3 * timing.patience + timing.backoff_first + 8


def test_servers_in_the_order_of_their_times_forget_the_key_too() -> None:
    """A trial in which a server answers needs no login; a round in which none does needs one."""
    made = world(replace(registered(0, 1, 2), latency=Latency()))
    made.listed = replace(registered(2, 1, made=2), latency=Latency())

    def forget() -> None:
        assert made.at(19).healthy
        assert calls(made, "open login") == []
        made.alive.clear()

    def remember() -> None:
        if calls(made, "request"):
            made.alive = set(map(str, SERVERS))

    made.run((20, forget), *((40 + n, remember) for n in range(100)), until=150)
    assert len(calls(made, "open login")) == 1
    assert made.at(149).healthy
