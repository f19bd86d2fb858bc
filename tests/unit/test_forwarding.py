"""The service of forwarded ports: what becomes of what a server gives, and of a process that fails.

Forwarders here are scripts; the real one runs against a whole server on loopback.
"""

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_interface
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import NetworkError, ProcessError
from gateway.model import Config, HostPort, PortRange, Protocol, Secret, Tunnel
from gateway.model.forwarding import ForwarderKind, Forwarding
from gateway.model.lease import Connection, Lease
from gateway.model.port_client import ClientKind, ClientUrl, PortClient
from gateway.policy.events import Leased
from gateway.policy.forwarding import kept_closed, plan_for
from gateway.policy.mapped import Granted, PortProblem, Wish
from gateway.policy.port_problems import TEXTS, Found, explained
from gateway.policy.portmap import Version
from gateway.providers.asked import gateway_for, looks_like_proton
from gateway.services.ports import mapper, service
from gateway.services.ports.forwarder import Forwarder, Surroundings
from gateway.services.ports.mapper import PortMapper
from gateway.services.ports.mapping_lines import line_of, plan_of, read, words_of
from gateway.services.ports.service import Means, PortForwarding
from gateway.system.child import Restart
from gateway.system.netns import OWN
from tests.lab import port_server
from tests.scenarios import IPV4_ONLY

Replace = Callable[[ModuleType, str], None]

pytestmark = pytest.mark.promise("P9")

WANTED = Forwarding(ForwarderKind.NATPMP, status_file="")
PLAN = plan_for(WANTED)
NOW = 1000.0


def granted(public: int, arriving: int = 0, index: int = 0, until: float = NOW + 600) -> Granted:
    """Return what a server has given."""
    return Granted(index, public, arriving or public, until)


# -- who is asked, for what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "dns", "asked"),
    [
        (("10.64.0.2/32",), ("10.64.0.1",), "10.64.0.1"),
        (("10.64.0.2/32",), ("1.1.1.1", "10.64.0.53"), "10.64.0.53"),
        (("10.64.7.2/16",), (), "10.64.0.1"),
        (("10.64.0.2/32",), ("1.1.1.1",), None),
        (("10.64.0.1/24",), (), None),
        (("fd00::2/64",), (), None),
        (("10.64.0.2/32",), ("127.0.0.1",), None),
    ],
)
def test_the_host_that_is_asked_follows_from_the_tunnel(
    addresses: tuple[str, ...], dns: tuple[str, ...], asked: str | None
) -> None:
    """Unless the user names it; Proton VPN's is always the same."""
    tunnel = replace(
        IPV4_ONLY,
        addresses=tuple(map(ip_interface, addresses)),
        dns=tuple(map(ip_address, dns)),
    )
    found = gateway_for(WANTED, tunnel)
    assert (str(found) if found else None) == asked
    named = replace(WANTED, gateway=IPv4Address("10.9.9.9"))
    assert gateway_for(named, tunnel) == IPv4Address("10.9.9.9")
    proton = replace(WANTED, kind=ForwarderKind.PROTONVPN)
    assert gateway_for(proton, tunnel) == IPv4Address("10.2.0.1")


def test_a_tunnel_of_proton_vpn_is_known_by_its_addresses() -> None:
    """Both of them: its own and its resolver's."""
    assert looks_like_proton(IPV4_ONLY)
    assert not looks_like_proton(replace(IPV4_ONLY, dns=()))


def test_what_is_asked_for() -> None:
    """Of Proton VPN as it says; of others the port where workloads listen, or a former one."""
    proton = replace(WANTED, kind=ForwarderKind.PROTONVPN, count=2)
    plan = plan_for(proton, (40123,))
    assert (plan.version, plan.lifetime) == (Version.NATPMP, 60)
    assert plan.wishes == (Wish(0, 40123, at_public=True), Wish(1, 1, at_public=True))
    several = replace(WANTED, kind=ForwarderKind.PCP, count=3, listening=(6881,))
    plan = plan_for(several, (40123, 40124))
    assert (plan.version, plan.lifetime) == (Version.PCP, 600)
    assert plan.wishes == (Wish(6881, 40123), Wish(40124, 40124), Wish())


