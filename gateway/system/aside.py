"""Work that may wait for another process, on a thread of its own and not on the loop.

Even a file that was opened without waiting can keep its user waiting: write(2) waits for the lock
of the inode, and a process that writes a gigabyte in one call holds that lock meanwhile.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from gateway.errors import NetworkError

TIME_LIMIT = 0.5
"""Seconds that the loop waits. The work continues after that, and nothing waits for it."""


class NotBegunError(NetworkError):
    """The work was not begun."""


class Aside:
    """Does one thing at a time; `subject` is what it works on, for errors."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._is_busy = False

    async def run(self, work: Callable[[], None], time_limit: float = TIME_LIMIT) -> None:
        """Do `work`, and raise the GatewayError or OSError that it raises.

        Raises NetworkError when it is not done after `time_limit` seconds, when the work before
        has not ended yet, and when no thread can be started.
        """
        if self._is_busy:
            raise NotBegunError("the last attempt is still waiting", self._subject, errno.EBUSY)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(error: Exception | None) -> None:
            self._is_busy = False
            if done.cancelled():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def body() -> None:
            error: Exception | None = None
            try:
                work()
            except Exception as err:  # noqa: BLE001 - it is raised where the work was asked for
                error = err
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, error)

        try:
            threading.Thread(target=body, name="aside", daemon=True).start()
        except RuntimeError as err:
            raise NotBegunError("no thread can be started", self._subject, errno.EAGAIN) from err
        self._is_busy = True
        try:
            async with asyncio.timeout(time_limit):
                await done
        except TimeoutError as err:
            raise NetworkError(
                f"not done after {time_limit:g} s: another process keeps it busy",
                self._subject,
                errno.ETIMEDOUT,
            ) from err

    async def run_with(
        self, descriptor: int, work: Callable[[int], None], time_limit: float = TIME_LIMIT
    ) -> None:
        """Do `work` as `run` does, with a descriptor of its own for the file `descriptor`.

        It stays open as long as the work takes: else the work could get, by the same number, a file
        that is opened later.
        """
        own = os.dup(descriptor)

        def body() -> None:
            try:
                work(own)
            finally:
                os.close(own)

        try:
            await self.run(body, time_limit)
        except NotBegunError:
            os.close(own)
            raise
