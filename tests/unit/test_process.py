"""Processes: what a child inherits, how its end is reported, and that orphans are reaped."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import MissingError, ProcessError
from gateway.system import process


def on_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end; a child that it forgot would hang the test."""
    asyncio.run(asyncio.wait_for(work, 10))


def test_a_short_run_returns_what_was_written() -> None:
    """Standard input goes in as text, standard output comes back."""
    assert process.run(["cat"], stdin="a line\n") == "a line\n"


SEARCH = """
import os, sys
from gateway.system import process
if not os.geteuid():
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
process.SEARCH_PATH = f"{sys.argv[1]}:/usr/bin"
print(process.find_program("env"))
process.find_program("no-such-program")
"""


def test_a_directory_that_the_user_may_not_enter_is_passed_over(tmp_path: Path) -> None:
    """As a shell does. Control: a program that is nowhere is missing."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(closed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.stdout == "/usr/bin/env\n", done.stderr
    assert "the program no-such-program is not installed" in done.stderr


def test_a_short_run_sees_nothing_of_our_environment() -> None:
    """The environment may hold keys: a child gets a path, a locale and what it is given."""
    seen = process.run(["env"], env={"GIVEN": "1"}).splitlines()
    assert sorted(line.partition("=")[0] for line in seen) == ["GIVEN", "LC_ALL", "PATH"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sh", "-c", "echo why >&2; exit 3"], "sh: exit code 3: why"),
        (["sh", "-c", "kill -9 $$"], "sh: killed by SIGKILL"),
        (["sleep", "5"], "sleep: took longer than 0.2 s"),
    ],
)
def test_a_failed_run_says_how_it_ended(argv: list[str], words: str) -> None:
    """The program, its end, and what it said."""
    with pytest.raises(ProcessError) as caught:
        process.run(argv, timeout=0.2)
    assert str(caught.value) == words


def test_a_program_that_is_not_installed_is_missing() -> None:
    """Absence is another error than failure: it has a remedy."""
    with pytest.raises(MissingError, match="nosuchprogram"):
        process.run(["nosuchprogram"])


def test_a_child_has_no_blocked_signals_no_environment_and_no_descriptors_of_ours() -> None:
    """For everything that the gateway was started with or has open."""

    async def work(given: int) -> None:
        lines: list[str] = []
        former = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            child = process.start(
                ["sh", "-c", "grep SigBlk /proc/self/status; env; ls /proc/$$/fd; cat <&7"],
                on_line=lines.append,
                env={"GIVEN": "1"},
                descriptors={7: given},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        assert await child.exited == 0
        await asyncio.sleep(0.05)
        assert int(lines[0].split()[1], 16) == 0
        names = {line.partition("=")[0] for line in lines[1:5]}
        assert names == {"PATH", "LC_ALL", "GIVEN", "PWD"}
        opened = {int(line) for line in lines[5:] if line.isdigit()}
        assert opened >= {0, 1, 2, 7}
        assert not opened & set(range(3, 7))
        assert '"""Processes: what a' in " ".join(lines), "control: the descriptor given"

    with Path(__file__).open("rb") as ours:
        on_a_loop(work(ours.fileno()))


def test_a_child_gets_its_descriptors_whatever_numbers_they_have_here() -> None:
    """Also where each of ours has the number that the other one is to have."""

    async def work(first: int, second: int) -> None:
        lines: list[str] = []
        os.write(first, b"first\n")
        os.write(second, b"second\n")
        before = descriptors()
        command = f"cat /proc/self/fd/{second}; cat /proc/self/fd/{first}"
        wanted = {first: second, second: first}
        child = process.start(["sh", "-c", command], on_line=lines.append, descriptors=wanted)
        assert await child.exited == 0
        await asyncio.sleep(0.05)
        assert lines == ["first", "second"]
        assert descriptors() == before

    first, second = os.memfd_create("first"), os.memfd_create("second")
    try:
        on_a_loop(work(first, second))
    finally:
        os.close(first)
        os.close(second)


def test_a_child_ignores_no_signal_that_python_does() -> None:
    """Those that stop or ask for something are blocked here at first, and others are ignored."""

    async def work() -> None:
        lines: list[str] = []
        orders = {signal.SIGHUP, *(signal.SIGRTMIN + number for number in range(1, 5))}
        former = signal.pthread_sigmask(signal.SIG_BLOCK, orders)
        try:
            argv = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
            child = process.start(argv, on_line=lines.append)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN, "control"
        assert await child.exited == 0
        await asyncio.sleep(0.05)
        of_libc = 1 << 31 | 1 << 32  # 32 and 33 are its own (nptl(7)); it lets no one change them
        assert [int(it.split()[1], 16) & ~of_libc for it in lines] == [0, 0]

    on_a_loop(work())


