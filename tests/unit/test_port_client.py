"""Passing the forwarded port to a torrent client: which port, when, and what people read."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError, ProcessError
from gateway.model import Config, Protocol, Secret
from gateway.model.lease import Connection, Lease
from gateway.model.port_client import ClientKind, ClientUrl, PortClient
from gateway.policy.port_client import (
    ABSENT_EVERY,
    ABSENT_FOR,
    EVERY,
    GOOD,
    LOCKED_OUT,
    LOGIN_EVERY,
    LOGIN_LONGEST,
    LONGEST,
    NAMES,
    Look,
    Outcome,
    Past,
    Wanted,
    problem,
    wanted,
)
from gateway.services.port_client.service import PortPassing
from gateway.settings import assemble
from gateway.system.netns import OWN
from tests.configurations import COMPLETE
from tests.scenarios import DUAL, IPV4_ONLY

HERE = ip_address("127.0.0.1")
CLIENT = PortClient(ClientKind.QBITTORRENT, ClientUrl(HERE, 8080), "admin", Secret("canary-word"))
LISTED = replace(CLIENT, listed=51413)
OWN4, OWN6 = (next(it.ip for it in DUAL.addresses if it.version == v) for v in (4, 6))


def lease(port: int, listening: int, **changes: Any) -> Lease:
    """Return a lease that ends at some time."""
    return Lease(port, listening, until=100.0, **changes)


@pytest.mark.parametrize(
    ("client", "leases", "expected"),
    [
        (CLIENT, (), None),
        (CLIENT, (lease(40000, 51000),), (51000, OWN4)),
        (CLIENT, (lease(40000, 40000, version=6),), (40000, OWN6)),
        (CLIENT, (lease(1, 1, protocols=(Protocol.UDP,)), lease(2, 2)), (2, OWN4)),
        (CLIENT, (lease(1, 1, protocols=(Protocol.UDP,)),), (1, OWN4)),
        (LISTED, (), (51413, OWN4)),
        (None, (lease(40000, 40000),), None),
    ],
)
def test_the_client_gets_the_port_at_which_packets_arrive(
    client: PortClient | None, leases: tuple[Lease, ...], expected: tuple[int, object] | None
) -> None:
    """That of the first lease for TCP, or the listed one."""
    found = wanted(client, Connection(DUAL, leases))
    assert (found and (found.port, *found.addresses)) == expected
    assert wanted(client, None) is None


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("kind", ClientKind)
def test_every_problem_has_a_remedy_that_names_the_client(
    kind: ClientKind, outcome: Outcome
) -> None:
    """And braces in what was quoted from the client are only text."""
    what, remedy = problem(kind, "http://127.0.0.1:1", Look(outcome, 51413, "{odd} {0}"))
    assert bool(what) == bool(remedy) == (outcome not in GOOD)
    if what:
        assert NAMES[kind] in what + remedy
        assert "{name}" not in what + remedy


def pauses(outcome: Outcome, times: int) -> list[float]:
    """Return the pauses after so many looks with one outcome."""
    past, found = Past(), []
    for _ in range(times):
        past = past.after(Look(outcome, 1), 0.0)
        found.append(past.pause)
    return found


def test_a_client_is_looked_at_as_often_as_it_makes_sense() -> None:
    """One that is absent soon, one with a problem less and less often."""
    assert set(pauses(Outcome.LISTENING, 50)) == {EVERY}
    assert pauses(Outcome.TAKEN, 6) == [30, 60, 120, 240, LONGEST, LONGEST]
    assert pauses(Outcome.TAKEN, 5000)[-1] == LONGEST
    absent = pauses(Outcome.ABSENT, ABSENT_FOR + 2)
    assert absent == [ABSENT_EVERY] * ABSENT_FOR + [EVERY, EVERY]
    assert set(pauses(Outcome.REFUSED, 9)) == {EVERY}


@pytest.mark.parametrize("outcome", sorted(LOCKED_OUT))
def test_a_refused_login_is_tried_again_after_an_hour_or_a_new_start(outcome: Outcome) -> None:
    """QBittorrent bans an address after five."""
    now, refused = 1000.0, Look(outcome, 1, seen=(7,))
    past = Past().after(refused, now)
    assert past.unless(now + LOGIN_EVERY - 1) == (7,)
    assert past.after(None, now).unless(now + 1) == (7,), "nothing was tried"
    assert past.unless(now + LOGIN_EVERY) is None
    logins = []
    for _ in range(2000):
        past = past.after(refused, now)
        logins.append(past.login_at - now)
    assert logins[:3] == [3 * LOGIN_EVERY, 9 * LOGIN_EVERY, LOGIN_LONGEST]
    assert max(logins) == LOGIN_LONGEST
    gone = past.after(Look(Outcome.ABSENT, 1), now)
    assert gone.unless(now) is None
    assert gone.refusals == past.refusals, "a client that is not there has accepted nothing"
    assert past.after(Look(Outcome.LISTENING, 1), now).refusals == 0


@dataclass
class Talk:
    """A talk whose looks come from a list, the last one again and again."""

    looks: Sequence[Look | Exception | None]
    asked: list[tuple[Wanted, tuple[int, ...] | None]] = field(default_factory=list)
    starts: int = 1
    stopped: bool = False

    async def look(self, wanted: Wanted, unless: tuple[int, ...] | None) -> Look | None:
        """Return the next look."""
        found = self.looks[min(len(self.asked), len(self.looks) - 1)]
        self.asked.append((wanted, unless))
        if isinstance(found, Exception):
            raise found
        return found

    async def stop(self) -> None:
        """Note that it was stopped."""
        self.stopped = True


def run(talk: Talk, *steps: Callable[[PortPassing], object]) -> PortPassing:
    """Run the service with `talk`, and each step once what follows from the former is done."""

    async def main() -> PortPassing:
        service = PortPassing(CLIENT, OWN, lambda: 0.0, talk)
        task = asyncio.ensure_future(service.run())
        for step in steps:
            await asyncio.sleep(0)
            step(service)
            for _ in range(20):
                await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        return service

    return asyncio.run(main())


UP = Connection(IPV4_ONLY, (lease(40000, 51000),))
WELL = Look(Outcome.LISTENING, 51000, changed=True)


def up(service: PortPassing) -> None:
    """Have a connection with a lease."""
    service.follow(UP)


def test_without_a_port_nothing_is_asked() -> None:
    """And the report says what it waits for."""
    talk = Talk([WELL])
    service = run(talk, lambda it: it.follow(Connection(IPV4_ONLY)), lambda it: it.follow(None))
    assert talk.asked == []
    assert talk.stopped
    assert service.report().is_running
    assert "as soon as there is one" in service.report().text


def test_a_port_is_passed_on_and_followed_until_the_tunnel_is_lost() -> None:
    """Each change leads to a look at once."""
    talk = Talk([WELL])
    other = replace(UP, leases=(lease(40001, 51001),))
    service = run(talk, up, lambda it: it.follow(other), lambda it: it.follow(None))
    assert [now.port for now, _ in talk.asked] == [51000, 51001]
    assert service.report().problem == ""
    assert service.report().starts == 1


def test_a_problem_is_reported_with_its_remedy() -> None:
    """It is no longer running, by its report; and an error of the process is one too."""
    service = run(Talk([Look(Outcome.TAKEN, 51000)]), up)
    assert not service.report().is_running
    assert "51000 is taken" in service.report().problem
    assert service.report().remedy
    service = run(Talk([ProcessError("x" * 9000, "failed")]), up)
    assert "failed" in service.report().problem
    assert len(service.report().problem) <= 200


def test_another_password_is_tried_at_once_and_the_same_one_is_not() -> None:
    """By any change that wakes it."""
    refused = Look(Outcome.REFUSED, 51000, seen=(7,))
    talk = Talk([refused])
    corrected = replace(CLIENT, password=Secret("canary-word-2"))
    run(
        talk,
        up,
        up,
        lambda it: it.adopt(Config((IPV4_ONLY,), port_client=CLIENT)),
        lambda it: it.adopt(Config((IPV4_ONLY,), port_client=corrected)),
    )
    assert [unless for _, unless in talk.asked] == [None, (7,), (7,), None]
    assert talk.asked[-1][0].client == corrected
    assert "canary" not in repr(talk.asked)


def load(tmp_path: Path, **variables: str) -> Config:
    """Return the configuration with these variables."""
    return assemble.load({**COMPLETE, **variables}, tmp_path).config


def faults(tmp_path: Path, **variables: str) -> list[str]:
    """Return what is wrong with these variables."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **variables)
    return [str(it) for it in caught.value.problems]


