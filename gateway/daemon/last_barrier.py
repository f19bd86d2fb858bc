"""What is left where no rule can be put into force: links that are down."""

from collections.abc import Callable
from contextlib import suppress

import structlog

from gateway.errors import NetworkError

_UNPLUG = "stop the workloads, or take the container off its networks: `docker network disconnect`"


def shut_links(shut: Callable[[], tuple[str, ...]]) -> tuple[str, ...] | None:
    """Set links down with `shut`, and return those that are still up; None when not known.

    Logs both, because nothing else can be done. Does not raise.
    """
    log = structlog.get_logger()
    with suppress(OSError):  # of the log, whose reader may be gone
        try:
            still_up = shut()
        except (NetworkError, OSError) as err:
            log.error("could not set links down", problem=str(err), remedy=_UNPLUG)
            return None
        if still_up:
            log.error("links are still up", links=still_up, remedy=_UNPLUG)
        return still_up
    return None
