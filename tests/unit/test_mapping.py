"""Ports are asked for and kept: against a whole server of ours, and against hostile ones."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.mapped import Granted, Plan, PortProblem, Wish
from gateway.policy.mapping import BETWEEN_RESETS, SHORTEST_LIFETIME, Mapper
from gateway.policy.portmap import Codec, Version
from tests.lab import port_server

CLIENT = "10.2.0.2"
CODEC = Codec(IPv4Address(CLIENT), bytes(range(12)))
ONE = Plan(Version.NATPMP, 600, (Wish(),))
PROTON = Plan(Version.NATPMP, 60, (Wish(0, 1, at_public=True),))
START = 1000.0


@dataclass
class World:
    """A mapper, a server, and the network between them; time passes when a test says so."""

    plan: Plan = ONE
    settings: dict[str, object] = field(default_factory=dict)
    loses: Callable[[], bool] = lambda: False
    now: float = START
    sent: int = 0
    changes: list[tuple[float, tuple[Granted, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        numbers = count(30000)
        self.mapper = Mapper(self.plan, CODEC, self.now, lambda: next(numbers))
        self.server = port_server.Server(
            "-",
            self.settings,
            clock=lambda: self.now,
            report=lambda _: None,
            began=self.now - 5000,
        )

    def run(self, seconds: float) -> "World":
        """Let time pass."""
        end = self.now + seconds
        while (due := max(self.now, self.mapper.due_at)) <= end:
            self.now = due
            for message in self.mapper.to_send(self.now):
                self.sent += 1
                if self.loses():
                    continue
                for answer in self.server.answers(message, CLIENT):
                    if not self.loses():
                        self.mapper.receive(answer, self.now)
            self.note()
        self.now = end
        self.note()
        return self

    def note(self) -> None:
        """Remember which ports there are, where that has changed."""
        leases = self.mapper.leases(self.now)
        ports = [(it.public, it.arriving) for it in leases]
        if not self.changes or ports != [(it.public, it.arriving) for it in self.changes[-1][1]]:
            self.changes.append((self.now, leases))

    @property
    def history(self) -> list[list[int]]:
        """The public ports that there were, since there was one."""
        found = [[it.public for it in ports] for _, ports in self.changes]
        return found[1:] if found[:1] == [[]] else found

    @property
    def ports(self) -> list[tuple[int, int]]:
        """The public ports with where they arrive."""
        return [(it.public, it.arriving) for it in self.mapper.leases(self.now)]

    @property
    def problem(self) -> PortProblem | None:
        """What the mapper says."""
        return self.mapper.problem(self.now)


@pytest.mark.parametrize("version", list(Version))
def test_a_port_is_asked_for_and_kept(version: Version) -> None:
    """The same for both protocols, and for as long as the server is there."""
    world = World(Plan(version, 600, (Wish(),))).run(0)
    assert world.ports == [(30000, 30000)]
    world.run(7200)
    assert len(world.history) == 1
    assert world.sent < 2 * (7200 / 60 + 2)
    assert world.problem is None


def test_proton_vpn_is_asked_as_it_says() -> None:
    """Private port 0, public port 1, 60 s; again after 45 s, with the port that it gave."""
    world = World(PROTON, {"at_public": True, "lifetime": 60}).run(0)
    assert world.ports == [(port_server.FIRST, port_server.FIRST)]
    assert world.sent == 2
    assert world.run(44.9).sent == 2
    assert world.run(0.2).sent == 4
    assert world.run(3600).ports == [(port_server.FIRST, port_server.FIRST)]
    assert len(world.history) == 1


def test_one_lost_packet_changes_nothing() -> None:
    """Nor does an outage of less than the rest of the lifetime."""
    world = World().run(0)
    world.server.settings["silent"] = True
    world.run(500)
    assert world.ports
    world.server.settings["silent"] = False
    world.run(200)
    assert len(world.history) == 1


def test_a_port_ends_with_its_lifetime_by_our_clock() -> None:
    """Not before, and not later, whatever was sent meanwhile; and it comes back."""
    world = World().run(0)
    world.server.settings["silent"] = True
    world.run(599.9)
    assert world.ports
    world.run(0.2)
    assert not world.ports
    assert world.problem is PortProblem.SILENT
    world.server.settings["silent"] = False
    assert world.run(65).ports == [(30000, 30000)]
    assert world.problem is None


def test_requests_are_repeated_ever_more_seldom() -> None:
    """After 250 ms, each time twice as long, at most 16 s."""
    world = World(settings={"silent": True})
    times = []
    for _ in range(11):
        times.append(world.mapper.due_at)
        world.mapper.to_send(times[-1])
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses == [0.25 * 2**it for it in range(7)] + [16.0] * 3


def test_a_server_that_gives_another_port_is_followed() -> None:
    """The old port counts until both protocols have the new one."""
    world = World(settings={"ports": [41000, 42000]}).run(0)
    assert world.ports == [(41000, 30000)]
    world.server.settings["generation"] = 1
    world.run(61)
    assert world.ports == [(42000, 30000)]
    assert world.history == [[41000], [42000]]


def test_a_falling_epoch_leads_to_a_request_at_once() -> None:
    """The server has forgotten a port that is not due yet, and says so about another one."""
    plan = Plan(Version.NATPMP, 600, (Wish(), Wish()))
    world = World(plan).run(0)
    world.mapper._slots[1].udp.due_at += 30  # noqa: SLF001 - the second is due later
    world.mapper._slots[1].tcp.due_at += 30  # noqa: SLF001
    world.server.settings |= {"generation": 1, "since": world.now + 59}
    world.run(60.1)
    assert len(world.server.mappings) == 4


def test_epochs_that_always_fall_do_not_make_a_flood() -> None:
    """Each answer is about another start of the server."""
    world = World(Plan(Version.NATPMP, 600, (Wish(), Wish())))
    honest, number = world.server.answers, count()

    def falling(message: bytes, client: str) -> list[bytes]:
        world.server.settings["since"] = world.now - 1_000_000 + 1000 * next(number)
        return honest(message, client)

    world.server.answers = falling  # type: ignore[method-assign]
    world.run(600)
    assert world.sent <= 4 * (600 / BETWEEN_RESETS + 20)


@pytest.mark.parametrize(("has", "first"), [("pcp", Version.NATPMP), ("natpmp", Version.PCP)])
def test_the_other_protocol_is_used_where_a_server_has_that_alone(has: str, first: Version) -> None:
    """At once, because the server says so."""
    world = World(Plan(first, 600, (Wish(),)), {"versions": [has]}).run(0)
    assert world.ports == [(30000, 30000)]
    assert world.run(4000).ports
    assert len(world.history) == 1


def test_a_server_that_has_neither_is_asked_seldom() -> None:
    """And it is said why."""
    world = World(settings={"versions": []}).run(1)
    assert world.problem is PortProblem.UNSUPPORTED_VERSION
    world.run(3600)
    assert world.sent < 60
    world.server.settings["versions"] = ["pcp"]
    assert world.run(300).ports


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (2, PortProblem.NOT_AUTHORIZED),
        (3, PortProblem.NETWORK_FAILURE),
        (4, PortProblem.NO_RESOURCES),
        (5, PortProblem.UNSUPPORTED),
        (77, PortProblem.REFUSED),
    ],
)
def test_a_refusal_has_a_reason_and_is_asked_again_seldom(code: int, problem: PortProblem) -> None:
    """Within five minutes after the server has changed its mind, there is a port."""
    world = World(settings={"result": code}).run(60)
    assert world.problem is problem
    world.run(3540)
    assert world.sent < 30
    world.server.settings["result"] = 0
    assert world.run(300).ports


def test_a_port_that_is_refused_later_is_kept_to_its_end() -> None:
    """It is the server that has promised it."""
    world = World().run(0)
    world.server.settings["result"] = 4
    assert world.run(599).ports
    assert not world.run(2).ports


def test_udp_and_tcp_have_the_same_port_or_none() -> None:
    """A pair that differs is given back, and another one is asked for, ever more seldom."""
    world = World(settings={"differ": True}).run(600)
    assert not any(ports for _, ports in world.changes)
    assert world.problem is PortProblem.PORTS_DIFFER
    assert world.sent < 120
    world.server.settings["differ"] = False
    assert world.run(300).ports
    publics = {it.public for it in world.server.mappings}
    assert publics == {world.ports[0][0]}, "what differed was given back"


@pytest.mark.parametrize("lifetime", [0, 1, SHORTEST_LIFETIME - 1])
def test_a_lifetime_that_is_none_is_not_taken(lifetime: int) -> None:
    """A port that opens and closes all the time is of no use; and the server is not flooded."""
    world = World(settings={"lifetime": lifetime}).run(600)
    assert not any(ports for _, ports in world.changes)
    assert world.sent < 100
    if lifetime:
        assert world.problem is PortProblem.TOO_SHORT


@pytest.mark.parametrize("lifetime", [4_000_000_000, 86400])
def test_a_lifetime_counts_for_no_longer_than_was_asked(lifetime: int) -> None:
    """A server that promises a century is asked again all the same."""
    world = World(settings={"lifetime": lifetime}).run(0)
    (lease,) = world.mapper.leases(world.now)
    assert lease.until == START + 600


def test_several_ports_are_distinct_and_in_order() -> None:
    """Each has its own private port. The same one twice counts once."""
    wishes = (Wish(6881), Wish(6882), Wish())
    world = World(Plan(Version.PCP, 600, wishes)).run(0)
    assert world.ports == [(6881, 6881), (6882, 6882), (30000, 30000)]
    assert [it.index for it in world.mapper.leases(world.now)] == [0, 1, 2]
    world = World(Plan(Version.NATPMP, 600, wishes), {"ports": [41000]}).run(0)
    assert world.ports == [(41000, 6881)]
    assert world.problem is PortProblem.FEWER


def test_ports_are_given_back_at_the_end() -> None:
    """Each by a request with lifetime 0."""
    world = World(Plan(Version.NATPMP, 600, (Wish(), Wish()))).run(0)
    assert len(world.server.mappings) == 4
    for message in world.mapper.farewell(world.now):
        world.server.answers(message, CLIENT)
    assert not world.server.mappings


def test_requests_that_cannot_be_sent_are_sent_again() -> None:
    """And it is said why there is no port."""
    world = World(loses=lambda: True).run(1)
    world.mapper.failed(PortProblem.NOT_LISTENING)
    assert world.problem is PortProblem.NOT_LISTENING
    world.loses = lambda: False
    assert world.run(10).ports


@given(seed=st.integers(0, 2**32), share=st.floats(0, 0.4))
def test_a_port_is_kept_over_any_bad_network(seed: int, share: float) -> None:
    """Where up to four of ten packets are lost, each way, it neither changes nor ends."""
    draw = random.Random(seed)  # noqa: S311 - for a test
    world = World(loses=lambda: draw.random() < share).run(600)
    world.run(7200)
    assert len(world.history) == 1
    assert world.ports


def mutated(message: bytes, draw: random.Random) -> bytes:
    """Return an answer with some bytes changed, cut or added."""
    raw = bytearray(message)
    for _ in range(draw.randint(0, 3)):
        raw[draw.randrange(len(raw))] = draw.choice((0, 1, 255, draw.randrange(256)))
    return bytes(raw[: draw.choice((len(raw), len(raw), draw.randrange(len(raw))))])


@given(
    seed=st.integers(0, 2**32),
    version=st.sampled_from(list(Version)),
    wishes=st.lists(st.sampled_from((Wish(), Wish(6881), Wish(0, 1, at_public=True))), min_size=1),
    copies=st.integers(1, 4),
)
def test_no_server_makes_it_send_much_or_believe_what_cannot_be(
    seed: int, version: Version, wishes: list[Wish], copies: int
) -> None:
    """Answers that are changed, repeated and reordered: the requests stay few."""
    draw = random.Random(seed)  # noqa: S311 - for a test
    world = World(Plan(version, 60, tuple(wishes[:5])), {"at_public": draw.random() < 0.5})
    honest = world.server.answers

    def hostile(message: bytes, client: str) -> Iterable[bytes]:
        world.server.settings |= {
            "result": draw.choice((0, 0, 0, 0, 1, 2, 3, 9)),
            "lifetime": draw.choice((0, 1, 10, 60, 4_000_000_000)),
            "differ": draw.random() < 0.3,
            "since": world.now - draw.randrange(10000),
        }
        found = [mutated(it, draw) for it in honest(message, client) for _ in range(copies)]
        draw.shuffle(found)
        return found

    world.server.answers = hostile  # type: ignore[assignment,method-assign]
    world.run(900)
    # At most each mapping by itself once in 7.5 s, and 9 times after each fall of the epoch.
    assert world.sent < 10 * len(wishes[:5]) * 2 * (900 / BETWEEN_RESETS)
    for at, ports in world.changes:
        assert len(ports) <= len(wishes)
        for lease in ports:
            assert 1 <= lease.public <= 65535
            assert at < lease.until <= at + 60
