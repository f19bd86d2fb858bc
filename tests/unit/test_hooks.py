"""The user's commands, with real processes and short limits: what is ended, and when."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.services.hooks import GRACE, NOT_EXECUTABLE, Hooks

SLOW = 60
LIMIT = 2.0
"""Seconds: a script has noted its beginning by then, on a busy machine too."""


def on_a_loop(work: Coroutine[Any, Any, None]) -> list[str]:
    """Run `work` to its end, and return the events that it logged, with their variable."""
    with capture_logs() as logs:
        asyncio.run(asyncio.wait_for(work, 15))
    return [f"{entry['variable']}: {entry['event']}" for entry in logs]


def script(directory: Path, name: str, body: str) -> tuple[str, ...]:
    """Write a shell script that notes its beginning, does `body`, and notes its end."""
    path = directory / name
    path.write_text(f"#!/bin/sh\necho {name} >> notes\n{body}\necho end of {name} >> notes\n")
    path.chmod(0o700)
    return ("/usr/bin/env", "-C", str(directory), str(path))


def notes(directory: Path) -> list[str]:
    """Return what the scripts have noted."""
    path = directory / "notes"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def descriptors() -> int:
    """Return how many we have open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come")


async def noted(directory: Path, line: str) -> None:
    """Wait until a script has noted `line`."""
    await until(lambda: line in notes(directory))


def running(word: str) -> bool:
    """Return whether any process has `word` among its arguments."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("case", ["program", "interpreter", "in the shell"])
def test_a_program_that_is_missing_is_reported_with_the_image_that_has_it(
    tmp_path: Path, case: str
) -> None:
    """The image has `sh` and no tools; in two of the three cases only an exit code says so."""
    path = tmp_path / "up"
    path.write_text(
        "#!/nowhere/bash\n" if case == "interpreter" else "#!/bin/sh\nno-such-program\n"
    )
    path.chmod(0o700)
    argv = ("no-such-program",) if case == "program" else (str(path),)

    async def work() -> None:
        commands = Hooks(argv, ())
        commands.up()
        await commands.finish()

    with capture_logs() as logs:
        asyncio.run(asyncio.wait_for(work(), 15))
    (failed,) = [entry for entry in logs if entry["event"] == "command failed"]
    assert "take the debug image" in failed["problem"]


def test_a_script_that_cannot_be_executed_is_named_with_what_to_do(tmp_path: Path) -> None:
    """It is there, so it is not missing."""
    path = tmp_path / "up"
    path.write_text("#!/bin/sh\ntrue\n")
    path.chmod(0o600)

    async def work() -> None:
        commands = Hooks((str(path),), ())
        commands.up()
        await commands.finish()

    with capture_logs() as logs:
        asyncio.run(asyncio.wait_for(work(), 15))
    (failed,) = logs
    assert failed["problem"] == f"{path} {NOT_EXECUTABLE}"


HIDDEN = """
import asyncio, os, sys
from structlog.testing import capture_logs
from gateway.services.hooks import Hooks
if not os.geteuid():
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
async def work():
    commands = Hooks((sys.argv[1],), ())
    commands.up()
    await commands.finish()
with capture_logs() as logs:
    asyncio.run(work())
print(*(it["problem"] for it in logs))
"""


def test_a_script_where_the_gateway_may_not_look_is_missing(tmp_path: Path) -> None:
    """As for root without CAP_DAC_OVERRIDE in a user's own directory."""
    (tmp_path / "closed").mkdir(mode=0)
    path = str(tmp_path / "closed" / "up")
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.stdout.startswith(f"the program {path} is not installed"), done.stderr


def test_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """Down does not overtake up."""
    up, down = script(tmp_path, "up", "sleep 0.05"), script(tmp_path, "down", "true")

    async def work() -> None:
        commands = Hooks(up, down)
        commands.up()
        commands.down()
        await noted(tmp_path, "end of down")

    assert on_a_loop(work()) == []
    assert notes(tmp_path) == ["up", "end of up", "down", "end of down"]


