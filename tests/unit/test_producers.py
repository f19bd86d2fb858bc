"""No task can fail unnoticed: whichever does, the namespace is closed and the error is raised."""

import asyncio
import errno
import gc
import os
import resource
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.daemon.inbox import Inbox
from gateway.daemon.jobs import Jobs
from gateway.daemon.producers import keep_listening
from gateway.daemon.resting import Rest
from gateway.errors import NetworkError
from gateway.model import Config, HostPort
from gateway.policy.actions import Work
from gateway.policy.events import Changed, Event, Failed, Sampled, Stop, Tick
from gateway.policy.facts import TunnelStatus
from gateway.policy.situation import Situation
from gateway.policy.timing import Moment
from gateway.services.health.board import Board
from gateway.services.health.server import HealthServer
from gateway.system.watch import watch
from healthcheck.__main__ import ask
from tests.fakes.world import World
from tests.scenarios import LISTED
from tests.unit.test_supervisor import BY_NAME, FIRST, ONE

FAULT = RuntimeError("a fault")
"""An unforeseen error: none of our errors, and none of the kernel's."""


def ends_closed(world: World, *steps: tuple[float, Callable[[], None]]) -> None:
    """Run `world` until its fault; the rules are open at first and closed at the end."""
    with pytest.raises(RuntimeError, match="a fault"):
        world.run(*steps, until=120)
    assert world.firewall.summary == "closed"
    assert world.clock.now < world.since(119), "at once, and not at the stop"


@pytest.mark.promise("P1")
@pytest.mark.parametrize("part", ["status", "fault of", "probe"])
def test_a_job_of_a_connected_gateway_that_fails_ends_it_closed(part: str) -> None:
    """The sampler and the prober, whose calls the kernel or the server answer."""
    world = World(ONE)
    ends_closed(world, (5, lambda: world.fails.update({part: [FAULT]})))
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


@pytest.mark.promise("P1")
@pytest.mark.parametrize("part", ["open list", "fetch"])
def test_a_job_on_the_way_to_a_list_that_fails_ends_it_closed(part: str) -> None:
    """Its socket, and the process that reads it."""
    world = World(Config((LISTED,)))
    world.names["api.example"] = (ip_address(FIRST),)
    world.fails[part] = [FAULT]
    ends_closed(world)
    assert "facts" in world.transcript, "control: it had begun"


@pytest.mark.promise("P1")
def test_the_search_for_the_largest_packet_that_fails_ends_it_closed() -> None:
    """It begins with the connection."""
    world = World(ONE)
    world.fails["echo"] = [FAULT]
    ends_closed(world)
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


@pytest.mark.promise("P1")
@pytest.mark.parametrize("part", ["up", "resolv.conf", "open", "ask"])
def test_a_job_on_the_way_to_a_connection_that_fails_ends_it_closed(part: str) -> None:
    """The look-up, the builder, and the writer of the resolver file within it."""
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address(FIRST),)
    world.fails[part] = [FAULT]
    ends_closed(world)
    assert "facts" in world.transcript, "control: it had begun"


@pytest.mark.promise("P1")
def test_the_writer_of_the_resolver_file_that_fails_while_connected_ends_it_closed() -> None:
    """It tries again next to the loop while names do not resolve."""
    world = World(ONE)
    refused = NetworkError("read-only", "/etc/resolv.conf")
    world.fails["resolv.conf"] = [refused, refused, FAULT]
    ends_closed(world)
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


