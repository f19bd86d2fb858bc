"""Tasks that run beside the one that decides: none of them can fail unnoticed."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def alongside(main: Coroutine[Any, Any, None], *others: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end, and `others` for as long as it runs.

    An error of one of `others` cancels `main`, which closes the namespace on its way out, and is
    raised then. One of them that returns is done. Raises what `main` raises.
    """
    deciding = asyncio.ensure_future(main)
    tasks = [asyncio.ensure_future(other) for other in others]
    try:
        waiting = set(tasks)
        while not deciding.done():
            done, _ = await asyncio.wait({deciding, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting -= done
            for task in done - {deciding}:
                task.result()
    finally:
        for task in (deciding, *tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await deciding
