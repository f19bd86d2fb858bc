"""The supervisor of children, with small real programs: starts, restarts, floods and stops."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import (
    MissingError,
    ProcessEnded,
    ProcessError,
    TunnelError,
    TunnelGone,
    is_shortage,
)
from gateway.system import output, process
from gateway.system.child import NEVER, Child, End, Program, Restart
from gateway.system.links import Links
from gateway.tunnel import userspace
from gateway.tunnel.conversation import Conversation
from gateway.tunnel.userspace import Userspace

QUICK = Restart(first=0.05, longest=0.2, lasting=0.5)
SLEEPS = "import time; time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "


def on_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end; a child that it forgot would hang the test."""
    asyncio.run(asyncio.wait_for(work, 20))


def python(script: str, **options: Any) -> Program:
    """Return a Python program, which is isolated from the environment of the tests."""
    return Program((sys.executable, "-I", "-S", "-c", script), **options)


def alive(pid: int) -> bool:
    """Return whether there is such a process that is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children() -> list[str]:
    """Return the pids of our children, zombies included."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], object], seconds: float = 8) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def has_line(lines: list[str], text: str) -> Callable[[], Awaitable[bool]]:
    """Return a probe: ready as soon as the program has written `text`."""

    async def ready() -> bool:
        return text in lines

    return ready


def test_a_program_is_started_and_its_start_waits_until_it_is_ready() -> None:
    """The probe may fail with an OSError meanwhile, as a connection to a socket does."""

    async def work() -> None:
        lines: list[str] = []
        asked = 0

        async def ready() -> bool:
            nonlocal asked
            asked += 1
            if not lines:
                raise ConnectionRefusedError
            return True

        child = Child(
            python(f"import time; time.sleep(0.2); print('up', flush=True); {SLEEPS}"),
            ready=ready,
            on_line=lines.append,
        )
        await child.start()
        assert (lines, child.running) == (["up"], True)
        assert asked > 1, "control"
        with pytest.raises(ProcessError, match="already running"):
            await child.start()
        await child.stop()
        assert (child.running, children()) == (False, [])

    on_a_loop(work())


def test_a_program_that_is_never_ready_is_ended_and_reported() -> None:
    """It is not a shortage: waiting for this process would not help."""

    async def work() -> None:
        child = Child(python(SLEEPS, ready_within=0.3), ready=has_line([], "up"))
        with pytest.raises(ProcessError, match=r"not ready after 0\.3 s") as caught:
            await child.start()
        assert not is_shortage(caught.value)
        assert children() == []

    on_a_loop(work())


def test_a_probe_that_hangs_does_not_outlast_the_limit() -> None:
    """The limit is for the probe as well."""

    async def work() -> None:
        async def ready() -> bool:
            await asyncio.sleep(60)
            return True

        child = Child(python(SLEEPS, ready_within=0.2), ready=ready)
        with pytest.raises(ProcessError, match="not ready"):
            await child.start()
        assert children() == []

    on_a_loop(work())


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("import sys; sys.exit('no such option')", 1, "exit code 1: no such option"),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV, "killed by SIGSEGV"),
    ],
)
def test_a_program_that_dies_at_once_is_reported_with_its_end(
    script: str, code: int, words: str
) -> None:
    """Its exit code or signal, and its last lines."""

    async def work() -> None:
        child = Child(python(script), ready=has_line([], "up"))
        with pytest.raises(ProcessEnded, match=words) as caught:
            await child.start()
        assert caught.value.code == code
        assert children() == []

    on_a_loop(work())


def test_the_pause_grows_and_begins_again_after_a_program_that_lasted() -> None:
    """The policy alone: no process, no clock."""
    restart = Restart(first=1, longest=5, lasting=30)
    pauses = [restart.pause(None, 0)]
    for _ in range(4):
        pauses.append(restart.pause(pauses[-1], 29.9))
    assert pauses == [1, 2, 4, 5, 5]
    assert restart.pause(5, 30) == 1


def test_a_program_that_dies_again_and_again_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    """Until it lasts: then the pause begins with the first one again."""
    lasts = tmp_path / "lasts"
    script = (
        f"import os, time, sys; time.sleep(0.8 if os.path.exists({str(lasts)!r}) else 0);"
        " sys.exit(3)"
    )

    async def work() -> None:
        ends: list[End] = []
        child = Child(python(script), restart=QUICK, on_end=ends.append)
        await child.start()
        await until(lambda: len(ends) >= 5)
        lasts.touch()
        await until(lambda: ends[-1].lasted > 0.5)
        first = [end.again_in for end in ends[:5]]
        assert first == [0.05, 0.1, 0.2, 0.2, 0.2]
        assert ends[-1].again_in == 0.05
        assert {end.code for end in ends} == {3}
        await child.stop()
        count = len(ends)
        await asyncio.sleep(0.3)
        assert len(ends) == count, "a child that was stopped is not restarted"
        assert children() == []

    on_a_loop(work())


