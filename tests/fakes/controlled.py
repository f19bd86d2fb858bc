"""A gateway for the control API: it has a status, follows orders at once, and serves the API.

It runs the real service with its real process. `python -m tests.fakes.controlled ADDRESS KEY` does
so until it is ended, for programs that are tested against it.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.control.messages import Order
from gateway.model import HostPort, Secret
from gateway.model.control import Auth, Control, Role, every_route
from gateway.model.lease import Lease
from gateway.policy.history import History
from gateway.policy.reload import Answer, Outcome
from gateway.policy.report import Status
from gateway.policy.states import Reason
from gateway.services.control.service import ControlServer
from gateway.services.control.talk import Effect, Gateway

KEY = "a-key-of-the-tests-0123456789"
ALL = Role("all", Auth.KEY, every_route(), Secret(KEY))
WORDS: Mapping[str, str] = {"connected": "running", "paused": "stopped"}


@dataclass
class Controlled:
    """A gateway that only has a status."""

    follows: bool = True
    orders: list[Order] = field(default_factory=list)
    status: Status = field(
        default_factory=lambda: Status(
            time.monotonic(), "connected", healthy=True, reason=Reason.ANSWERS, since=0.0
        )
    )
    history: History = field(init=False)

    def __post_init__(self) -> None:
        """Begin its history with its status."""
        self.history = History().noted(self.status)

    def become(self, status: Status) -> None:
        """Publish `status`."""
        self.status = status
        self.history = self.history.noted(status)

    def order(self, order: Order) -> Effect:
        """Follow `order`, or only note it."""
        self.orders.append(order)
        now = time.monotonic()
        if not self.follows:
            return Effect(str(order), "noted")
        if order is Order.RELOAD:
            self.become(replace(self.status, at=now, reload=Answer(now, Outcome.UNCHANGED)))
            return Effect("reload", "the configuration is read again")
        if order in {Order.PAUSE, Order.RESUME}:
            state = "paused" if order is Order.PAUSE else "connected"
            self.become(replace(self.status, at=now, since=now, state=state))
        elif self.status.state == "paused":
            return Effect("is_paused", "the gateway is paused", is_refused=True)
        return Effect(str(order), "as asked")

    def lease(self, *ports: int) -> None:
        """Have `ports` forwarded."""
        leases = tuple(Lease(it, it, time.monotonic() + 60) for it in ports)
        self.become(replace(self.status, at=time.monotonic(), leases=leases))

    def server(self, address: HostPort, *roles: Role) -> ControlServer:
        """Return the service, which has yet to be run."""
        gateway = Gateway(
            lambda: self.status,
            lambda: WORDS.get(self.status.state, "starting"),
            lambda: self.history,
            time.monotonic,
            self.order,
        )
        selection = (("countries", ("Sweden",)),)
        return ControlServer(address, Control(roles or (ALL,), "mullvad", selection), gateway)


def main() -> None:
    """Serve until the end."""
    host, _, port = sys.argv[1].rpartition(":")
    role = replace(ALL, credential=Secret(sys.argv[2]))
    asyncio.run(Controlled().server(HostPort(host, int(port)), role).run())


if __name__ == "__main__":
    main()