def test_a_child_that_stays_is_asked_to_end_and_then_killed() -> None:
    """One that ends when asked is not killed; one that ignores it is, after the grace."""

    async def work() -> None:
        polite = process.start(["sleep", "60"], on_line=print)
        assert polite.running
        await polite.stop()
        assert await polite.exited == -signal.SIGTERM
        ready = asyncio.Event()
        deaf = process.start(
            ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"],
            on_line=lambda _: ready.set(),
        )
        await ready.wait()
        started = time.monotonic()
        await deaf.stop(grace=0.1)
        assert time.monotonic() - started < 1
        assert await deaf.exited == -signal.SIGKILL
        await deaf.stop()

    on_a_loop(work())


def alive(pid: int) -> bool:
    """Return whether there is such a process, and not only what is left to be reaped of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def descriptors() -> int:
    """Return how many we have open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def ended(pid: int) -> bool:
    """Wait a second at most until there is no such process."""
    for _ in range(100):
        if not alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["polite", "deaf"])
def test_what_a_child_has_started_ends_with_it(trap: str) -> None:
    """A shell's foreground child and its background child; those too that ignore SIGTERM."""

    async def work() -> None:
        lines: asyncio.Queue[str] = asyncio.Queue()
        inner = f"{trap}echo $$; while :; do sleep 0.05; done"
        child = process.start(
            ["sh", "-c", 'sh -c "$0" & sh -c "$0"; true', inner], on_line=lines.put_nowait
        )
        pids = [int(await lines.get()) for _ in range(2)]
        assert all(map(alive, [child.pid, *pids])), "control"
        await child.stop(grace=0.2)
        assert await child.exited == -signal.SIGTERM
        assert [await ended(pid) for pid in pids] == [True, True]

    on_a_loop(work())


def test_a_child_that_has_ended_leaves_others_alone_and_no_descriptor_open() -> None:
    """What it left in the background continues, but its output is not awaited."""

    async def work() -> None:
        process.reap_orphans()
        for _ in range(3):  # what the loop opens for itself
            await asyncio.sleep(0)
        opened = descriptors()
        for _ in range(5):
            lines: list[str] = []
            script = "sleep 60 & echo $!; printf end"
            child = process.start(["sh", "-c", script], on_line=lines.append)
            assert await child.exited == 0
            assert lines[1] == "end"
            await child.stop()
            assert alive(int(lines[0]))
            os.kill(int(lines[0]), signal.SIGKILL)
        assert descriptors() == opened

    on_a_loop(work())


def test_lines_come_whole_and_the_last_one_without_its_end() -> None:
    """Also one that never ends, in pieces, and one that is not UTF-8."""

    async def work() -> None:
        lines: list[str] = []
        script = (
            "printf 'one\\n\\ntwo\\377\\n'; head -c 10000 /dev/zero | tr '\\0' x; printf '\\nend'"
        )
        child = process.start(["sh", "-c", script], on_line=lines.append)
        assert await child.exited == 0
        await asyncio.sleep(0.05)
        assert lines[:2] == ["one", "two\ufffd"]
        assert "".join(lines[2:-1]) == "x" * 10000
        assert lines[-1] == "end"

    on_a_loop(work())


def test_a_short_run_next_to_a_child_keeps_its_own_end() -> None:
    """The wait for all never takes what a short run waits for."""

    async def work() -> None:
        child = process.start(["sh", "-c", "sleep 0.05; exit 7"], on_line=print)
        for _ in range(20):
            with pytest.raises(ProcessError, match="exit code 3"):
                process.run(["sh", "-c", "exit 3"])
            await asyncio.sleep(0.005)
        assert await child.exited == 7

    on_a_loop(work())


ORPHANAGE = """
import asyncio, ctypes, os, sys
from gateway.system import process
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to process 1
async def main():
    process.reap_orphans()
    process.run(["sh", "-c", "for n in 1 2 3; do sleep 0.1 & done"])
    for _ in range(200):
        children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
        if not children:
            print("none left")
            return
        await asyncio.sleep(0.01)
    print("left:", children)
asyncio.run(main())
"""


def test_orphans_are_reaped() -> None:
    """Children of others that fall to us leave no zombies."""
    done = subprocess.run(
        [sys.executable, "-c", ORPHANAGE], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == "none left\n", done.stderr


PARENT = """
import asyncio, sys
from gateway.system import process
async def main():
    print(process.start(["sleep", "60"], on_line=print).pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_child_does_not_outlive_a_killed_gateway() -> None:
    """`kill -9` of the parent reaches the child."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout:
        child = Path("/proc", parent.stdout.readline().strip())
        while "sleep" not in (child / "comm").read_text("ascii"):
            time.sleep(0.005)
        assert child.exists(), "control"
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 2
    while child.exists() and "State:\tZ" not in (child / "status").read_text("ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
