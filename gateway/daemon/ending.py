"""The end: closed rules, then no interface and no key."""

import asyncio
from collections.abc import Callable

import structlog

from gateway.daemon.enforcement import Enforcement
from gateway.daemon.ports import Parts
from gateway.errors import GatewayError, NotClosedError, is_shortage
from gateway.policy.timing import Timing


async def end_closed(kernel: Enforcement, clock: Callable[[], float], timing: Timing) -> None:
    """Put the closed rules into force for the end, again and again while there is a shortage.

    After `Timing.closing_time` the links are set down instead, because nothing tries again later.
    Raises NotClosedError, whose message says what holds the namespace closed, or that nothing does.
    Being cancelled does not end the attempts; it is raised after them.
    """
    deadline = clock() + timing.closing_time
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            kernel.close()
        except Exception as err:
            if is_shortage(err) and clock() < deadline:
                try:
                    await asyncio.sleep(timing.closing_pause)
                except asyncio.CancelledError as cancelling:
                    cancelled = cancelling
                continue
            problem = str(err) or type(err).__name__
            raise NotClosedError(f"{problem}; {_links(kernel.shut())}") from err
        break
    if cancelled is not None:
        raise cancelled


def _links(still_up: tuple[str, ...] | None) -> str:
    if still_up is None:
        return "the links are as they were, and so are the rules"
    return f"still up: {', '.join(still_up)}" if still_up else "every link is down"


async def clear_away(parts: Parts) -> None:
    """Remove the interface and its key; the closed rules stay, whatever happens here.

    The kernel keeps its flows: a gateway that starts in this namespace continues the connections.
    """
    try:
        await parts.tunnel.down()
    except (GatewayError, OSError, MemoryError) as err:
        structlog.get_logger().error("could not clean up", problem=str(err))