@pytest.mark.parametrize("port", [22, 53, 1023, 5353, 9999, 8080, 8085, 9091])
def test_ports_with_another_use_here_are_not_opened_by_a_server(port: int) -> None:
    """What listens there is meant for others. Control: one without."""
    config = Config(
        (IPV4_ONLY,),
        input_ports=(PortRange(Protocol.TCP, 8080, 8090),),
        health_server=HostPort("", 9999),
        port_client=PortClient(
            ClientKind.TRANSMISSION, ClientUrl(ip_address("127.0.0.1"), 9091), "", Secret("")
        ),
    )
    assert kept_closed(config, (40000, port))
    assert not kept_closed(config, (40000, 8091))


def test_every_problem_has_words_and_something_to_do() -> None:
    """For Proton VPN, most of all, how the key has to be made."""
    for problem in PortProblem:
        assert problem in TEXTS
        for kind in ForwarderKind:
            found = explained((), problem, replace(WANTED, kind=kind), "10.2.0.1")
            assert found.text
            assert found.remedy
            assert "{" not in found.text + found.remedy
    refused = explained(
        (), PortProblem.NOT_AUTHORIZED, replace(WANTED, kind=ForwarderKind.PROTONVPN), "10.2.0.1"
    )
    assert "NAT-PMP" in refused.remedy


# -- what the process says ------------------------------------------------------------------------


def test_a_line_says_what_there_is() -> None:
    """And a plan is what it was."""
    line = line_of((granted(40123, 30000),), PortProblem.FEWER, NOW)
    assert line == "ports 0:40123:30000:600.0 problem fewer_ports"
    said = read(line, PLAN, NOW)
    assert said
    assert (said.ports, said.problem) == ((granted(40123, 30000),), PortProblem.FEWER)
    for plan in (PLAN, plan_for(replace(WANTED, kind=ForwarderKind.PROTONVPN, count=3))):
        assert plan_of(words_of(plan)) == plan


@pytest.mark.parametrize(
    "line",
    [
        *("", "ports", "ports problem", "ports problem what", "ports problem - ", "Traceback"),
        *("ports 0:0:1:5 problem -", "ports 0:65536:1:5 problem -", "ports 1:5:5:5 problem -"),
        *("ports 0:5:5:-5 problem -", "ports 0:5:5:5 0:6:6:5 problem -"),
        "ports 0:5:5:1e9 problem -",
    ],
)
def test_a_line_that_no_sound_process_writes_is_nothing(line: str) -> None:
    """The process may have been taken over."""
    assert read(line, PLAN, NOW) is None


@given(st.one_of(st.text(), st.from_regex(r"ports( \d:\d{1,6}:\d{1,6}:\d{1,6})* problem -")))
def test_no_line_is_more_than_was_asked_for(line: str) -> None:
    """No port lasts longer, and there are not more."""
    if said := read(line, PLAN, NOW):
        assert len(said.ports) <= 1
        assert all(it.until <= NOW + PLAN.lifetime for it in said.ports)


# -- the service ----------------------------------------------------------------------------------


@dataclass
class Script:
    """A forwarder that does what a test says, on and on."""

    around: Surroundings
    work: Callable[[Callable[[Found], None]], Awaitable[None]]
    starts: int = 0

    async def run(self, take: Callable[[Found], None]) -> None:
        """Do it, then stay."""
        self.starts = 1
        await self.work(take)
        await asyncio.Event().wait()


@dataclass
class Site:
    """A service with scripted forwarders."""

    config: Config = field(default_factory=lambda: Config((IPV4_ONLY,), forwarding=WANTED))
    found: list[Found] = field(default_factory=list)
    fails: bool = False
    cannot_redirect: str = ""
    now: float = NOW

    def __post_init__(self) -> None:
        self.leased: list[Leased] = []
        self.made: list[Surroundings] = []
        means = Means(OWN, {}, lambda: self.now, self.lease, self.make, self.cannot_redirect)
        self.service = PortForwarding(self.config, means)

    def lease(self, event: Leased) -> None:
        """Do as the loop does."""
        self.leased.append(event)
        self.service.follow(Connection(event.tunnel, event.leases))

    def make(self, around: Surroundings) -> Forwarder:
        """Return a forwarder that reports what is found, one after the other."""
        self.made.append(around)

        async def work(take: Callable[[Found], None]) -> None:
            if self.fails:
                raise NetworkError("no socket", "10.2.0.1")
            for found in self.found:
                take(found)

        return Script(around, work)

    @property
    def leases(self) -> tuple[Lease, ...]:
        """What was leased last."""
        return self.leased[-1].leases if self.leased else ()

    def during(self, work: Callable[[], Awaitable[None]], tunnel: Tunnel = IPV4_ONLY) -> "Site":
        """Run the service while `work` lasts."""

        async def main() -> None:
            running = asyncio.create_task(self.service.run())
            self.service.follow(Connection(tunnel, ()))
            await asyncio.sleep(0.05)
            await work()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

        asyncio.run(main())
        return self