def test_an_error_between_two_ticks_does_not_stop_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shortage of memory while all is compared at rest: the turn that follows does the same."""
    world, failures = World(ONE), [MemoryError()]
    world.traffic = False
    rest = Rest.lasts

    def lasts(self: Rest, situation: Situation, moment: Moment) -> bool:
        if world.clock.now > world.since(41) and failures:
            raise failures.pop()
        return rest(self, situation, moment)

    monkeypatch.setattr(Rest, "lasts", lasts)
    world.run(until=120)
    assert not failures, "control: it was raised"
    assert all(b.at - a.at < 5 for a, b in pairwise(world.published))
    assert world.at(119).healthy


@pytest.mark.promise("P1")
def test_a_question_to_a_resolver_that_fails_ends_it_closed() -> None:
    """It begins with the connection, too."""
    (tunnel,) = ONE.tunnels
    world = World(Config((replace(tunnel, dns=(ip_address("127.0.0.1"),)),)))
    world.fails["ask resolvers"] = [FAULT]
    ends_closed(world)
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


@pytest.mark.promise("P1")
@pytest.mark.parametrize("event", [Tick, Changed])
def test_the_clock_and_the_collector_of_reports_end_the_gateway_closed(
    event: type[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they call is the inbox, which takes nothing more from them."""
    world, is_broken = World(ONE), False
    note = Inbox.note

    def broken(inbox: Inbox, noted: Stop | Changed | Tick) -> None:
        if is_broken and isinstance(noted, event):
            raise FAULT
        note(inbox, noted)

    def breaks() -> None:
        nonlocal is_broken
        is_broken = True
        world.supervisor.kernel_changed()

    monkeypatch.setattr(Inbox, "note", broken)
    ends_closed(world, (5, breaks))
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


def fault(*_: object) -> None:
    """Be the dependency of a producer, and fail."""
    raise FAULT


async def later_watching() -> None:
    """Follow the kernel's reports, and fail at the first, as `hold_links` might."""
    await asyncio.sleep(5)
    await watch(fault)


async def later_listening() -> None:
    """Start a health server that fails."""
    await asyncio.sleep(5)
    server = HealthServer(Board(lambda: 0.0))
    server.start = fault  # type: ignore[method-assign]
    await keep_listening(server, HostPort("127.0.0.1", 0), 1.0)


@pytest.mark.promise("P1")
@pytest.mark.parametrize("run", [later_watching, later_listening])
def test_a_producer_of_the_composition_root_that_fails_ends_the_gateway_closed(
    run: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """The listener for netlink events, and the starter of the health server."""
    world = World(ONE)
    world.others["other"] = run
    ends_closed(world)
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


def test_a_health_address_that_stays_taken_is_logged_once() -> None:
    """It is tried all the time, and another problem is logged again."""
    problems = ["taken", "taken", "taken", "not there", "taken", ""]
    wanted = iter(problems)

    def start(address: HostPort) -> None:
        del address
        if problem := next(wanted):
            raise NetworkError(problem)

    server = HealthServer(Board(lambda: 0.0))
    server.start = start  # type: ignore[method-assign]
    with capture_logs() as logs:
        asyncio.run(keep_listening(server, HostPort("127.0.0.1", 9999), 0.0))
    assert [it["problem"] for it in logs] == ["taken", "not there", "taken"]
    assert next(wanted, None) is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_health_server_that_lacks_descriptors_is_started_later() -> None:
    """A thread that has died of it would keep the port, and answer nothing."""
    server, now = HealthServer(Board(lambda: 1.0)), resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = HostPort("127.0.0.1", free.getsockname()[1])
    first = os.open("/dev/null", os.O_RDONLY)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 1, now[1]))
    try:
        with pytest.raises(NetworkError) as raised:
            server.start(address)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, now)
    assert raised.value.errno == errno.EMFILE
    del raised
    gc.collect()  # what the library has left of a loop warns of itself
    server.start(address)
    assert b"503" in ask(address.host, address.port)


@pytest.mark.promise("P1")
def test_a_producer_that_fails_during_a_shortage_is_closed_too() -> None:
    """The cancelled loop keeps trying, for as long as a stop may take."""
    world = World(ONE)
    not_now = NetworkError("not now", "rules", errno.EAGAIN)

    async def later() -> None:
        await asyncio.sleep(5)
        world.fails["rules"] = [not_now] * 20
        fault()

    world.others["other"] = later
    ends_closed(world)
    assert world.transcript.count("rules closed") > 20, "control: there was a shortage"


async def failing() -> None:
    """Be a task that fails."""
    fault()


def lost_task() -> None:
    """Start a task that nothing awaits, as the user's commands are."""
    asyncio.ensure_future(failing())  # noqa: RUF006 - that is the point


def lost_callback() -> None:
    """Have a callback fail, as the one of a signal might."""
    asyncio.get_running_loop().call_soon_threadsafe(fault)


@pytest.mark.promise("P1")
@pytest.mark.parametrize("lose", [lost_task, lost_callback])
def test_an_error_that_nothing_awaits_ends_the_gateway_closed(lose: Callable[[], None]) -> None:
    """Tasks of the user's commands and of child processes, and the callback of a signal."""
    world = World(ONE)
    ends_closed(world, (5, lose))
    assert f"rules open {FIRST}" in world.transcript, "control: it was open"


