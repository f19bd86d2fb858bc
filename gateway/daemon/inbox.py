"""The one queue between the producers and the loop: bounded, and nothing in it can get lost.

Each event has a place: one for each kind of work, one for the clock, one for the kernel's reports,
one for questions, one for the signal to stop, one for the configuration, one for leases. So the
queue is never longer than there are places, whatever a neighbour does to links and routes. An event
whose place is taken merges with the one that is waiting there: that is right for Tick, Changed,
Asked and Stop, which have no content. A result of work is never merged, because the same work does
not start again before its result has been taken or withdrawn. Of two readings of the configuration
the later one counts, and of two reports of leases, each of which has all of them; so it does of the
orders to pause and to resume, and of those about the connection.
"""

import asyncio
from enum import Enum, auto

from gateway.policy.actions import Work
from gateway.policy.events import (
    Asked,
    Changed,
    Event,
    Leased,
    NotReloaded,
    Reloaded,
    Stop,
    Tick,
)
from gateway.policy.orders import Order, Ordered


class Place(Enum):
    """Where events wait that no work reports."""

    STOP = auto()
    KERNEL = auto()
    CLOCK = auto()
    COUNT = auto()
    CONFIGURATION = auto()
    LEASES = auto()
    PAUSE = auto()
    CONNECTION = auto()


WITHOUT_CONTENT: dict[type[Event], Place] = {
    Stop: Place.STOP,
    Changed: Place.KERNEL,
    Tick: Place.CLOCK,
    Asked: Place.COUNT,
}


class Inbox:
    """Events in the order of their arrival; a stop comes first. To be used on the loop."""

    def __init__(self) -> None:
        self._waiting: dict[Place | Work, Event] = {}
        self._arrived = asyncio.Event()

    def note(self, event: Stop | Changed | Tick | Asked) -> None:
        """Put `event`, unless one like it is waiting already."""
        self._waiting.setdefault(WITHOUT_CONTENT[type(event)], event)
        self._arrived.set()

    def order(self, event: Ordered) -> None:
        """Put an order, in place of an earlier one of its kind."""
        is_pause = event.order in {Order.PAUSE, Order.RESUME}
        self._waiting[Place.PAUSE if is_pause else Place.CONNECTION] = event
        self._arrived.set()

    def read_again(self, event: Reloaded | NotReloaded) -> None:
        """Put what came of reading the configuration again, in place of what was read before."""
        self._waiting[Place.CONFIGURATION] = event
        self._arrived.set()

    def lease(self, event: Leased) -> None:
        """Put which ports are forwarded now, in place of those before."""
        self._waiting[Place.LEASES] = event
        self._arrived.set()

    def report(self, work: Work, event: Event) -> None:
        """Put the result of `work`. Raises RuntimeError when an earlier one was not taken."""
        if work in self._waiting:
            raise RuntimeError(f"{work} reported twice")
        self._waiting[work] = event
        self._arrived.set()

    def withdraw(self, work: Work) -> None:
        """Take the result of `work` back, if it is waiting."""
        self._waiting.pop(work, None)

    async def get(self) -> Event:
        """Wait for an event and return it; other tasks run once before, even if one is there."""
        await asyncio.sleep(0)
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        if Place.STOP in self._waiting:
            return self._waiting.pop(Place.STOP)
        return self._waiting.pop(next(iter(self._waiting)))