async def nothing() -> None:
    """Wait for no more."""


def test_what_a_server_gives_becomes_a_lease() -> None:
    """And the report says so."""
    site = Site(found=[Found((granted(40123),))]).during(nothing)
    assert site.leases == (Lease(40123, 40123, NOW + 600),)
    report = site.service.report()
    assert (report.is_running, report.problem, report.text) == (True, "", "port 40123")
    assert report.name == "port forwarding"


def test_a_line_that_says_the_same_again_leads_to_one_event() -> None:
    """One for a longer time is."""
    longer = granted(40123, until=NOW + 645)
    found = [Found((it,)) for it in (granted(40123), granted(40123, until=NOW + 600.1), longer)]
    site = Site(found=found).during(nothing)
    assert [it.leases[0].until for it in site.leased] == [NOW + 600, NOW + 645]


def test_what_arrives_at_another_port_is_redirected() -> None:
    """To the one where workloads listen; with Proton VPN from the public port."""
    listening = replace(WANTED, kind=ForwarderKind.PROTONVPN, listening=(6881,), count=2)
    found = [Found((granted(40123), granted(40124, index=1)))]
    site = Site(Config((IPV4_ONLY,), forwarding=listening), found).during(nothing)
    assert site.leases == (
        Lease(40123, 6881, NOW + 600, arriving=40123),
        Lease(40124, 40124, NOW + 600),
    )
    site = Site(found=[Found((granted(40123, 30000),))]).during(nothing)
    assert site.leases == (Lease(40123, 40123, NOW + 600, arriving=30000),)
    site = Site(found=site.found, cannot_redirect="no nat").during(nothing)
    assert site.leases == ()
    assert "no nat" in site.service.report().problem


def test_a_port_that_has_another_use_is_refused_with_the_reason() -> None:
    """Unless it is the user who says that workloads listen there."""
    site = Site(found=[Found((granted(9999),))]).during(nothing)
    assert site.leases == ()
    report = site.service.report()
    assert "9999" in report.problem
    assert report.remedy
    wanted = replace(WANTED, listening=(9999,))
    config = Config((IPV4_ONLY,), forwarding=wanted)
    site = Site(config, [Found((granted(40000, 9999),))]).during(nothing)
    assert site.leases == (Lease(40000, 9999, NOW + 600),)


def test_a_port_that_gets_another_use_is_closed_at_once() -> None:
    """A configuration that was read again lists it; control: one that lists another."""
    site = Site(found=[Found((granted(40123),))])

    async def work() -> None:
        for port, count in ((40124, 1), (40123, 0)):
            listed = (PortRange(Protocol.TCP, port, port),)
            site.service.adopt(replace(site.config, input_ports=listed))
            assert len(site.leases) == count

    site.during(work)
    assert "40123" in site.service.report().problem


def test_a_problem_is_reported_with_the_remedy() -> None:
    """As long as there is a connection."""
    site = Site(found=[explained((), PortProblem.NOT_LISTENING, WANTED, "10.2.0.1")])
    site.during(nothing)
    report = site.service.report()
    assert not report.is_running
    assert "nothing that listens" in report.problem
    site.service.follow(None)
    assert site.service.report().problem == ""


def test_a_new_connection_has_a_new_forwarder_that_asks_for_the_same_port() -> None:
    """What is said of the former connection counts no more."""
    other = replace(IPV4_ONLY, listen_port=4)
    site = Site(found=[Found((granted(40123),))])

    async def work() -> None:
        site.service.follow(None)
        await asyncio.sleep(0.05)
        site.service.follow(Connection(other, ()))
        await asyncio.sleep(0.05)

    site.during(work)
    assert [it.tunnel for it in site.made] == [IPV4_ONLY, other]
    assert site.made[1].former == (40123,)
    assert site.leased[-1].tunnel == other


