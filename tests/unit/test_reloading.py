"""Reading again in a child, and what the loop makes of it: nothing blocks, nothing opens."""

import asyncio
import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.daemon import reloading
from gateway.daemon.inbox import Inbox
from gateway.daemon.reloading import ATTEMPTS, Reloader
from gateway.errors import FirewallError, NetworkError
from gateway.model import Config, PortRange, Protocol, Secret
from gateway.policy.events import NotReloaded, Reloaded, Stop
from gateway.policy.limits import Limit, LimitCode
from gateway.policy.marks import with_secret_mark
from gateway.policy.reload import Fault, Outcome, not_reloaded
from gateway.policy.states import Reason
from gateway.policy.timing import Timing
from gateway.settings import again, assemble
from tests.configurations import COMPLETE, PRIVATE, made_up_key
from tests.fakes.world import World
from tests.unit.test_supervisor import FIRST, ONE, SECOND, TWO, acts, server

Event = Reloaded | NotReloaded
QUICK = Timing(read_again=0.01, read_limit=20.0, retry_first=0.01, retry_last=0.02)
HOLES = replace(ONE, outbound_subnets=(ip_network("192.168.1.0/24"),))
PORT = PortRange(Protocol.TCP, 8080, 8080)


# -- the child ---------------------------------------------------------------------------------


def read(
    environ: Mapping[str, str],
    timing: Timing = QUICK,
    *,
    events: int = 1,
    ask: Callable[[Reloader, int], None] = lambda reloader, _number: reloader.ask(),
) -> list[Event]:
    """Return the events of a reloader that is asked before each of them."""
    reported: list[Event] = []

    async def run() -> None:
        arrived = asyncio.Event()

        def report(event: Event) -> None:
            reported.append(event)
            arrived.set()

        reloader = Reloader(
            environ, lambda it: with_secret_mark(it, 7), report, time.monotonic, timing
        )
        running = asyncio.create_task(reloader.run())
        for number in range(events):
            ask(reloader, number)
            await asyncio.wait_for(arrived.wait(), 30)
            arrived.clear()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(run())
    return reported


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail where a test leaves a child behind."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_fresh_process_reads_what_loading_returns_and_the_marks_are_ours() -> None:
    """With notices in the log, as at the start."""
    environ = {**COMPLETE, "DNS_ADDRESS": "", "VPN_ENDPOINT_IP": "203.0.113.7"}
    before = time.monotonic()
    with capture_logs() as logs:
        [event] = read(environ)
    assert isinstance(event, Reloaded)
    assert event.config == with_secret_mark(assemble.load(environ).config, 7)
    assert before <= event.begun_at <= time.monotonic()
    notices = assemble.load(environ).notices
    shown = [(it["log_level"], it["variable"], it["notice"]) for it in logs]
    assert shown == [(it.weight, it.where, it.message) for it in notices]
    assert {level for level, _, _ in shown} == {"info", "warning"}, "control"


def test_a_file_that_was_replaced_is_read(tmp_path: Path) -> None:
    """By another one of the same name, as an engine does for secrets."""
    file = tmp_path / "key"
    file.write_text(PRIVATE, "ascii")
    environ = {**COMPLETE, "WIREGUARD_PRIVATE_KEY_SECRETFILE": str(file)}
    del environ["WIREGUARD_PRIVATE_KEY"]

    def ask(reloader: Reloader, number: int) -> None:
        new = tmp_path / "new"
        new.write_text(made_up_key(20 + number), "ascii")
        new.rename(file)
        reloader.ask()

    events = read(environ, events=2, ask=ask)
    keys = [it.config.tunnels[0].private_key for it in events if isinstance(it, Reloaded)]
    assert keys == [Secret(made_up_key(20)), Secret(made_up_key(21))]


def test_every_problem_is_in_the_answer_and_in_the_log() -> None:
    """Variable, problem and remedy, and no key."""
    environ = {**COMPLETE, "WIREGUARD_MTU": "9", "FIREWALL_INPUT_PORTS": "http"}
    with capture_logs() as logs:
        [event] = read(environ)
    assert isinstance(event, NotReloaded)
    assert event.answer.outcome is Outcome.REFUSED
    assert {it.variable for it in event.answer.faults} == {"WIREGUARD_MTU", "FIREWALL_INPUT_PORTS"}
    logged = [it for it in logs if it["event"] == "invalid configuration"]
    assert [(it["variable"], it["problem"]) for it in logged] == [
        (it.variable, it.problem) for it in event.answer.faults
    ]
    assert PRIVATE not in str((event, logs))


