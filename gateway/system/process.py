"""Processes: the only module that starts any, and that reaps the orphans which process 1 inherits.

`run` waits for a short program where it is started. All other processes that end, children that
stay and orphans of others, are reaped on SIGCHLD by one wait for all of them. The two do not
interfere, because that wait happens on the loop, and `run` blocks the loop. `start` uses
`os.posix_spawn` and not `subprocess`: it clears the signal mask that a child would inherit, and
keeps no table of children that the wait for all would contradict. SIGCHLD belongs to the whole
process, and so does the table of children here.
"""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.errors import SHORTAGES, MissingError, ProcessEnded, ProcessError
from gateway.system import applied
from gateway.system.handed import handed_over
from gateway.system.netns import OWN, Netns
from gateway.system.output import Output, piped

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINIMAL_ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
"""The environment of every program: nothing of the gateway's, which holds keys."""

KILL_TIME = 2.0
"""Seconds that a killed process may take to disappear."""
POLL = 0.01
"""Seconds between two looks at a group of processes, whose end is not reported."""

T = TypeVar("T")


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout: float = 5.0,
    env: Mapping[str, str] | None = None,
    netns: Netns = OWN,
    descriptors: Collection[int] = (),
) -> str:
    """Run `argv` to its end and return what it wrote to standard output.

    It gets `stdin`, `timeout` seconds, `env` in addition to a minimal environment, and our
    `descriptors` under the same numbers. It runs in `netns`, which a child takes over from the
    thread that starts it. Raises MissingError when the
    program is not installed, ProcessError when it fails or takes longer.
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
                pass_fds=descriptors,
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

    The tools of netfilter do not return errno but print its text (strerror(3)), which is the
    same everywhere in the C locale that they run in. SIGKILL comes from the kernel when memory is
    short, or from another process: either way the program did not answer.
    """
    if code == -signal.SIGKILL:
        return errno.ENOMEM
    return next((number for number in sorted(SHORTAGES) if os.strerror(number) in stderr), None)


def find_program(name: str) -> str:
    """Return the path of the program `name`, which may be one itself, or raise MissingError.

    As shutil.which does; that module takes 0.2 MiB.
    """
    for directory in SEARCH_PATH.split(":"):
        path = Path(directory, name)
        if os.access(path, os.X_OK) and path.is_file():  # that fails where this may not look
            return str(path)
    raise MissingError(f"the program {name} is not installed", "install it, or use our image")


def ending(code: int) -> str:
    """Return in words how a process ended: an exit code, or a signal's number as a negative one."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


class Process:
    """A running child; `exited` is done with its exit code (negative: the signal) once it ended.

    It leads a process group of its own, so that what it starts can be ended with it.
    """

    def __init__(self, program: str, pid: int, exited: asyncio.Future[int], output: Output) -> None:
        self.program = program
        self.pid = pid
        self.exited = exited
        self._output = output

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as it has been reaped."""
        return not self.exited.done()

    @property
    def end(self) -> ProcessEnded:
        """How it ended, with its last lines, as an error. Only for one that has ended."""
        code = self.exited.result()
        return ProcessEnded(self.program, ending(code), "; ".join(self._output.last), code=code)

    async def during(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Return what `work` returns, which has `seconds`, and only while the process runs.

        Raises ProcessEnded when it ended first, TimeoutError when `work` took longer.
        """
        task = asyncio.ensure_future(work)
        waited: list[asyncio.Future[Any]] = [task, self.exited]
        try:
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not task.exception():
                return task.result()
            if not self.running:
                raise self.end
            if not task.done():
                raise TimeoutError(f"{self.program}: {seconds} s were not enough")
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # has been raised, or its cause is the end of the process

    async def stop(self, grace: float = 0.5) -> None:
        """End it and its group: SIGTERM, and SIGKILL after `grace` seconds.

        Raises ProcessError if that fails. A process that has ended by itself is left alone, and so
        is what it left behind.
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
        """Send a signal to the whole group; return whether it has any member left.

        No other group has its number as long as one of its members exists, reaped or not. Raises
        ProcessError.
        """
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except OSError as err:
            raise ProcessError(self.program, f"could not be ended: {err.strerror}") from err
        return True


class Start(Protocol):
    """What starts a process as `start` does."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        on_line: Callable[[str], None],
        env: Mapping[str, str] | None = None,
        descriptors: Mapping[int, int] | None = None,
        leaves_nothing: bool = False,
        netns: Netns = OWN,
    ) -> Process:
        """Start `argv`. Raises MissingError or ProcessError."""


_exits: dict[int, asyncio.Future[int]] = {}
_whole_groups: set[int] = set()


def reap_orphans() -> None:
    """Reap every process that ends, from now on; to be called on the loop."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap)
    _reap()


def start(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    descriptors: Mapping[int, int] | None = None,
    leaves_nothing: bool = False,
    netns: Netns = OWN,
) -> Process:
    """Start `argv` as a child that stays; it dies with the gateway. To be called on the loop.

    The lines that it writes go to `on_line` (`gateway.system.output`), but not what others write
    after its end. `descriptors` maps the child's descriptor numbers to ours; it gets no others.
    With `leaves_nothing`, what is left of its process group is killed when it ends. It runs in
    `netns`, as in `run`.

    Raises MissingError or ProcessError; `is_shortage` says whether a later attempt may succeed.
    """
    reap_orphans()
    # The kernel kills the child when we go, also by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
    # setpriv(1) asks for it and then becomes the program: Python code between fork and exec
    # is not safe once the health server's thread runs.
    command = [find_program("setpriv"), "--pdeathsig", "KILL", "--", find_program(argv[0])]
    try:
        with (
            piped(on_line) as (output, write_end),
            netns.entered(),
            handed_over(descriptors or {}) as given,
        ):
            wiring: list[tuple[object, ...]] = [
                *((os.POSIX_SPAWN_DUP2, write_end, number) for number in (1, 2)),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            ]
            pid = os.posix_spawn(
                command[0],
                [*command, *argv[1:]],
                {**MINIMAL_ENVIRONMENT, **(env or {})},
                file_actions=[*wiring, *given],
                setpgroup=0,
                setsigmask=(),
                setsigdef=signal.valid_signals(),  # Python ignores some, and a child would too
            )
    except OSError as err:
        raise _not_started(argv[0], err) from err
    applied.started(argv)
    exited = _exits[pid] = asyncio.get_running_loop().create_future()
    if leaves_nothing:
        _whole_groups.add(pid)
    exited.add_done_callback(lambda _: output.finish())
    return Process(argv[0], pid, exited, output)


def _reap() -> None:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        pid = ended.si_pid
        if pid in _whole_groups:
            # Before its leader is reaped: until then no other group can have the number.
            _whole_groups.discard(pid)
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        exited = _exits.pop(pid, None)
        if exited is not None and not exited.done():
            exited.set_result(os.waitstatus_to_exitcode(status))