def test_a_forwarder_that_fails_is_made_again_and_its_ports_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server has promised them: an empty first report of the next one changes nothing."""
    monkeypatch.setattr(service, "RESTART", Restart(0.02, 0.1, 30.0))
    site = Site(found=[Found((granted(40123),))])
    count = 0

    def make(around: Surroundings) -> Forwarder:
        nonlocal count
        count += 1
        number = count

        async def work(take: Callable[[Found], None]) -> None:
            if number == 1:
                take(Found((granted(40123),)))
                raise NetworkError("it ended", "x")
            take(Found())

        return Script(around, work)

    site.service._means = replace(site.service._means, make=make)  # noqa: SLF001

    async def work() -> None:
        await asyncio.sleep(0.2)
        assert site.leases == (Lease(40123, 40123, NOW + 600),)

    site.during(work)
    assert count == 2
    assert site.service.report().starts >= 1


def test_one_that_cannot_be_ended_does_not_keep_the_next_connection_waiting() -> None:
    """Its error does not take the place of the cancellation, and the gateway can end as well."""
    other = replace(IPV4_ONLY, listen_port=4)
    site = Site()
    make = site.make

    @dataclass
    class Endless:
        starts = 0

        async def run(self, _: Callable[[Found], None]) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ProcessError("python", "could not be ended")

    def made(around: Surroundings) -> Forwarder:
        make(around)
        return Endless()

    site.service._means = replace(site.service._means, make=made)  # noqa: SLF001

    async def work() -> None:
        site.service.follow(Connection(other, ()))
        await asyncio.sleep(0.05)

    began_at = time.monotonic()
    site.during(work)
    assert time.monotonic() - began_at < 5
    assert [it.tunnel for it in site.made] == [IPV4_ONLY, other]


def test_one_that_always_fails_is_made_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """And why it fails is reported."""
    monkeypatch.setattr(service, "RESTART", Restart(0.02, 10.0, 30.0))
    site = Site(fails=True)

    async def work() -> None:
        await asyncio.sleep(0.5)

    site.during(work)
    assert 3 <= len(site.made) <= 7
    assert "no socket" in site.service.report().problem


def test_it_takes_leave_after_its_ports_are_closed() -> None:
    """And asks for none after that."""
    site = Site(found=[Found((granted(40123),))])

    async def work() -> None:
        assert site.leases
        await site.service.take_leave()
        assert site.leases == ()
        site.service.follow(Connection(replace(IPV4_ONLY, listen_port=4), ()))
        await asyncio.sleep(0.05)

    site.during(work)
    assert len(site.made) == 1


# -- the real forwarder ---------------------------------------------------------------------------


@contextmanager
def served(**settings: object) -> Iterator[tuple[int, port_server.Server, list[dict[str, object]]]]:
    """Serve on loopback; yield the port, the server and the requests."""
    requests: list[dict[str, object]] = []
    server = port_server.Server("-", dict(settings), report=requests.append)
    outlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outlet.bind(("127.0.0.1", 0))
    outlet.settimeout(0.05)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(TimeoutError, ConnectionError):
                message, sender = outlet.recvfrom(2000)
                for answer in server.answers(message, sender[0]):
                    outlet.sendto(answer, sender)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield outlet.getsockname()[1], server, requests
    finally:
        over.set()
        thread.join()
        outlet.close()


def on_loopback(kind: ForwarderKind = ForwarderKind.NATPMP) -> Surroundings:
    """Return surroundings in which the server is at 127.0.0.1."""
    forwarding = replace(WANTED, kind=kind, gateway=IPv4Address("127.0.0.1"))
    tunnel = replace(IPV4_ONLY, addresses=(ip_interface("127.0.0.1/8"),))
    config = Config((tunnel,), forwarding=forwarding)
    return Surroundings(config, tunnel, OWN, lambda: NOW, {})


async def reports(forwarder: PortMapper, wanted: Callable[[Found], bool]) -> Found:
    """Return the first report that is wanted, and end the forwarder."""
    arrived: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

    def take(found: Found) -> None:
        if wanted(found) and not arrived.done():
            arrived.set_result(found)

    running = asyncio.create_task(forwarder.run(take))
    try:
        async with asyncio.timeout(20):
            return await arrived
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("kind", [ForwarderKind.NATPMP, ForwarderKind.PCP])
def test_the_process_asks_reports_and_gives_the_port_back(kind: ForwarderKind) -> None:
    """By each protocol, through its socket alone."""
    with served() as (port, server, requests):
        forwarder = PortMapper(on_loopback(kind), port, "lo")
        found = asyncio.run(reports(forwarder, lambda it: bool(it.ports)))
        (lease,) = found.ports
        assert lease.until == pytest.approx(NOW + 600, abs=1)
        assert {it["version"] for it in requests} == {kind.value}
        deadline = time.monotonic() + 10
        while server.mappings and time.monotonic() < deadline:
            time.sleep(0.01)  # it reads on another thread
        assert not server.mappings
        assert [it["lifetime"] for it in requests[-2:]] == [0, 0]
        assert forwarder.starts == 1


def test_the_process_ends_where_the_gateway_may_not_send_it_a_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without CAP_KILL, because it has another user; it gives the port back even so."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("gateway.system.process.os.killpg", refused)
    with served() as (port, server, _):
        forwarder = PortMapper(on_loopback(), port, "lo")
        assert asyncio.run(reports(forwarder, lambda it: bool(it.ports))).ports
        deadline = time.monotonic() + 10
        while server.mappings and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not server.mappings


def test_a_flood_of_answers_neither_stops_it_nor_takes_the_processor() -> None:
    """They are read at a limited rate."""
    with served(flood=500) as (port, _, requests):
        forwarder = PortMapper(on_loopback(), port, "lo")
        found = asyncio.run(reports(forwarder, lambda it: bool(it.ports)))
        assert found.ports
        assert len(requests) <= 6


def test_a_host_without_a_server_is_reported_as_such() -> None:
    """The kernel says so with an ICMP error."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    forwarder = PortMapper(on_loopback(), port, "lo")
    found = asyncio.run(reports(forwarder, lambda it: bool(it.problem)))
    assert found.problem == PortProblem.NOT_LISTENING


