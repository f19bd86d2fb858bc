"""Work in a thread, while the caller waits for something else, such as a program."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in a thread; return what waits for it, and returns or raises what it did.

    Where there can be no thread, the work is done when its result is asked for.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def keep() -> None:
        try:
            returned.append(work())
        except BaseException as err:  # noqa: BLE001 - raised again where it is asked for
            raised.append(err)

    thread = threading.Thread(target=keep, name="meanwhile", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # what threading makes of EAGAIN
        return work

    def result() -> T:
        thread.join()
        if raised:
            raise raised[0]
        return returned[0]

    return result
