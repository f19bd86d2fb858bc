"""The machine as the supervisor sees it: what the composition root has to put together."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.daemon.needs import Guard, Network
from gateway.firewall import Firewall
from gateway.model import Address, Status
from gateway.policy.probing import Probe
from gateway.policy.states import Query
from gateway.tunnel import TunnelBackend


class Resolver(Protocol):
    """Asks for the addresses of endpoints, from a socket of its own."""

    def open(self) -> Query:
        """Make the socket, and return what distinguishes its packets. Raises GatewayError."""

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        """Return the addresses of `names`, the last known ones where there is no answer.

        Closes the socket. Raises GatewayError for a name that never had an answer.
        """


class Hooks(Protocol):
    """The user's commands."""

    def up(self) -> None:
        """Start the command for a tunnel that carries traffic."""

    def down(self) -> None:
        """Start the command for one that no longer does."""

    async def finish(self) -> None:
        """Wait until all is done, but not for long."""


@dataclass(frozen=True)
class Parts:
    """Every part; `publish` takes each status, `clock` gives seconds, suspended ones too.

    `reserve` lends descriptors to what has to be put into force when there are none left.
    `write_resolver` gives workloads resolvers; it raises NetworkError, and takes half a second at
    most.
    """

    firewall: Firewall
    guard: Guard | None
    tunnel: TunnelBackend
    network: Network
    resolver: Resolver
    hooks: Hooks
    probe: Callable[[Probe], Coroutine[Any, Any, bool | None]]
    write_resolver: Callable[[tuple[Address, ...]], Coroutine[Any, Any, None]]
    forget_flows: Callable[[], Coroutine[Any, Any, None]]
    publish: Callable[[Status], None]
    clock: Callable[[], float]
    reserve: Callable[[], AbstractContextManager[None]] = nullcontext
    limits: tuple[str, ...] = ()
