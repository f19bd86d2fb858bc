"""No task that runs beside the deciding one fails unnoticed."""

import asyncio

import pytest

from gateway.daemon.alongside import alongside


class Deciding:
    """Runs until it is stopped or cancelled; `closed` says that it closed on its way out."""

    def __init__(self) -> None:
        self.closed = False
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        """Wait, and close, which takes a moment."""
        try:
            await self.stopped.wait()
        finally:
            await asyncio.sleep(0.01)
            self.closed = True


async def for_ever() -> None:
    """Produce nothing."""
    await asyncio.Event().wait()


async def breaks() -> None:
    """Fail in a way that nobody has foreseen."""
    await asyncio.sleep(0.01)
    raise RuntimeError("a fault")


async def returns() -> None:
    """Have nothing more to do."""


@pytest.mark.promise("P1")
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_task_that_fails_closes_and_ends_the_gateway(position: int) -> None:
    """Whichever it is, and however many others go on."""

    async def run() -> Deciding:
        deciding = Deciding()
        others = [for_ever(), for_ever()]
        others.insert(position, breaks())
        with pytest.raises(RuntimeError, match="a fault"):
            await alongside(deciding.run(), *others)
        return deciding

    assert asyncio.run(run()).closed


def test_a_task_that_returns_ends_nothing() -> None:
    """The health server has been started, for one; the others end with the deciding one."""

    async def run() -> Deciding:
        deciding = Deciding()
        asyncio.get_running_loop().call_later(0.05, deciding.stopped.set)
        await asyncio.wait_for(alongside(deciding.run(), returns(), for_ever()), 5)
        return deciding

    assert asyncio.run(run()).closed


def test_what_the_deciding_one_raises_is_raised() -> None:
    """Nothing hides it."""

    async def run() -> None:
        await alongside(breaks(), for_ever())

    with pytest.raises(RuntimeError, match="a fault"):
        asyncio.run(run())
