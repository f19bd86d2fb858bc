"""The one task group, and the work in it that takes time, each piece as a task.

An error that a job does not turn into an event ends the task group, and the gateway with it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gateway.daemon.inbox import Inbox
from gateway.errors import NotClosedError
from gateway.policy.actions import Work
from gateway.policy.events import Event

Job = Callable[[], Coroutine[Any, Any, Event]]


class Jobs:
    """Runs at most one job of each kind; its result is an event in the inbox."""

    def __init__(self, group: asyncio.TaskGroup, inbox: Inbox) -> None:
        self._group = group
        self._inbox = inbox
        self._running: dict[Work, asyncio.Task[None]] = {}
        self._ending: dict[Work, set[asyncio.Task[None]]] = {work: set() for work in Work}

    def start(self, work: Work, job: Job) -> None:
        """Start `job`, once those of its kind that were abandoned have ended."""
        self._running[work] = self._group.create_task(
            self._run(work, job, frozenset(self._ending[work])), name=work.name.lower()
        )

    def abandon(self) -> None:
        """Cut off all jobs, and withdraw results that were not taken yet."""
        for work in Work:
            self._inbox.withdraw(work)
        for work, task in self._running.items():
            task.cancel()
            self._ending[work].add(task)
            task.add_done_callback(self._ending[work].discard)
        self._running.clear()

    async def ended(self, seconds: float) -> None:
        """Wait until what was abandoned has ended, `seconds` at most."""
        if tasks := set[asyncio.Task[None]]().union(*self._ending.values()):
            await asyncio.wait(tasks, timeout=seconds)

    async def _run(self, work: Work, job: Job, former: frozenset[asyncio.Task[None]]) -> None:
        if former:
            await asyncio.wait(former)
        event = await job()
        if self._running.get(work) is asyncio.current_task():
            del self._running[work]
            self._inbox.report(work, event)


async def together(
    main: Callable[[asyncio.TaskGroup], Coroutine[Any, Any, None]],
    producers: Mapping[str, Coroutine[Any, Any, None]],
) -> None:
    """Run `main` to its end in a task group, and `producers`, by name, for as long as it runs.

    An error of any task cancels `main` and is raised when all have ended. A producer that returns
    is done. Where `main` raises NotClosedError, that is raised, whatever came before it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run, name=name) for name, run in producers.items()]
            try:
                await main(group)
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as errors:
        error = gravest(errors)
    else:
        return
    raise error


def gravest(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to end with: that the namespace is not closed, or else the first one."""
    all_errors = list(_leaves(errors))
    return next((it for it in all_errors if isinstance(it, NotClosedError)), all_errors[0])


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in errors.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
