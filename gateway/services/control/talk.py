"""What the gateway says to the process of the control API, and what it reads of it.

As of a stranger: short messages, few of them, and the first that is none ends the process.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

import structlog

from gateway.control.messages import Broken, Order, packed, unpacked
from gateway.model.frozen import frozen
from gateway.policy.history import History
from gateway.policy.report import Status
from gateway.services.control.events import Past
from gateway.services.health.board import describe
from gateway.system.process import Process

PACE, PACE_OF_ORDERS = 0.05, 0.2
"""Seconds from one message of the process to the next that is read."""
PING_EVERY, PONG_TIME = 30.0, 10.0
"""Seconds between two questions whether the process is there, and for its answer."""
END_TIME = 1.0
"""Seconds that a process may take to end once it has hung up, so that its exit code is known."""
LOOK_EVERY = 0.25
"""Seconds between two looks for events, while a client wants them."""
MOST_UNREAD = 1 << 20
"""Bytes that the process may leave unread."""
LONGEST_NAME = 100


@frozen
class Effect:
    """What comes of an order: a stable code, and a text; a refused one changes nothing."""

    code: str
    text: str
    is_refused: bool = False


@frozen
class Gateway:
    """What the API may know of the gateway, and ask of it; all of it is called on the loop.

    `word` is the state as gluetun names it. `order` asks for something, and returns what comes of
    it; nothing has happened by then.
    """

    status: Callable[[], Status]
    word: Callable[[], str]
    history: Callable[[], History]
    clock: Callable[[], float]
    order: Callable[[Order], Effect]


class Talk:
    """What is said with one process."""

    def __init__(
        self,
        gateway: Gateway,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: Callable[[], None],
        known_role: Callable[[object], str],
    ) -> None:
        self._gateway = gateway
        self._reader = reader
        self._writer = writer
        self._heard = heard
        self._known_role = known_role
        self._pong = asyncio.Event()
        self._past: Past | None = None
        self._log = structlog.get_logger()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, which waits until the process reads it. Raises nothing."""
        self._writer.write(packed(message))

    async def until_it_ends(self, process: Process) -> str:
        """Answer until the process ends, does not answer, or says nonsense; return which."""
        work = (self._answers(), self._pings(), self._events())
        tasks = [asyncio.create_task(it) for it in work]
        ended: set[asyncio.Future[Any]] = {*tasks, process.exited}
        try:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            reasons = [it.result() for it in tasks if it.done()]
            await asyncio.wait([process.exited], timeout=END_TIME)  # it may be ending
            return reasons[0] if process.running else str(process.end)
        finally:
            for it in tasks:
                it.cancel()
            await asyncio.wait(tasks)

    async def _answers(self) -> str:
        """Answer messages, at a limited pace, and return what is wrong with the last one."""
        while True:
            try:
                line = await self._reader.readline()
                if not line:
                    return "it has hung up"
                pause = self._answered(unpacked(line))
            except (ValueError, KeyError, TypeError):
                return "it has sent something else than a message"
            except (OSError, MemoryError) as err:
                return f"it cannot be heard: {err}"
            if self._writer.transport.get_write_buffer_size() > MOST_UNREAD:
                return "it does not read what it is sent"
            await asyncio.sleep(pause)

    def _answered(self, message: dict[str, Any]) -> float:
        """Answer a message and return after how long the next one is read.

        Raises ValueError, KeyError and TypeError where it is none.
        """
        match message:
            case {"ask": "status", "id": int(number)}:
                self.send({"id": number, **self._state()})
            case {"do": str(wanted), "id": int(number), "role": str(role), "client": str(client)}:
                effect = self._follow(Order(wanted), self._known_role(role), client)
                self.send({"id": number, **asdict(effect)})
                return PACE_OF_ORDERS
            case {"watch": True, "id": int(number)}:
                self._past = self._past or Past(self._gateway.history(), self._gateway.status())
                self.send({"id": number, **self._state()})
            case {"watch": False}:
                self._past = None
            case {"denied": str(client)}:
                self._log.warning("control API refused a credential", client=_shown(client))
                return PACE_OF_ORDERS
            case {"pong": int()}:
                self._pong.set()
                self._heard()
            case _:
                raise Broken("unknown")
        return PACE

    def _state(self) -> dict[str, Any]:
        """Return the state as messages have it."""
        status = describe(self._gateway.status(), self._gateway.clock())
        return {"status": status, "vpn": self._gateway.word()}

    def _follow(self, order: Order, role: str, client: str) -> Effect:
        effect = self._gateway.order(order)
        self._log.info(
            "control API order",
            order=str(order),
            effect=effect.code,
            role=role,
            client=_shown(client),
        )
        return effect

    async def _pings(self) -> str:
        """Ask now and then whether the process is there, and return that it is not."""
        number = 0
        while True:
            number += 1
            self._pong.clear()
            self.send({"ping": number})
            try:
                async with asyncio.timeout(PONG_TIME):
                    await self._pong.wait()
            except TimeoutError:
                return f"no answer for {PONG_TIME:g} s"
            await asyncio.sleep(PING_EVERY)

    async def _events(self) -> NoReturn:
        """Send events while a client wants them."""
        while True:
            await asyncio.sleep(LOOK_EVERY if self._past else 4 * LOOK_EVERY)
            if self._past is None:
                continue
            for name, data in self._past.news(self._gateway.history(), self._gateway.status()):
                self.send({"event": name, "data": data, **self._state()})


def _shown(text: str) -> str:
    """Return a text of the process for the log."""
    return "".join(it for it in text[:LONGEST_NAME] if it.isprintable())