ONE = {"FIREWALL_VPN_INPUT_PORTS": "51413"}


@pytest.mark.parametrize(
    ("kind", "variables", "url", "user", "password"),
    [
        ("qbittorrent", {}, "http://127.0.0.1:8080", "", ""),
        ("Transmission", {}, "http://127.0.0.1:9091/transmission", "", ""),
        ("deluge", {}, "http://127.0.0.1:8112", "", "deluge"),
        ("qbittorrent", {"PASSWORD": "p"}, "http://127.0.0.1:8080", "admin", "p"),
        ("qbittorrent", {"URL": "http://localhost"}, "http://127.0.0.1:80", "", ""),
        ("qbittorrent", {"URL": "https://[::1]:8443/qb/"}, "https://[::1]:8443/qb", "", ""),
        (
            "transmission",
            {"URL": "http://127.0.0.2:9091/transmission/rpc", "USER": "u", "PASSWORD": "p"},
            *("http://127.0.0.2:9091/transmission", "u", "p"),
        ),
        (
            "transmission",
            {"URL": "http://127.0.0.1:91"},
            "http://127.0.0.1:91/transmission",
            "",
            "",
        ),
        ("deluge", {"URL": "http://127.0.0.1:81/json"}, "http://127.0.0.1:81", "", "deluge"),
    ],
)
def test_what_is_not_set_is_what_the_client_has_by_itself(
    tmp_path: Path, kind: str, variables: dict[str, str], url: str, user: str, password: str
) -> None:
    """And a URL may be one that was copied from a browser."""
    given = {f"FORWARDED_PORT_CLIENT_{name}": text for name, text in variables.items()}
    client = load(tmp_path, FORWARDED_PORT_CLIENT=kind, **ONE, **given).port_client
    assert client is not None
    found = (str(client.url), client.user, client.password.reveal(), client.listed)
    assert found == (url, user, password, 51413)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"FIREWALL_VPN_INPUT_PORTS": "1,2"}, "lists more than one"),
        ({"FIREWALL_VPN_INPUT_PORTS": "1-2/tcp"}, "lists more than one"),
        ({"FIREWALL_VPN_INPUT_PORTS": ""}, "lists none"),
        ({"FORWARDED_PORT_CLIENT_URL": "http://192.168.1.5"}, "neither on loopback nor in"),
        ({"FORWARDED_PORT_CLIENT_USER": "u"}, "has no password"),
        (
            {"FORWARDED_PORT_CLIENT": "transmission", "FORWARDED_PORT_CLIENT_PASSWORD": "p"},
            "has no user",
        ),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, variables: dict[str, str], text: str) -> None:
    """With what to do."""
    (found,) = faults(tmp_path, **{"FORWARDED_PORT_CLIENT": "qbittorrent", **ONE, **variables})
    assert text in found