def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    """Without opening it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    [event] = read({**COMPLETE, "WIREGUARD_PRIVATE_KEY_SECRETFILE": str(fifo)})
    assert isinstance(event, NotReloaded)
    assert event.answer.outcome is Outcome.REFUSED
    assert "is not a regular file" in event.answer.faults[0].problem


def test_a_file_that_does_not_answer_costs_its_time_and_nothing_else(tmp_path: Path) -> None:
    """A lease would keep the next one to open it waiting for 45 s: it is asked again instead."""
    file = tmp_path / "key"
    file.write_text(PRIVATE, "ascii")
    former = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with file.open("r+b") as held:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        began = time.monotonic()
        [event] = read(
            {**COMPLETE, "WIREGUARD_PRIVATE_KEY_SECRETFILE": str(file)},
            replace(QUICK, read_limit=20.0),
        )
        seconds = time.monotonic() - began
    signal.signal(signal.SIGIO, former)
    assert isinstance(event, NotReloaded)
    assert event.answer.outcome is Outcome.FAILED
    problem = event.answer.faults[0].problem
    assert "Resource temporarily unavailable" in problem
    assert str(file) in problem
    assert seconds < 30


def child_that(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `code` run in place of the reading child."""
    monkeypatch.setattr(again, "command", lambda: [sys.executable, "-I", "-c", code])


