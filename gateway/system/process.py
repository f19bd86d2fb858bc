"""Processes: the only place that starts any, and what process 1 owes to the orphans it inherits.

Short runs are waited for where they are started. Whatever else ends, children that stay and the
orphans of others, is collected on SIGCHLD, by one wait for all. The two cannot get in each other's
way, because that wait is done on the loop and a short run blocks the loop. `os.posix_spawn` and not
`subprocess` starts the children that stay: it clears the signal mask that they would inherit, and
keeps no account of them that the wait for all would contradict. SIGCHLD belongs to the process as a
whole, and so does the table of children here.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from gateway.errors import MissingError, ProcessError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINIMAL_ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
"""What a program gets to see of the environment: nothing of the gateway's, which holds keys."""

KILL_TIME = 2.0
"""Seconds that a killed process may take to disappear."""
LONGEST_LINE = 4096
"""Bytes after which a line of output is passed on though it has not ended."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 5.0,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run `argv` to its end and return what it wrote to standard output.

    It gets `stdin`, `timeout` seconds, and `env` beside a minimal environment. Raises MissingError
    when there is no such program, ProcessError when it fails or takes longer.
    """
    program = find_program(argv[0])
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env={**MINIMAL_ENVIRONMENT, **(env or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise ProcessError(argv[0], f"took longer than {timeout} s") from err
    except OSError as err:
        raise ProcessError(argv[0], f"could not be started: {err.strerror}") from err
    if done.returncode != 0:
        raise ProcessError(argv[0], ending(done.returncode), done.stderr)
    return done.stdout


def find_program(name: str) -> str:
    """Return the path of the program `name`, or raise MissingError."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise MissingError(f"the program {name} is not installed", "install it, or use our image")
    return path


def ending(code: int) -> str:
    """Say in words how a process ended: an exit code, or a signal's number as a negative one."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


class Child:
    """A running child; `exited` is done with its exit code (negative: the signal) once it ended."""

    def __init__(self, program: str, pid: int, exited: asyncio.Future[int]) -> None:
        self.program = program
        self.pid = pid
        self.exited = exited

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as the reaper knows."""
        return not self.exited.done()

    async def stop(self, grace: float = 0.5) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds; raise ProcessError if that fails."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_TIME)):
            if not self.running:
                return
            os.kill(self.pid, number)  # not reaped yet, so the number is still its own
            await asyncio.wait([self.exited], timeout=patience)
        if self.running:
            raise ProcessError(self.program, "does not end, even when killed")


_exits: dict[int, asyncio.Future[int]] = {}


def reap_orphans() -> None:
    """Collect every process that ends, from now on; to be called on the loop."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap)
    _reap()


def start(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    descriptors: Mapping[int, int] | None = None,
) -> Child:
    """Start `argv` as a child that stays; it dies with the gateway. To be called on the loop.

    Each line that it writes goes to `on_line`. `descriptors` maps the child's descriptor numbers to
    ours; it gets no others. Raises MissingError or ProcessError.
    """
    reap_orphans()
    # The kernel kills the child when we go, also by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
    # setpriv(1) asks for it and then becomes the program: Python code between fork and exec
    # is not safe once the health server's thread runs.
    command = [find_program("setpriv"), "--pdeathsig", "KILL", "--", find_program(argv[0])]
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    wiring: list[tuple[object, ...]] = [
        *((os.POSIX_SPAWN_DUP2, write_end, number) for number in (1, 2)),
        *((os.POSIX_SPAWN_DUP2, ours, number) for number, ours in (descriptors or {}).items()),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    ]
    try:
        pid = os.posix_spawn(
            command[0],
            [*command, *argv[1:]],
            {**MINIMAL_ENVIRONMENT, **(env or {})},
            file_actions=wiring,
            setsigmask=(),
            setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD),
        )
    except OSError as err:
        os.close(read_end)
        raise ProcessError(argv[0], f"could not be started: {err.strerror}") from err
    finally:
        os.close(write_end)
    loop = asyncio.get_running_loop()
    _Lines(loop, read_end, on_line)
    _exits[pid] = loop.create_future()
    return Child(argv[0], pid, _exits[pid])


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        exited = _exits.pop(pid, None)
        if exited is not None and not exited.done():
            exited.set_result(os.waitstatus_to_exitcode(status))


class _Lines:
    """Reads a pipe to its end and passes on whole lines; a flood of output cannot fill memory."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pipe: int, on_line: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._pipe = pipe
        self._on_line = on_line
        self._rest = b""
        loop.add_reader(pipe, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, LONGEST_LINE)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in filter(None, lines):
            self._on_line(line.decode("utf-8", "replace").rstrip())
        if not data:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