def test_without_a_restart_the_end_is_reported_once() -> None:
    """As wireguard-go wants it: the lost interface is an event for the state machine."""

    async def work() -> None:
        ends: list[End] = []
        child = Child(python(SLEEPS), restart=NEVER, on_end=ends.append)
        await child.start()
        assert child.process
        os.kill(child.process.pid, signal.SIGKILL)
        await child.ended()
        assert [(end.code, end.again_in) for end in ends] == [(-signal.SIGKILL, None)]
        assert "killed by SIGKILL" in str(ends[0].problem)
        await asyncio.sleep(0.1)
        assert (len(ends), children()) == (1, [])

    on_a_loop(work())


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    """One that ends when asked is not; the loop continues meanwhile."""

    async def work() -> None:
        lines: list[str] = []
        child = Child(
            python(DEAF + SLEEPS, grace=0.3), ready=has_line(lines, "deaf"), on_line=lines.append
        )
        await child.start()
        ticks = asyncio.create_task(count_ticks())
        asked_at = time.monotonic()
        await child.stop()
        assert 0.3 <= time.monotonic() - asked_at < 1.5
        assert not ticks.done(), "the loop was blocked"
        ticks.cancel()
        assert child.process
        assert child.process.exited.result() == -signal.SIGKILL
        assert children() == []

    on_a_loop(work())