def test_a_tunnel_that_flaps_makes_no_queue_of_commands(tmp_path: Path) -> None:
    """While one runs, the last word counts; when that is what runs already, nothing follows."""
    up, down = script(tmp_path, "up", "sleep 0.05"), script(tmp_path, "down", "true")

    async def work() -> None:
        commands = Hooks(up, down)
        for _ in range(100):
            commands.up()
            commands.down()
        commands.up()
        await noted(tmp_path, "end of up")
        await asyncio.sleep(0.2)

    assert on_a_loop(work()) == []
    assert notes(tmp_path) == ["up", "end of up"]


@pytest.mark.parametrize("body", ["sleep {}", "sleep {} & wait"], ids=["foreground", "background"])
def test_a_command_is_ended_at_its_limit_with_all_that_it_has_started(
    tmp_path: Path, body: str
) -> None:
    """A script's program continues when its shell alone is killed; the next command runs."""
    seconds = f"{SLOW}.{time.monotonic_ns()}"
    up = script(tmp_path, "up", body.format(seconds))
    down = script(tmp_path, "down", "true")

    async def work() -> None:
        commands = Hooks(up, down, time_limit=LIMIT)
        commands.up()
        commands.down()
        await noted(tmp_path, "up")
        await until(lambda: running(seconds))  # the control
        await noted(tmp_path, "end of down")
        assert not running(seconds)

    assert on_a_loop(work()) == ["VPN_UP_COMMAND: command timed out"]
    assert notes(tmp_path) == ["up", "down", "end of down"]


def test_the_last_word_has_its_turn_at_the_stop(tmp_path: Path) -> None:
    """An up command that still runs then is ended at once, and what it has started with it."""
    seconds = f"{SLOW}.{time.monotonic_ns()}"
    up = script(tmp_path, "up", f"sleep {seconds}")
    down = script(tmp_path, "down", "sleep 0.2")

    async def work() -> None:
        commands = Hooks(up, down, last_time_limit=10)
        commands.up()
        await noted(tmp_path, "up")
        commands.down()
        await commands.finish()
        assert not running(seconds)

    assert on_a_loop(work()) == ["VPN_UP_COMMAND: command timed out"]
    assert notes(tmp_path) == ["up", "down", "end of down"]


def test_a_stop_has_an_end_whatever_the_commands_do(tmp_path: Path) -> None:
    """Both ignore SIGTERM and never end."""
    body = "trap '' TERM; while :; do sleep 0.05; done"
    up, down = script(tmp_path, "up", body), script(tmp_path, "down", body)

    async def work() -> None:
        commands = Hooks(up, down, last_time_limit=LIMIT)
        commands.up()
        await noted(tmp_path, "up")
        commands.down()
        asked_at = time.monotonic()
        await commands.finish()
        taken = time.monotonic() - asked_at
        assert taken < LIMIT + GRACE + 0.4
        assert not running(str(tmp_path / "up"))
        assert not running(str(tmp_path / "down"))

    assert on_a_loop(work()) == [
        "VPN_UP_COMMAND: command timed out",
        "VPN_DOWN_COMMAND: command timed out",
    ]
    assert notes(tmp_path) == ["up", "down"]


def test_a_stop_waits_for_nothing_where_nothing_runs(tmp_path: Path) -> None:
    """With commands that have ended, and without any."""
    down = script(tmp_path, "down", "true")

    async def work() -> None:
        for commands in (Hooks((), ()), Hooks((), down, last_time_limit=10)):
            await commands.finish()
            commands.down()
            await commands.finish()
            asked_at = time.monotonic()
            await commands.finish()
            assert time.monotonic() - asked_at < 0.2

    assert on_a_loop(work()) == []
    assert notes(tmp_path) == ["down", "end of down"]


def test_descriptors_stay_as_many_when_commands_leave_something_in_the_background(
    tmp_path: Path,
) -> None:
    """A tunnel that comes and goes for months must not fill the table."""
    seconds = f"{SLOW}.{time.monotonic_ns()}"
    down = script(tmp_path, "down", f"sleep {seconds} & echo $! >> pids")

    async def work() -> None:
        counts = []
        for _ in range(5):
            commands = Hooks((), down, last_time_limit=10)
            commands.down()
            await commands.finish()
            counts.append(descriptors())
        assert len(set(counts)) == 1, counts
        assert running(seconds), "control: it is left alone"

    try:
        on_a_loop(work())
    finally:
        for pid in (tmp_path / "pids").read_text("ascii").split():
            os.kill(int(pid), signal.SIGKILL)
