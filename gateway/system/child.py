"""The supervisor of a child process: it starts it, waits until it is ready, restarts and stops it.

`Child` is the program over several processes; `gateway.system.process` has the single process.
What follows the end of a program is the owner's decision, and a value: `Restart` for a service that
has to be there, `NEVER` where the end is an event that the owner acts on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import field

from gateway.errors import GatewayError, ProcessEnded, ProcessError
from gateway.model.frozen import frozen
from gateway.system.netns import OWN, Netns
from gateway.system.process import Process, Start, start

POLL = 0.02
"""Seconds between two questions whether a program is ready."""


@frozen
class Restart:
    """When a program that ended is started again, all in seconds.

    After `first`, then after twice the pause before, up to `longest`. A program that has lasted
    `lasting` seconds counts as healthy: the pause begins with `first` again.
    """

    first: float = 0.5
    longest: float = 60.0
    lasting: float = 30.0

    def pause(self, former: float | None, lasted: float) -> float:
        """Return the seconds until the next start.

        `former` is the pause before the process that ended, None for the first process; `lasted`
        is for how many seconds that process was ready.
        """
        if former is None or lasted >= self.lasting:
            return self.first
        return min(2 * former, self.longest)


NEVER: Restart | None = None
"""The end of the program is reported, and it is not started again."""


@frozen
class Program:
    """What to start, and how to treat it.

    `env` comes in addition to the minimal environment; `descriptors` maps its descriptor numbers
    to ours, which have to stay open as long as it may be started. It runs in the network namespace
    `netns`. `start` starts it as `gateway.system.process.start` does. `ready_within` is how many
    seconds it may take to be ready, and `grace` how many to end after SIGTERM, before SIGKILL.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    descriptors: Mapping[int, int] = field(default_factory=dict)
    netns: Netns = OWN
    start: Start = start
    ready_within: float = 5.0
    grace: float = 0.5


@frozen
class End:
    """What is reported when the program ends, or when a restart of it fails.

    `problem` has the program, its exit code or signal and its last lines, or why it could not be
    started; `is_shortage` distinguishes the reasons. It `lasted` so many seconds. The next start is
    in `again_in` seconds, None for never.
    """

    problem: Exception
    lasted: float
    again_in: float | None

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None when the program was not there to end."""
        return self.problem.code if isinstance(self.problem, ProcessEnded) else None


def _ignored(_: object) -> None:
    """Take a report that the owner has no use for."""


async def _at_once() -> bool:
    """Be the probe of a program that is ready as soon as it is started."""
    return True


class Child:
    """A program that is started, restarted as its `Restart` says, and stopped; on the loop.

    There are never two processes of it: the former one is gone, and with it what it has started,
    before the next one begins.
    """

    def __init__(
        self,
        program: Program,
        *,
        restart: Restart | None = NEVER,
        ready: Callable[[], Awaitable[bool]] = _at_once,
        on_line: Callable[[str], None] = _ignored,
        on_end: Callable[[End], None] = _ignored,
    ) -> None:
        """`ready` is asked every POLL seconds; an OSError of it means "not yet".

        `on_line` gets the program's lines, at the limited rate of `gateway.system.output`, and
        `on_end` each end that was not asked for by `stop`. Neither may raise.
        """
        self.program = program
        self._restart = restart
        self._ready = ready
        self._on_line = on_line
        self._on_end = on_end
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def process(self) -> Process | None:
        """The current process, or the last one; None before the first start."""
        return self._process

    @property
    def running(self) -> bool:
        """Whether there is a process now, ready or not."""
        return self._process is not None and self._process.running

    async def start(self) -> None:
        """Start the program and wait until it is ready.

        Raises MissingError when it is not installed, ProcessEnded when it ended instead, and
        ProcessError when it could not be started (`is_shortage` says whether to try again), was
        not ready in time, or was stopped meanwhile. Nothing of it is left then. Once `start` has
        returned, `restart` decides what happens when it ends.
        """
        if self.running or not (self._keeping is None or self._keeping.done()):
            raise ProcessError(self.program.argv[0], "is already running")
        self._stopping = False
        await self._start()
        self._keeping = asyncio.create_task(self._keep(), name=f"child {self.program.argv[0]}")

    async def ended(self) -> None:
        """Wait until the program has ended for good: it was stopped, or is not restarted.

        To be awaited in a task group by an owner of a child with a `Restart`: an unexpected error
        of the supervisor is raised here.
        """
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
            if not self._keeping.cancelled():
                self._keeping.result()

    async def stop(self) -> None:
        """End the program and do not start it again; no error when there is none.

        It takes at most its grace and KILL_TIME. Raises ProcessError when the kernel cannot end it.
        """
        self._stopping = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._process is not None:
            await self._process.stop(self.program.grace)

    async def _start(self) -> None:
        program = self.program
        self._process = process = program.start(
            program.argv,
            on_line=self._on_line,
            env=program.env,
            descriptors=program.descriptors,
            leaves_nothing=True,
            netns=program.netns,
        )
        try:
            await process.during(self._until_ready(), program.ready_within)
        except TimeoutError as err:
            await process.stop(program.grace)
            what = f"not ready after {program.ready_within:g} s"
            # Without errno: ETIMEDOUT would be a shortage, and this program needs another start.
            raise ProcessError(program.argv[0], what) from err
        except ProcessEnded as err:
            if self._stopping:
                raise self._stopped() from err
            raise
        except BaseException:
            await process.stop(program.grace)
            raise
        if self._stopping:  # at the moment in which it became ready
            await process.stop(program.grace)
            raise self._stopped()

    def _stopped(self) -> ProcessError:
        return ProcessError(self.program.argv[0], "stopped before it was ready")

    async def _until_ready(self) -> None:
        while True:
            with suppress(OSError):
                if await self._ready():
                    return
            await asyncio.sleep(POLL)

    async def _keep(self) -> None:
        """Wait for the end of the process, report it, and start the next one as `restart` says."""
        loop = asyncio.get_running_loop()
        pause: float | None = None
        while self._process is not None:
            ready_at = loop.time()
            await asyncio.wait([self._process.exited])
            problem: Exception = self._process.end
            lasted = loop.time() - ready_at
            while True:
                pause = self._restart.pause(pause, lasted) if self._restart else None
                self._on_end(End(problem, lasted, pause))
                if pause is None:
                    return
                await asyncio.sleep(pause)
                try:
                    await self._start()
                except (GatewayError, MemoryError) as err:
                    problem, lasted = err, 0.0
                else:
                    break