async def count_ticks() -> None:
    """Fail when the loop is blocked for longer than a tenth of a second."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - before < 0.5


def test_a_flood_of_output_costs_neither_lines_nor_memory_nor_the_loop() -> None:
    """It is emptied slowly and cut; what was left out is counted; the last line is kept."""
    script = "import sys\nwhile True: sys.stdout.write('flood\\n' * 1000)"

    async def work() -> None:
        lines: list[str] = []
        child = Child(python(script), on_line=lines.append)
        await child.start()
        await until(lambda: len(lines) >= output.LINES_AT_ONCE)
        used, slowest = time.process_time(), 0.0
        for _ in range(100):
            before = time.monotonic()
            await asyncio.sleep(0.01)
            slowest = max(slowest, time.monotonic() - before)
        used = time.process_time() - used
        at_most = output.LINES_AT_ONCE + 5 * output.LINES_PER_SECOND
        assert len(lines) < 2 * at_most, "with a report of what was left out for each line"
        assert any("lines were left out: too many" in line for line in lines)
        assert used < 0.4, f"{used:.2f} s of processor time in a second"
        assert slowest < 0.5
        assert child.running, "it is never halted for good"
        await child.stop()
        assert children() == []

    on_a_loop(work())


def test_the_last_lines_of_a_flood_say_why_the_program_ended() -> None:
    """Also those that were left out."""

    async def work() -> None:
        child = Child(
            python("import sys\nprint('x\\n' * 1000, flush=True)\nsys.exit('the reason')"),
            ready=has_line([], "up"),
        )
        with pytest.raises(ProcessEnded, match="the reason"):
            await child.start()

    on_a_loop(work())


def test_a_program_that_writes_faster_than_it_is_read_waits_and_does_not_fail() -> None:
    """Its end of the pipe blocks, as every program expects of its standard output."""

    async def work() -> None:
        script = (
            "import os, sys\nfor _ in range(300): os.write(1, b'x' * 1000 + b'\\n')\nsys.exit(7)"
        )
        ends: list[End] = []
        child = Child(python(script), on_end=ends.append)
        await child.start()
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is busy, and the pipe is full
        await child.ended()
        assert ends[0].code == 7

    on_a_loop(work())


def test_a_line_without_an_end_is_cut() -> None:
    """A megabyte in one line is many short ones."""

    async def work() -> None:
        lines: list[str] = []
        child = Child(python("print('x' * 1000000)"), on_line=lines.append)
        await child.start()
        await child.ended()
        assert max(map(len, lines)) <= 2 * output.LONGEST_LINE

    on_a_loop(work())


def test_a_program_that_closes_its_output_continues() -> None:
    """The end of the pipe is not the end of the program, and costs no processor time."""

    async def work() -> None:
        child = Child(python(f"import os; os.closerange(0, 3); {SLEEPS}"))
        await child.start()
        await asyncio.sleep(0.3)
        used = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - used < 0.15
        assert child.running
        await child.stop()
        assert children() == []

    on_a_loop(work())


FORKS = "import os, time\nprint(os.fork(), flush=True)\n"


@pytest.mark.parametrize("ends", [False, True], ids=["stopped", "dies"])
def test_what_a_program_has_forked_goes_with_it(ends: bool) -> None:  # noqa: FBT001 - a parameter
    """A grandchild that holds the port would make the next start fail."""
    script = FORKS + ("time.sleep(0.3 if os.getppid() == %d else 60)" if ends else SLEEPS)

    async def work() -> None:
        lines: list[str] = []
        child = Child(
            python(script % os.getpid() if ends else script), on_line=lines.append, restart=NEVER
        )
        await child.start()
        await until(lambda: len(lines) == 2)
        grandchild = int(max(lines, key=int))
        assert alive(grandchild), "control"
        await (child.ended() if ends else child.stop())
        await until(lambda: not alive(grandchild), 2)

    on_a_loop(work())


def test_a_program_that_is_not_installed_is_missing() -> None:
    """The error has a remedy; it is not a failure of a program."""

    async def work() -> None:
        opened = descriptors()
        with pytest.raises(MissingError, match="nosuchprogram"):
            await Child(Program(("nosuchprogram",))).start()
        assert descriptors() <= opened + 3, "what the loop opens for itself"

    on_a_loop(work())


def test_a_stop_during_the_start_ends_both() -> None:
    """The start reports that it was stopped; nothing is left."""

    async def work() -> None:
        child = Child(python(SLEEPS), ready=has_line([], "up"))
        starting = asyncio.create_task(child.start())
        await until(lambda: child.running)
        await child.stop()
        with pytest.raises(ProcessError, match="stopped before it was ready"):
            await starting
        assert children() == []

    on_a_loop(work())


def test_a_stop_as_the_program_becomes_ready_is_the_end() -> None:
    """The start has succeeded by then, and the program must not be restarted all the same."""

    async def work() -> None:
        ends: list[End] = []
        stops: list[asyncio.Task[None]] = []

        async def ready() -> bool:
            stops.append(asyncio.create_task(child.stop()))
            await asyncio.sleep(0)  # the stop has begun
            return True

        child = Child(python(SLEEPS), restart=QUICK, ready=ready, on_end=ends.append)
        with pytest.raises(ProcessError, match="stopped before it was ready"):
            await child.start()
        await asyncio.wait(stops)
        await asyncio.sleep(4 * QUICK.first)
        assert (len(stops), ends, child.running) == (1, [], False)
        assert children() == []

    on_a_loop(work())


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    """As when the task group of the owner ends."""

    async def work() -> None:
        child = Child(python(SLEEPS), ready=has_line([], "up"))
        starting = asyncio.create_task(child.start())
        await until(lambda: child.running)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert children() == []

    on_a_loop(work())


def test_a_stop_in_the_pause_before_a_restart_is_the_end() -> None:
    """No process comes after it."""

    async def work() -> None:
        ends: list[End] = []
        restart = Restart(first=30, longest=30, lasting=30)
        child = Child(python("pass"), restart=restart, on_end=ends.append)
        await child.start()
        await until(lambda: ends)
        await child.stop()
        await child.ended()
        assert not child.running

    on_a_loop(work())


def test_many_processes_leave_neither_descriptors_nor_zombies() -> None:
    """A service that dies every minute for months must not fill a table."""

    async def work() -> None:
        ends: list[End] = []
        restart = Restart(first=0.01, longest=0.01, lasting=60)
        child = Child(Program(("true",)), restart=restart, on_end=ends.append)
        await child.start()
        await until(lambda: len(ends) >= 3)
        await asyncio.sleep(0.05)
        opened = descriptors()
        await until(lambda: len(ends) >= 25, 15)
        assert descriptors() <= opened + 1, "one of them may be running just now"
        await child.stop()
        assert children() == []

    on_a_loop(work())


def test_an_error_in_a_report_is_not_lost() -> None:
    """It comes out where the owner waits for the end."""

    async def work() -> None:
        def fails(_end: End) -> None:
            raise RuntimeError("a fault of the owner")

        child = Child(Program(("true",)), on_end=fails)
        await child.start()
        with pytest.raises(RuntimeError, match="a fault of the owner"):
            await child.ended()

    on_a_loop(work())


SHORTAGE = """
import asyncio, errno, os, resource, sys
from gateway.errors import ProcessError, is_shortage
from gateway.system.child import Child, Program, Restart
if os.getuid() == 0:
    os.setgroups([]); os.setresgid(65533, 65533, 65533); os.setresuid(65533, 65533, 65533)

