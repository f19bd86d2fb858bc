"""Server-sent events: what changes in the gateway, for clients that keep their connection open.

The format is that of the HTML standard, section 9.2. A client that does not read is hung up, and so
is the oldest one of an address that has most of them, when there are too many.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Protocol, TypeVar

from gateway.control.link import Link
from gateway.control.messages import Message

MOST_STREAMS = 16
"""How many clients get events."""
MOST_UNREAD = 64 << 10
"""Bytes that a client may leave unread."""
QUIET_TIME = 15.0
"""Seconds after which a comment is sent, so that proxies do not give up."""
RETRY = 3000
"""Milliseconds after which a client connects again."""

EVENTS_TYPE = "text/event-stream"
SHOWN = ("state", "healthy", "reason", "reason_code", "detail", "endpoint", "state_age")
"""What a client gets of the status at the beginning."""


class Client(Protocol):
    """A connection that gets events."""

    place: str

    def push(self, data: bytes) -> int:
        """Send `data`, and return how many bytes are unread."""

    def drop(self) -> None:
        """Hang up."""


C = TypeVar("C", bound=Client)


class Streams:
    """The clients that get events, which the gateway sends while there is any."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._clients: dict[Client, None] = {}
        self._beginning = 0
        self._watching: asyncio.Task[None] | None = None

    async def watched(self) -> None:
        """Have the gateway send events, before a client is added. Raises Unanswered."""
        self._beginning += 1
        try:
            if self._watching is None:
                self._watching = asyncio.create_task(self._link.watch())
                self._watching.add_done_callback(self._take_back)
            await asyncio.shield(self._watching)
        except BaseException:
            self._beginning -= 1
            self._end_unused()
            raise
        self._beginning -= 1

    def add(self, client: Client) -> None:
        """Give `client` the last status, and every event that follows."""
        status = self._link.latest["status"]
        self._clients[client] = None
        if len(self._clients) > MOST_STREAMS:
            crowd_of([*self._clients])[0].drop()
        first = {name: status.get(name) for name in SHOWN}
        self._push(client, b"retry: %d\n\n" % RETRY + framed("state", first))

    def remove(self, client: Client) -> None:
        """Forget a client that has hung up."""
        self._clients.pop(client, None)
        self._end_unused()

    def send(self, name: str, data: Message) -> None:
        """Send an event to all."""
        event = framed(name, data)
        for client in [*self._clients]:
            self._push(client, event)

    async def keep_alive(self) -> None:
        """Send a comment now and then, while there is any client."""
        while True:
            await asyncio.sleep(QUIET_TIME)
            for client in [*self._clients]:
                self._push(client, b":\n\n")

    def _take_back(self, watching: "asyncio.Task[None]") -> None:
        """Have the next client ask again where the gateway has not answered."""
        has_failed = not watching.cancelled() and watching.exception() is not None
        if has_failed and watching is self._watching:
            self._watching = None

    def _end_unused(self) -> None:
        """Have the gateway stop sending events once the last client has gone and none begins."""
        if self._watching and not self._clients and not self._beginning:
            self._watching = None
            self._link.report({"watch": False})

    def _push(self, client: Client, data: bytes) -> None:
        if client in self._clients and client.push(data) > MOST_UNREAD:
            client.drop()


def framed(name: str, data: object) -> bytes:
    """Return an event in the format of the standard; JSON has no line break."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def crowd_of(clients: Sequence[C]) -> list[C]:
    """Return the clients of the address that has most of them; they stay in their order."""
    counts: dict[str, int] = {}
    for it in clients:
        counts[it.place] = counts.get(it.place, 0) + 1
    most = max(counts, key=lambda place: counts[place])
    return [it for it in clients if it.place == most]
