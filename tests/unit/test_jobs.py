"""The one task group: what its end and its errors look like from outside."""

import asyncio

import pytest

from gateway.daemon.inbox import Inbox
from gateway.daemon.jobs import Jobs, gravest, together
from gateway.errors import NotClosedError
from gateway.policy.actions import Work
from gateway.policy.events import Changed, Event, Failed, Probed, Stop, Tick

OPEN = NotClosedError("every link is down")


def test_the_error_that_says_that_the_namespace_is_open_is_the_gravest() -> None:
    """However deep it is; otherwise it is the first."""
    first, second = RuntimeError("first"), RuntimeError("second")
    assert gravest(BaseExceptionGroup("", [first, second])) is first
    inner = BaseExceptionGroup("", [second, BaseExceptionGroup("", [OPEN])])
    assert gravest(BaseExceptionGroup("", [first, inner])) is OPEN
    assert gravest(BaseExceptionGroup("", [BaseExceptionGroup("", [second]), first])) is second


async def forever(seen: list[str], name: str) -> None:
    """Run until cut off."""
    try:
        await asyncio.sleep(3600)
    finally:
        seen.append(f"{name} {asyncio.current_task().get_name()}")  # type: ignore[union-attr]


def test_producers_run_for_as_long_as_the_loop_and_under_their_names() -> None:
    """One that returns is done, and ends nothing."""
    seen: list[str] = []

    async def main(_: asyncio.TaskGroup) -> None:
        await asyncio.sleep(0.01)
        seen.append("main ends")

    async def returns() -> None:
        seen.append("returns")

    runs = {"clock": forever(seen, "ends"), "short": returns()}
    asyncio.run(together(main, runs))
    assert seen == ["returns", "main ends", "ends clock"]


def test_an_error_of_a_producer_cuts_the_loop_off_and_is_raised_by_itself() -> None:
    """Not as a group: its text is the last line of the log."""
    seen: list[str] = []

    async def main(_: asyncio.TaskGroup) -> None:
        await forever(seen, "main of")

    async def fails() -> None:
        raise RuntimeError("a fault")

    async def run() -> None:
        await together(main, {"clock": fails()})

    with pytest.raises(RuntimeError, match="a fault"):
        asyncio.run(run())
    assert len(seen) == 1


def test_a_loop_that_cannot_close_is_what_is_raised() -> None:
    """The error that came before it counts for less."""

    async def main(_: asyncio.TaskGroup) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise OPEN

    async def fails() -> None:
        raise RuntimeError("a fault")

    async def run() -> None:
        await together(main, {"clock": fails()})

    with pytest.raises(NotClosedError):
        asyncio.run(run())


async def answers(answer: Event, order: list[str], name: str, seconds: float = 0.0) -> Event:
    """Note the beginning of a job that takes a while."""
    order.append(f"{name} in {asyncio.current_task().get_name()}")  # type: ignore[union-attr]
    await asyncio.sleep(seconds)
    return answer


def test_kinds_of_work_do_not_wait_for_each_other() -> None:
    """Each is a task of the name of its kind."""
    order: list[str] = []

    async def run() -> None:
        inbox = Inbox()
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(group, inbox)
            jobs.start(Work.CONNECT, lambda: answers(Failed("no"), order, "a", 0.02))
            jobs.start(Work.PROBE, lambda: answers(Probed(answered=True), order, "b"))
            assert [await inbox.get(), await inbox.get()] == [Probed(answered=True), Failed("no")]

    asyncio.run(run())
    assert order == ["a in connect", "b in probe"]


def test_a_result_that_waits_is_withdrawn_with_the_work() -> None:
    """And the next result of its kind is not the second one."""
    order: list[str] = []

    async def run() -> None:
        inbox = Inbox()
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(group, inbox)
            jobs.start(Work.PROBE, lambda: answers(Probed(answered=True), order, "a"))
            await asyncio.sleep(0.01)
            jobs.abandon()
            jobs.start(Work.PROBE, lambda: answers(Probed(answered=False), order, "b"))
            assert await inbox.get() == Probed(answered=False)
            await jobs.ended(0)

    asyncio.run(run())


def test_the_end_of_abandoned_work_is_waited_for_but_not_for_long() -> None:
    """It may ignore that it was cut off, and reports nothing then."""
    ended: list[str] = []

    async def stubborn() -> Event:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
        ended.append("now")
        return Failed("late")

    async def run() -> None:
        inbox = Inbox()
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(group, inbox)
            jobs.start(Work.CONNECT, stubborn)
            await asyncio.sleep(0)
            jobs.abandon()
            await jobs.ended(0.01)
            assert not ended
            await jobs.ended(5)
            assert ended
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await inbox.get()

    asyncio.run(run())


def test_work_that_is_abandoned_again_and_again_leaves_nothing_behind() -> None:
    """A neighbour can make the gateway start as much of it as it likes."""

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            jobs = Jobs(group, Inbox())
            for _ in range(100):
                jobs.start(Work.CONNECT, lambda: answers(Failed("no"), [], "a", 3600))
                await asyncio.sleep(0)
                jobs.abandon()
            await jobs.ended(5)
            await asyncio.sleep(0)
            assert not any(jobs._ending.values())  # noqa: SLF001 - what it would grow in

    asyncio.run(run())


def test_other_tasks_run_between_two_events() -> None:
    """A flood of events does not starve the rest of the loop."""

    async def run() -> None:
        inbox, turns = Inbox(), 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for number in range(1, 6):
            inbox.note(Tick())
            await inbox.get()
            assert turns >= number
        task.cancel()

    asyncio.run(run())


def test_events_wait_in_the_order_of_their_arrival() -> None:
    """But a stop does not; it is not lost, and wakes who waits."""

    async def run() -> None:
        inbox = Inbox()
        inbox.note(Tick())
        inbox.report(Work.PROBE, Probed(answered=True))
        inbox.note(Changed())
        inbox.note(Stop())
        order = [await inbox.get() for _ in range(4)]
        assert order == [Stop(), Tick(), Probed(answered=True), Changed()]
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        inbox.note(Stop())
        assert await waiting == Stop()
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(0.01)
        inbox.report(Work.SAMPLE, Failed("no"))
        assert await waiting == Failed("no")
        inbox.withdraw(Work.SAMPLE)

    asyncio.run(run())