LEASED = {"VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_PROVIDER": "natpmp"}


def test_a_port_that_the_server_leases_comes_before_listed_ones(tmp_path: Path) -> None:
    """Any number may be listed then; but not another port where packets arrive."""
    leased = {**LEASED, "FORWARDED_PORT_CLIENT": "deluge", "FIREWALL_VPN_INPUT_PORTS": "1-9"}
    client = load(tmp_path, **leased).port_client
    assert client is not None
    assert client.listed is None
    (found,) = faults(tmp_path, **leased, VPN_PORT_FORWARDING_LISTENING_PORTS="6881")
    assert "announce a port that the internet cannot reach" in found


def test_one_port_for_both_protocols_is_one_port(tmp_path: Path) -> None:
    """As people write it; and a client in a listed subnet can be reached."""
    client = load(
        tmp_path,
        FORWARDED_PORT_CLIENT="qbittorrent",
        FORWARDED_PORT_CLIENT_URL="http://192.168.1.5:8080",
        FIREWALL_VPN_INPUT_PORTS="51413/tcp,51413/udp",
        FIREWALL_OUTBOUND_SUBNETS="192.168.1.0/24",
    ).port_client
    assert client is not None
    assert client.listed == 51413


def test_variables_without_a_client_are_reported(tmp_path: Path) -> None:
    """A user who has forgotten the main one learns that."""
    given = {"FORWARDED_PORT_CLIENT_PASSWORD": "canary-word"}
    loaded = assemble.load({**COMPLETE, **given}, tmp_path)
    assert loaded.config.port_client is None
    (notice,) = [it for it in loaded.notices if "FORWARDED" in it.where]
    assert "has no effect without FORWARDED_PORT_CLIENT" in notice.message
