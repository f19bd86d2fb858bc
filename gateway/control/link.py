"""What the server of the control API knows of the gateway: it asks, and waits for the answer.

However many clients there are, the gateway gets few questions: those for the status are combined,
and orders follow one after the other.
"""

import asyncio
import itertools
from collections.abc import Callable

from gateway.control.messages import LONGEST_REQUEST, Message, Order, packed, unpacked

ANSWER_TIME = 5.0
"""Seconds for an answer of the gateway."""
FRESH = 0.1
"""Seconds for which a status is passed on without another question."""
MOST_ORDERS = 8
"""How many requests that change something may be waiting."""


class Unanswered(Exception):  # noqa: N818 - it is what a question is
    """The gateway does not answer now."""


class Busy(Exception):  # noqa: N818 - it is what the gateway is
    """Too many requests that change something are waiting."""


class Link:
    """The messages to the gateway and from it.

    `on_roles` gets the first message, and each that replaces it; `on_event` gets name and content
    of an event. `latest` is the last status that has come: it never lags behind an event.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_roles: Callable[[Message], None],
        on_event: Callable[[str, Message], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_roles = on_roles
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._asking: asyncio.Task[Message] | None = None
        self.latest: Message = {}
        self._status_at = float("-inf")
        self._orders = asyncio.Lock()
        self._queued = 0

    async def run(self) -> None:
        """Read messages until the gateway has ended. Raises Broken and ValueError."""
        while line := await self._reader.readline():
            message = unpacked(line)
            if "roles" in message:
                self._on_roles(message)
            elif "event" in message:
                self._know(message)
                self._on_event(message["event"], message["data"])
            elif "ping" in message:
                self._send({"pong": message["ping"]})
            else:
                waiting = self._waiting.pop(message["id"], None)
                if waiting and not waiting.done():
                    waiting.set_result(message)

    async def status(self) -> Message:
        """Return the status, as it was FRESH seconds ago or later. Raises Unanswered.

        `status` is that of `gateway status --json`, and `vpn` the state in gluetun's words.
        """
        if asyncio.get_running_loop().time() - self._status_at < FRESH:
            return self.latest
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_status())
        return await asyncio.shield(self._asking)

    async def order(self, order: Order, *, role: str, client: str) -> Message:
        """Pass an order on, for the log with the role and address, and return what comes of it.

        Raises Busy and Unanswered.
        """
        if self._queued >= MOST_ORDERS:
            raise Busy
        self._queued += 1
        try:
            async with self._orders:
                effect = await self._ask({"do": order, "role": role[:99], "client": client[:99]})
                self._status_at = float("-inf")
                return effect
        finally:
            self._queued -= 1

    async def watch(self) -> None:
        """Ask for events from now on, and for the status before them. Raises Unanswered."""
        self._know(await self._ask({"watch": True}))

    def report(self, message: Message) -> None:
        """Send what needs no answer."""
        self._send(message)

    async def _ask_status(self) -> Message:
        self._know(answer := await self._ask({"ask": "status"}))
        return answer

    def _know(self, message: Message) -> None:
        """Remember the status that a message has."""
        self.latest, self._status_at = message, asyncio.get_running_loop().time()

    async def _ask(self, message: Message) -> Message:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        self._waiting[number] = waiting = loop.create_future()
        try:
            self._send({"id": number, **message})
            async with asyncio.timeout(ANSWER_TIME):
                answer: Message = await waiting
                return answer
        except TimeoutError as err:
            raise Unanswered from err
        finally:
            self._waiting.pop(number, None)

    def _send(self, message: Message) -> None:
        line = packed(message)
        if len(line) > LONGEST_REQUEST:
            raise ValueError("a message to the gateway is too long")
        self._writer.write(line)
