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
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from gateway.errors import SHORTAGES, MissingError, ProcessError
from gateway.system.netns import OWN, Netns

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINIMAL_ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
"""What a program gets to see of the environment: nothing of the gateway's, which holds keys."""

KILL_TIME = 2.0
"""Seconds that a killed process may take to disappear."""
LONGEST_LINE = 4096
"""Bytes after which a line of output is passed on though it has not ended."""
PIPE_HOLDS = 1 << 16
"""Bytes that a pipe holds at most (pipe(7)): what can be left in it when its writer has ended."""
POLL = 0.01
"""Seconds between two looks at a group of processes, whose end nobody tells."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 5.0,
    env: Mapping[str, str] | None = None,
    netns: Netns = OWN,
) -> str:
    """Run `argv` to its end and return what it wrote to standard output.

    It gets `stdin`, `timeout` seconds, and `env` beside a minimal environment. It runs in `netns`,
    which a child takes over from the thread that starts it. Raises MissingError
    when there is no such program, ProcessError when it fails or takes longer.
    """
    program = find_program(argv[0])
    try:
        with netns.entered():
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
        raise ProcessError(argv[0], f"took longer than {timeout} s", errno=errno.ETIMEDOUT) from err
    except OSError as err:
        raise _not_started(argv[0], err) from err
    if done.returncode != 0:
        raise ProcessError(
            argv[0],
            ending(done.returncode),
            done.stderr,
            _shortage_of(done.returncode, done.stderr),
        )
    return done.stdout


def _not_started(program: str, error: OSError) -> ProcessError:
    return ProcessError(program, f"could not be started: {error.strerror}", errno=error.errno)


def _shortage_of(code: int, stderr: str) -> int | None:
    """Return the shortage that a program failed from, None when it failed for another reason.

    The tools of netfilter keep errno to themselves and print its text (strerror(3)), which is the
    same everywhere in the C locale that they run in. SIGKILL comes from the kernel when memory is
    short, or from somebody who does not want the answer: it is no answer either way.
    """
    if code == -signal.SIGKILL:
        return errno.ENOMEM
    return next((number for number in sorted(SHORTAGES) if os.strerror(number) in stderr), None)


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
    """A running child; `exited` is done with its exit code (negative: the signal) once it ended.

    It leads a process group of its own, so that what it starts can be ended with it.
    """

    def __init__(self, program: str, pid: int, exited: asyncio.Future[int]) -> None:
        self.program = program
        self.pid = pid
        self.exited = exited

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as the reaper knows."""
        return not self.exited.done()

    async def stop(self, grace: float = 0.5) -> None:
        """End it and its group: SIGTERM, and SIGKILL after `grace` seconds.

        Raises ProcessError if that fails. One that has ended by itself is left alone, and so is
        what it left behind.
        """
        if not self.running:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._signal(signal.SIGTERM)
        await asyncio.wait([self.exited], timeout=grace)
        while loop.time() < deadline:
            if not self._signal(0):
                return
            await asyncio.sleep(POLL)
        self._signal(signal.SIGKILL)
        await asyncio.wait([self.exited], timeout=KILL_TIME)
        if self.running:
            raise ProcessError(self.program, "does not end, even when killed")

    def _signal(self, number: int) -> bool:
        """Send a signal to the whole group; say whether anybody is left of it.

        Its number is nobody else's as long as one of its members is there, reaped or not. Raises
        ProcessError.
        """
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except OSError as err:
            raise ProcessError(self.program, f"could not be ended: {err.strerror}") from err
        return True


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
    netns: Netns = OWN,
) -> Child:
    """Start `argv` as a child that stays; it dies with the gateway. To be called on the loop.

    Each line that it writes goes to `on_line`, and nothing that others write after its end.
    `descriptors` maps the child's descriptor numbers to ours; it gets no others. It
    runs in `netns`, as in `run`. Raises MissingError or ProcessError.
    """
    reap_orphans()
    # The kernel kills the child when we go, also by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
    # setpriv(1) asks for it and then becomes the program: Python code between fork and exec
    # is not safe once the health server's thread runs.
    command = [find_program("setpriv"), "--pdeathsig", "KILL", "--", find_program(argv[0])]
    try:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as err:
        raise _not_started(argv[0], err) from err
    wiring: list[tuple[object, ...]] = [
        *((os.POSIX_SPAWN_DUP2, write_end, number) for number in (1, 2)),
        *((os.POSIX_SPAWN_DUP2, ours, number) for number, ours in (descriptors or {}).items()),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    ]
    try:
        with netns.entered():
            pid = os.posix_spawn(
                command[0],
                [*command, *argv[1:]],
                {**MINIMAL_ENVIRONMENT, **(env or {})},
                file_actions=wiring,
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD),
            )
    except OSError as err:
        os.close(read_end)
        raise _not_started(argv[0], err) from err
    finally:
        os.close(write_end)
    loop = asyncio.get_running_loop()
    lines = _Lines(loop, read_end, on_line)
    exited = _exits[pid] = loop.create_future()
    exited.add_done_callback(lambda _: lines.finish())
    return Child(argv[0], pid, exited)


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
    """Reads a pipe and passes on whole lines; a flood of output cannot fill memory."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pipe: int, on_line: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._pipe = pipe
        self._on_line = on_line
        self._rest = b""
        self._is_open = True
        loop.add_reader(pipe, self._read)

    def finish(self) -> None:
        """Pass on what is there, and close: who else writes to it may do so for ever."""
        for _ in range(PIPE_HOLDS // LONGEST_LINE):
            if not self._read():
                break
        self._close()

    def _read(self) -> bool:
        """Pass on some of what is there; say whether there was anything."""
        if not self._is_open:
            return False
        try:
            data = os.read(self._pipe, LONGEST_LINE)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        self._pass_on(lines)
        if not data:
            self._close()
        return bool(data)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._pass_on([self._rest])
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)

    def _pass_on(self, lines: list[bytes]) -> None:
        for line in filter(None, lines):
            self._on_line(line.decode("utf-8", "replace").rstrip())