def test_an_error_of_the_kernel_that_nothing_awaits_is_logged_and_no_more() -> None:
    """A pipe of a command that breaks is not a fault of the gateway."""
    world = World(ONE)

    def breaks() -> None:
        context = {"message": "a pipe", "exception": BrokenPipeError()}
        asyncio.get_running_loop().call_exception_handler(context)

    world.run((5, breaks), until=20)
    assert world.at(19).healthy


def test_every_task_of_the_gateway_is_killed_by_a_test_of_this_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new one gets a test here."""
    names: set[str | None] = set()
    create = asyncio.TaskGroup.create_task

    def spied(group: asyncio.TaskGroup, run: Any, *, name: str | None = None) -> Any:
        names.add(name)
        return create(group, run, name=name)

    monkeypatch.setattr(asyncio.TaskGroup, "create_task", spied)
    world = World(BY_NAME)
    world.names["vpn.example"] = (ip_address(FIRST),)
    world.alive.add(FIRST)
    world.fails["resolv.conf"] = [NetworkError("read-only", "/etc/resolv.conf")]
    world.run(until=10)
    listed = World(Config((LISTED,)))
    listed.names["api.example"] = (ip_address(FIRST),)
    listed.run(until=10)
    (tunnel,) = ONE.tunnels
    World(Config((replace(tunnel, dns=(ip_address("127.0.0.1"),)),))).run(until=10)
    jobs = {work.name.lower() for work in Work}
    assert names == {"clock", "kernel reports", "lost errors", *jobs}


def test_the_inbox_merges_what_has_no_content_and_nothing_else() -> None:
    """A flood of changes has one place; a result of work is never overwritten."""

    async def run() -> None:
        inbox = Inbox()
        for _ in range(1000):
            inbox.note(Changed())
            inbox.note(Tick())
        inbox.report(Work.CONNECT, Failed("first"))
        with pytest.raises(RuntimeError, match="twice"):
            inbox.report(Work.CONNECT, Failed("second"))
        inbox.report(Work.SAMPLE, Sampled(TunnelStatus(0, 0, ())))
        inbox.withdraw(Work.SAMPLE)
        inbox.note(Stop())
        inbox.note(Stop())
        got = [await inbox.get() for _ in range(4)]
        assert got == [Stop(), Changed(), Tick(), Failed("first")], "a stop comes first"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await inbox.get()

    asyncio.run(run())


async def ends_late(order: list[str]) -> Event:
    """Note the end of a job that takes a moment to end after it was cut off."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        order.append("first ends")
    return Failed("first")


def test_an_abandoned_job_reports_nothing_and_its_successor_waits_for_its_end() -> None:
    """The interface is not built twice at once, and no former result counts."""
    order: list[str] = []

    async def second() -> Event:
        order.append("second begins")
        return Failed("second")

    async def run() -> None:
        inbox = Inbox()
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(group, inbox)
            jobs.start(Work.CONNECT, lambda: ends_late(order))
            await asyncio.sleep(0)
            jobs.abandon()
            jobs.start(Work.CONNECT, second)
            assert await inbox.get() == Failed("second")
            await jobs.ended(1.0)

    asyncio.run(run())
    assert order == ["first ends", "second begins"]


def test_a_job_waits_for_all_that_were_abandoned_before_it() -> None:
    """Also for one whose successor was abandoned before it could begin."""
    order: list[str] = []

    def begins(name: str) -> Callable[[], Coroutine[Any, Any, Event]]:
        async def job() -> Event:
            order.append(f"{name} begins")
            return Failed(name)

        return job

    async def run() -> None:
        inbox = Inbox()
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(group, inbox)
            jobs.start(Work.CONNECT, lambda: ends_late(order))
            await asyncio.sleep(0)
            jobs.abandon()
            jobs.start(Work.CONNECT, begins("second"))
            await asyncio.sleep(0)
            jobs.abandon()
            jobs.start(Work.CONNECT, begins("third"))
            assert await inbox.get() == Failed("third")
            await jobs.ended(1.0)

    asyncio.run(run())
    assert order == ["first ends", "third begins"]