def test_a_socket_that_cannot_be_made_is_an_error_that_says_so() -> None:
    """An address that is not there, a device that is not."""
    around = on_loopback()
    with pytest.raises(NetworkError, match="ask for ports"):
        asyncio.run(PortMapper(around, 5351, "nosuch0").run(lambda _: None))
    gone = replace(around, tunnel=replace(IPV4_ONLY, addresses=(ip_interface("203.0.113.9/32"),)))
    with pytest.raises(NetworkError, match="ask for ports"):
        asyncio.run(PortMapper(gone, 5351, "lo").run(lambda _: None))


def test_a_process_that_is_halted_is_ended(
    monkeypatch: pytest.MonkeyPatch, replaced_process: Replace
) -> None:
    """It writes a line from time to time, so silence means that it hangs."""
    monkeypatch.setattr("gateway.services.ports.mapper.SILENT_FOR", 0.3)
    code = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)"
    replaced_process(mapper, code)
    began_at = time.monotonic()
    with pytest.raises(NetworkError, match="hangs"):
        asyncio.run(PortMapper(on_loopback(), 5351, "lo").run(lambda _: None))
    assert time.monotonic() - began_at < 10


def test_a_process_that_says_anything_else_is_ended(replaced_process: Replace) -> None:
    """With what it said, as far as it is short and printable."""
    code = "print(chr(27) + 'boo' * 100, flush=True)\nwhile 1: 0"
    replaced_process(mapper, code)
    with pytest.raises(NetworkError, match="boo"):
        asyncio.run(PortMapper(on_loopback(), 5351, "lo").run(lambda _: None))


def test_a_process_that_keeps_changing_its_mind_is_ended(replaced_process: Replace) -> None:
    """Each line could lead to other rules."""
    code = (
        "import itertools, time\n"
        "for i in itertools.count():\n"
        "    print(f'ports 0:{20000 + i % 2}:20000:60 problem -', flush=True)\n"
        "    time.sleep(0.02)"
    )
    replaced_process(mapper, code)
    taken: list[Found] = []
    with pytest.raises(NetworkError, match="too much"):
        asyncio.run(PortMapper(on_loopback(), 5351, "lo").run(taken.append))
    assert 10 <= len(taken) <= 30
