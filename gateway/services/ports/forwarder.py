"""What obtains ports from a server: one kind for each protocol, behind one interface.

A forwarder lives as long as one connection. It decides nothing: it reports which ports the server
has given, and `gateway.services.ports.service` judges that.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.model import Config, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.port_problems import Found
from gateway.system.netns import Netns


@frozen
class Surroundings:
    """What a forwarder works with: the connection's tunnel, and where it is.

    `former` are the ports of the connection before, which are asked for again. `environ` is that of
    the gateway's start.
    """

    config: Config
    tunnel: Tunnel
    netns: Netns
    clock: Callable[[], float]
    environ: Mapping[str, str]
    former: tuple[int, ...] = ()


class Forwarder(Protocol):
    """Obtains ports and keeps them."""

    starts: int
    """How often what it runs has been started."""

    async def run(self, take: Callable[[Found], None]) -> None:
        """Report what there is, again whenever that changes or lasts longer, until cancelled.

        When cancelled it gives the ports back, as far as that can be done in half a second. Raises
        GatewayError or OSError where it cannot continue; it is made and run again then.
        """


def end_if_cancelled() -> None:
    """Raise CancelledError if this task has been cancelled.

    To be called after another error: the end of a child process can fail, and that error would take
    the place of the cancellation.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