@pytest.mark.parametrize(
    ("code", "tries"),
    [
        ("import os; os._exit(1)", 1),
        ("import os; os._exit(3)", ATTEMPTS),
        ("import os; os.kill(os.getpid(), 9)", ATTEMPTS),
        ("", 1),
        ("import os; os.ftruncate(3, 0); os.pwrite(3, b'no pickle', 0)", 1),
    ],
    ids=["broken", "short of memory", "killed", "wrote nothing", "wrote nonsense"],
)
def test_a_child_that_fails_is_reported_and_a_shortage_is_tried_again(
    code: str, tries: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A limited number of times; the gateway does not end."""
    child_that(f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); {code or 'pass'}", monkeypatch)
    [event] = read(COMPLETE)
    assert isinstance(event, NotReloaded)
    assert event.answer.outcome is Outcome.FAILED
    assert event.answer.faults[0].problem
    assert len((tmp_path / "tries").read_text("ascii")) == tries
    assert PRIVATE not in str(event)


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortage passes."""
    start, refused = reloading.process.start, []

    def scarce(*args: Any, **options: Any) -> Any:
        if len(refused) < 2:
            refused.append(1)
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*args, **options)

    monkeypatch.setattr(reloading.process, "start", scarce)
    [event] = read(COMPLETE)
    assert isinstance(event, Reloaded)
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("error", "tries", "problem"),
    [
        (OSError(errno.EIO, "no"), 1, f"[Errno {errno.EIO}] no"),
        (MemoryError(), ATTEMPTS, "MemoryError"),
        (RuntimeError("secret"), 1, "reading the configuration: unexpected RuntimeError"),
    ],
    ids=repr,
)
def test_what_cannot_be_started_is_reported_after_waits_that_grow(
    error: Exception, tries: int, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a shortage is tried again, and nothing stays open."""
    called: list[float] = []

    def fail(*_args: Any, **_options: Any) -> Any:
        called.append(time.monotonic())
        raise error

    monkeypatch.setattr(reloading.process, "start", fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    [event] = read(COMPLETE, replace(QUICK, retry_first=0.02, retry_last=0.05))
    assert isinstance(event, NotReloaded)
    assert event.answer.outcome is Outcome.FAILED
    assert event.answer.faults == (Fault("", problem),)
    assert len(called) == tries
    waits = [after - before for before, after in pairwise(called)]
    assert all(
        wait > 0.9 * least for wait, least in zip(waits, (0.02, 0.04, 0.05, 0.05), strict=False)
    )
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert ATTEMPTS == 5


def test_two_readings_have_a_pause_between_them() -> None:
    """However quickly the requests come."""
    events = read(COMPLETE, replace(QUICK, read_again=1.5), events=2)
    first, second = (it.begun_at for it in events if isinstance(it, Reloaded))
    assert second - first >= 1.5


def test_no_second_child_is_started_while_one_cannot_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that waits for a network drive, which not even SIGKILL ends."""
    started: list[int] = []

    class Stuck:
        """A process that does not end."""

        running = True

        def __init__(self) -> None:
            self.exited = asyncio.get_running_loop().create_future()

        async def stop(self) -> None:
            """Fail to end it."""

    def start(*_args: Any, **_options: Any) -> Stuck:
        started.append(1)
        return Stuck()

    monkeypatch.setattr(reloading.process, "start", start)
    events = read(COMPLETE, replace(QUICK, read_limit=0.05), events=2)
    problems = [it.answer.faults[0].problem for it in events if isinstance(it, NotReloaded)]
    assert "not done after" in problems[0]
    assert "the last attempt has not ended" in problems[1]
    assert len(started) == 1


def test_the_memory_and_the_outcome_of_the_child_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The child sets its own resource limits, and reports them here as its outcome."""
    code = (
        "import sys; sys.path[:] = sys.argv[1:]\n"
        "from gateway.settings import again, reading\n"
        "import resource as r\n"
        "def outcome(environ):\n"
        "    limits = [r.getrlimit(it)[0] for it in (r.RLIMIT_FSIZE, r.RLIMIT_AS, r.RLIMIT_CPU)]\n"
        "    return __import__('pickle').dumps(reading._Failed(str(limits), None))\n"
        "again.handed_over = outcome\n"
        "again.main()"
    )
    monkeypatch.setattr(
        again, "command", lambda: [sys.executable, "-I", "-S", "-c", code, *sys.path]
    )
    [event] = read(COMPLETE)
    assert isinstance(event, NotReloaded)
    limits = [again.LARGEST_OUTCOME, again.MOST_MEMORY, again.MOST_PROCESSOR_TIME]
    assert str(limits) in event.answer.faults[0].problem


def test_requests_during_a_reading_share_the_next_one() -> None:
    """And each is answered by a reading that began after it."""
    calls: list[float] = []

    class Counted(Reloader):
        """A reloader that reads nothing."""

        async def _event(self, begun_at: float) -> Event:
            calls.append(begun_at)
            await asyncio.sleep(0.05)
            return NotReloaded(not_reloaded(begun_at, Outcome.FAILED, ()))

    async def run() -> None:
        reloader = Counted({}, lambda it: it, lambda _event: None, time.monotonic, QUICK)
        running = asyncio.create_task(reloader.run())
        reloader.ask()
        await asyncio.sleep(0.02)
        for _ in range(20):
            reloader.ask()
        asked_at = time.monotonic()
        await asyncio.sleep(0.3)
        running.cancel()
        assert len(calls) == 2
        assert calls[1] >= asked_at

    asyncio.run(run())


def test_the_environment_reaches_the_child_by_no_argument() -> None:
    """It may hold keys (P16)."""
    assert not any(PRIVATE in word for word in again.command())
    descriptor = again.file_with({"LARGE": "x" * (1 << 20)})
    assert os.fstat(descriptor).st_size > 1 << 20
    assert os.get_inheritable(descriptor) is False
    os.close(descriptor)


# -- the loop ----------------------------------------------------------------------------------


def reloads(world: World, config: Config) -> Callable[[], None]:
    """Return an action after which `config` has been read."""
    return lambda: world.supervisor.read_again(Reloaded(config, world.clock()))


def test_a_later_reading_takes_the_place_of_one_that_waits_and_a_stop_comes_first() -> None:
    """The queue does not grow."""
    first, second = Reloaded(ONE, 1.0), Reloaded(TWO, 2.0)

    async def run() -> None:
        inbox = Inbox()
        inbox.read_again(first)
        inbox.read_again(second)
        inbox.note(Stop())
        assert [await inbox.get(), await inbox.get()] == [Stop(), second]

    asyncio.run(run())


def test_holes_alone_replace_rules_and_routes_and_touch_no_interface() -> None:
    """In one step, without a state in between."""
    world = World(ONE)
    world.run((5, reloads(world, HOLES)), until=10)
    changes = acts(world)
    after = changes[changes.index("VPN_UP_COMMAND") + 1 : -4]
    assert after == [f"rules open {FIRST}", "routes by the tunnel"]
    assert world.at(9).healthy
    assert world.at(9).reconnects == ()
    assert world.at(9).reload is not None
    assert world.at(9).reloads == (("accepted", 1),)


def test_what_is_the_same_is_not_put_into_force_again() -> None:
    """The answer says so."""
    world = World(ONE)
    world.run((5, reloads(world, ONE)), until=10)
    untouched = World(ONE)
    untouched.run(until=10)
    assert acts(world) == acts(untouched)
    assert world.at(9).reloads == (("unchanged", 1),)


def test_another_server_gets_its_rules_before_its_interface() -> None:
    """And the tunnel is closed first."""
    world = World(ONE)
    world.alive.add(SECOND)
    world.run((5, reloads(world, replace(ONE, tunnels=(server(SECOND),)))), until=10)
    changes = acts(world)
    after = changes[changes.index("VPN_UP_COMMAND") + 1 :][:7]
    assert after == [
        f"rules only {SECOND}",
        "routes nowhere",
        "VPN_DOWN_COMMAND",
        "routes nowhere",
        f"configure {SECOND}:51820",
        "routes by the tunnel",
        f"rules open {SECOND}",
    ]
    assert world.at(9).endpoint == f"{SECOND}:51820"
    assert world.at(9).reconnects == ((Reason.RECONFIGURED, 1),)
    assert world.at(9).switches == 1


def test_a_wrong_configuration_is_reported_while_health_stays_green() -> None:
    """One line in the log, and the count."""
    world = World(ONE)
    answer = not_reloaded(5.0, Outcome.REFUSED, (Fault("X", "no; write yes"),))
    with capture_logs() as logs:
        world.run((5, lambda: world.supervisor.read_again(NotReloaded(answer))), until=10)
    assert world.at(9).healthy
    assert (world.at(9).reload, world.at(9).reloads) == (answer, (("refused", 1),))
    [line] = [it for it in logs if it["event"] == "configuration read again"]
    assert (line["log_level"], line["problem"]) == ("warning", "X: no; write yes")


@pytest.mark.promise("P1")
def test_rules_of_a_new_configuration_that_are_refused_close_the_gateway() -> None:
    """Not the former ones: the configuration is the new one. A corrected one is tried at once."""
    world = World(ONE)

    def begins() -> None:
        world.fails["rules"] = [FirewallError("no"), None] * 1000
        reloads(world, HOLES)()

    def corrects() -> None:
        del world.fails["rules"]
        reloads(world, replace(ONE, input_ports=(PORT,)))()

    world.run((5, begins), (30, corrects), until=40)
    assert (world.at(6).state, world.at(6).reason) == ("locked", Reason.FIREWALL)
    assert not world.at(29).healthy
    assert world.at(31).healthy


@pytest.mark.promise("P15")
@pytest.mark.parametrize("part", ["rules", "facts"])
def test_a_reload_during_a_shortage_is_in_force_when_it_ends(part: str) -> None:
    """Red meanwhile, with what was in force before; then the new rules come before anything."""
    world = World(ONE)

    def begins() -> None:
        world.fails[part] = [NetworkError("not now", part, errno.EAGAIN)] * 100_000
        world.supervisor.kernel_changed()

    def ends() -> None:
        del world.fails[part]

    world.run((5, begins), (7, reloads(world, HOLES)), (12, ends), until=25)
    assert world.at(11).reason == Reason.UNCHECKED
    assert world.at(11).state == "connected"
    before = world.transcript.index("published connected")
    late = [it for it in world.transcript[before:] if it.startswith(("rules open", "up", "down"))]
    assert late.count(f"rules open {FIRST}") >= 1, "the new rules"
    assert world.at(24).healthy
    assert world.at(24).reconnects == ()


@pytest.mark.promise("P1")
def test_a_reload_while_the_gateway_stops_opens_nothing() -> None:
    """The stop is followed first, and it is the last thing that is."""
    world = World(ONE)

    def both() -> None:
        reloads(world, HOLES)()
        world.supervisor.stop()

    world.run((5, both), until=10)
    assert world.firewall.summary == "closed"
    assert not [it for it in acts(world) if it.startswith("rules open")][1:]


def test_a_reload_while_the_interface_is_built_builds_the_new_one() -> None:
    """The attempt for the former server is cut off."""
    world = World(ONE)
    world.building = 2.0
    world.alive.add(SECOND)
    world.run((1, reloads(world, replace(ONE, tunnels=(server(SECOND),)))), until=10)
    assert world.at(9).endpoint == f"{SECOND}:51820"
    assert f"rules open {FIRST}" not in world.transcript


def test_the_parts_that_use_a_configuration_get_each_new_one() -> None:
    """At the start, and whenever it changes; its limits are reported."""
    world = World(ONE)
    limit = Limit(LimitCode.CHOSEN_MARK, "text", "remedy")

    def change() -> None:
        world.limits = (limit,)
        reloads(world, HOLES)()

    world.run((5, change), (6, reloads(world, HOLES)), until=10)
    assert world.adopted == [ONE, HOLES]
    assert (world.at(4).limits, world.at(9).limits) == ((), (limit,))
