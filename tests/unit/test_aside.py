"""Work next to the loop: the loop continues, even if the work waits."""

import asyncio
import errno
import os
import threading
import time
from pathlib import Path

import pytest

from gateway.errors import NetworkError
from gateway.system.aside import Aside, NotBegunError


def test_what_the_work_raises_comes_out_where_it_was_asked_for() -> None:
    """As if it had been done on the loop."""

    def refuse() -> None:
        raise NetworkError("no", "file", errno.EROFS)

    async def story() -> list[str]:
        done: list[str] = []
        aside = Aside("file")
        await aside.run(lambda: done.append("first"))
        with pytest.raises(NetworkError) as caught:
            await aside.run(refuse)
        assert caught.value.errno == errno.EROFS
        return done

    assert asyncio.run(story()) == ["first"]


def test_work_that_waits_for_another_program_keeps_only_its_own_thread() -> None:
    """Reported after its time; the loop continued meanwhile; nothing else begins until it ends."""
    release = threading.Event()

    def wait() -> None:
        release.wait(30)

    async def story() -> None:
        aside, turns = Aside("file"), 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        counting = asyncio.ensure_future(count())
        with pytest.raises(NetworkError) as caught:
            await aside.run(wait, 0.3)
        assert caught.value.errno == errno.ETIMEDOUT
        assert turns > 10
        counting.cancel()
        began = time.monotonic()
        with pytest.raises(NetworkError) as caught:
            await aside.run(lambda: None)
        assert caught.value.errno == errno.EBUSY
        assert time.monotonic() - began < 0.1
        release.set()
        await asyncio.sleep(0.1)
        await aside.run(lambda: None)

    asyncio.run(story())


def descriptors() -> set[str]:
    """Return the open descriptors of this process."""
    return {it.name for it in Path("/proc/self/fd").iterdir()}


def test_work_keeps_its_file_when_it_is_not_waited_for_any_more(tmp_path: Path) -> None:
    """Another file may have the same number by then. Work that was not begun leaves none open."""
    (tmp_path / "file").write_bytes(b"right")
    (tmp_path / "other").write_bytes(b"secret")
    release, ended, read = threading.Event(), threading.Event(), list[bytes]()

    def wait(descriptor: int) -> None:
        release.wait(30)
        read.append(os.pread(descriptor, 10, 0))
        ended.set()

    async def story() -> None:
        aside = Aside("file")
        given = os.open(tmp_path / "file", os.O_RDONLY)
        with pytest.raises(NetworkError):
            await aside.run_with(given, wait, 0.05)
        before = descriptors()
        with pytest.raises(NotBegunError):
            await aside.run_with(given, wait, 0.05)
        assert descriptors() == before
        os.close(given)
        again = os.open(tmp_path / "other", os.O_RDONLY)
        assert again == given
        release.set()
        assert ended.wait(5)
        os.close(again)

    asyncio.run(story())
    assert read == [b"right"]


def test_a_loop_that_has_ended_is_not_an_error_for_the_work() -> None:
    """It continues for a moment after the gateway has given up on it."""
    ended = threading.Event()

    async def story() -> None:
        with pytest.raises(NetworkError):
            await Aside("file").run(lambda: time.sleep(0.2), 0.05)

    before = threading.excepthook
    threading.excepthook = lambda _: ended.set()
    try:
        asyncio.run(story())
        time.sleep(0.4)
    finally:
        threading.excepthook = before
    assert not ended.is_set()