def limit(number):
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (number, hard))

async def main():
    ends = []
    child = Child(Program(("true",)), restart=Restart(0.05, 0.1, 60), on_end=ends.append)
    limit(0)
    before = len(os.listdir("/proc/self/fd"))
    try:
        await child.start()
    except ProcessError as err:
        print("start:", errno.errorcode[err.errno], is_shortage(err), flush=True)
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # what the loop opens
    limit(100)
    await child.start()
    limit(0)
    while len([end for end in ends if end.code is None]) < 2:
        await asyncio.sleep(0.01)
    failed = [end for end in ends if end.code is None]
    print("restart:", {is_shortage(end.problem) for end in failed}, failed[0].again_in is not None)
    count = len(ends)
    limit(100)
    while not any(end.code == 0 for end in ends[count:]):
        await asyncio.sleep(0.01)
    await child.stop()
    print("and again")

asyncio.run(asyncio.wait_for(main(), 15))
"""


def test_a_shortage_is_an_error_at_the_start_and_tried_again_after_it() -> None:
    """EAGAIN of fork(2), by a limit of processes for a user of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SHORTAGE],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.splitlines() == [
        "start: EAGAIN True",
        "restart: {True} True",
        "and again",
    ], done.stderr


def test_a_file_that_cannot_be_executed_is_reported() -> None:
    """By the end of the program that should have become it."""

    async def work() -> None:
        child = Child(Program(("/etc/passwd",)))
        with pytest.raises((MissingError, ProcessEnded)):
            await child.start()

    on_a_loop(work())


def test_work_during_a_process_has_three_ends() -> None:
    """Its result, the end of the process, or the limit; each leaves no task behind."""

    async def work() -> None:
        async def answer() -> int:
            return 7

        running = process.start(["sleep", "60"], on_line=print)
        assert await running.during(answer(), 1) == 7
        with pytest.raises(TimeoutError):
            await running.during(asyncio.sleep(60), 0.05)
        asyncio.get_running_loop().call_later(0.05, os.kill, running.pid, signal.SIGKILL)
        with pytest.raises(ProcessEnded, match="killed by SIGKILL"):
            await running.during(asyncio.sleep(60), 5)
        assert len(asyncio.all_tasks()) <= 2, "ours, and the limit of the test"

    on_a_loop(work())


def test_the_numbers_of_shortages_are_those_of_fork() -> None:
    """EAGAIN and ENOMEM: fork(2)."""
    for number in (errno.EAGAIN, errno.ENOMEM):
        assert is_shortage(ProcessError("true", "could not be started", errno=number))


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (ConnectionResetError("Connection lost"), TunnelGone, "Connection lost"),
        (asyncio.LimitOverrunError("too long", 5), TunnelError, "cannot be read"),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"), TunnelError, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_asyncio_raises_about_wireguard_go_is_an_error_of_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[TunnelError], words: str
) -> None:
    """Asyncio raises ConnectionResetError without errno when the process dies meanwhile."""

    async def lost(_self: Conversation, _request: str) -> str:
        raise error

    async def work() -> None:
        tunnel = Userspace(Links("wg0"))
        tunnel._child = Child(Program(("sleep", "60")))  # noqa: SLF001 - no other way to be there
        await tunnel._child.start()  # noqa: SLF001
        with pytest.raises(TunnelError, match=words) as caught:
            await tunnel._device()  # noqa: SLF001
        assert type(caught.value) is expected
        await tunnel._child.stop()  # noqa: SLF001

    monkeypatch.setattr(Conversation, "ask", lost)
    on_a_loop(work())


def test_a_wireguard_go_that_reads_nothing_does_not_outlast_the_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A request that does not fit into the socket's buffer must not keep the worker for ever."""

    async def work() -> None:
        tunnel = Userspace(Links("wg0"))
        tunnel._child = Child(Program(("sleep", "60")))  # noqa: SLF001 - no other way to be there
        await tunnel._child.start()  # noqa: SLF001
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tunnel._socket_path))  # noqa: SLF001
            listener.listen()
            before = descriptors()
            with pytest.raises(TunnelError, match="does not answer"):
                await asyncio.wait_for(tunnel._ask("x" * (8 << 20)), 5)  # noqa: SLF001
            assert descriptors() == before
        await tunnel._child.stop()  # noqa: SLF001

    monkeypatch.setattr(userspace, "SOCKETS", tmp_path)
    monkeypatch.setattr(userspace, "ANSWER_TIME", 0.2)
    on_a_loop(work())
