"""What each route of the control API answers: from the status, or by passing an order on.

An order is only noted by the gateway; what came of it is read in the status that follows.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.control import answers
from gateway.control.answers import Answer, Body
from gateway.control.link import Busy, Link, Unanswered
from gateway.control.messages import Order
from gateway.model.frozen import frozen

LOOK_EVERY = 0.1
"""Seconds between two looks at the status after an order."""
PAUSE_TIME, RESUME_TIME, RELOAD_TIME = 5.0, 10.0, 20.0
"""Seconds that an answer waits for what comes of an order."""

RETRY = ("Retry-After", "1")
UNANSWERED = answers.error(503, "the gateway does not answer now; try again", RETRY)
BUSY = answers.error(503, "too many orders are waiting; try again", RETRY)
BAD_STATUS = answers.error(
    400, 'the body has to be {"status":"running"} or {"status":"stopped"}, in JSON'
)


@frozen
class Asked:
    """A request that may be answered: its body, the role that allows it, and the client."""

    body: bytes
    role: str
    client: str


@dataclass
class Routes:
    """Answers requests by `link`; `document` describes the API, and the rest the configuration."""

    link: Link
    document: bytes
    provider: str = ""
    selection: dict[str, list[str]] = field(default_factory=dict)

    async def answer(self, route: str, asked: Asked) -> Answer:
        """Return the answer to a request for `route`, which is one of `ROUTES`."""
        try:
            return await self._handlers[route](asked)
        except Unanswered:
            return UNANSWERED
        except Busy:
            return BUSY

    def __post_init__(self) -> None:
        """Assign a method to each route."""
        read, change = self._read, self._change
        self._handlers: dict[str, Callable[[Asked], Awaitable[Answer]]] = {
            "GET /v1/version": read(answers.version),
            "GET /v1/vpn/status": self._status,
            "GET /v1/openvpn/status": self._status,
            "GET /v1/dns/status": read(lambda it: {"status": answers.dns_status(it)}),
            "GET /v1/portforward": read(answers.forwarded),
            "GET /v1/openvpn/portforwarded": read(answers.forwarded),
            "GET /v1/publicip/ip": read(answers.public_address),
            "GET /v1/vpn/settings": self._settings,
            "GET /api/v1/status": read(lambda it: it),
            "GET /api/v1/openapi.json": self._document,
            "PUT /v1/vpn/status": self._set_status,
            "PUT /v1/openvpn/status": self._set_status,
            "POST /api/v1/reconnect": change(Order.RECONNECT),
            "POST /api/v1/next": change(Order.NEXT),
            "POST /api/v1/reload": self._reload,
        }

    def _read(self, made_of: Callable[[Body], object]) -> Callable[[Asked], Awaitable[Answer]]:
        """Return what answers with what `made_of` makes of the status."""

        async def answer(_asked: Asked) -> Answer:
            return answers.in_json(made_of((await self.link.status())["status"]))

        return answer

    async def _status(self, _asked: Asked) -> Answer:
        return answers.in_json({"status": (await self.link.status())["vpn"]})

    async def _settings(self, _asked: Asked) -> Answer:
        return answers.in_json(answers.settings(self.provider, self.selection))

    async def _document(self, _asked: Asked) -> Answer:
        return Answer(200, self.document)

    def _change(self, order: Order) -> Callable[[Asked], Awaitable[Answer]]:
        """Return what passes `order` on."""

        async def answer(asked: Asked) -> Answer:
            effect = await self._pass_on(order, asked)
            if effect["is_refused"]:
                return answers.in_json({"error": effect["text"], "code": effect["code"]}, 409)
            return answers.in_json({"outcome": effect["code"], "text": effect["text"]}, 202)

        return answer

    async def _set_status(self, asked: Asked) -> Answer:
        wanted = _wanted(asked.body)
        if wanted is None:
            return BAD_STATUS
        status = await self.link.status()
        now, is_paused = status["vpn"], status["status"]["state"] == "paused"
        # While a shortage keeps the rules of a pause out, it is not stopped, and can be taken back.
        is_so = now == "stopped" if wanted == "stopped" else not is_paused
        if is_so:
            return answers.in_json({"outcome": f"already {now}"})
        order = Order.PAUSE if wanted == "stopped" else Order.RESUME
        effect = await self._pass_on(order, asked)
        if effect["is_refused"]:
            return answers.in_json({"error": effect["text"], "code": effect["code"]}, 409)
        seconds = PAUSE_TIME if wanted == "stopped" else RESUME_TIME
        found = await self._seen(lambda it: it["vpn"] == wanted, seconds)
        late = "stopping" if wanted == "stopped" else "starting"
        return answers.in_json({"outcome": wanted if found else late})

    async def _reload(self, asked: Asked) -> Answer:
        before = _begun_at(await self.link.status())
        await self._pass_on(Order.RELOAD, asked)
        found = await self._seen(lambda it: _begun_at(it) != before, RELOAD_TIME)
        if found is None:
            return answers.in_json({"outcome": "requested"}, 202)
        came = found["status"]["reload"]
        return answers.in_json(came, 200 if came["outcome"] in {"accepted", "unchanged"} else 422)

    async def _seen(self, done: Callable[[Body], bool], seconds: float) -> Body | None:
        """Return the first status that is as wanted, None if none is in `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            status = await self.link.status()
            if done(status):
                return status
            if loop.time() >= deadline:
                return None
            await asyncio.sleep(LOOK_EVERY)

    async def _pass_on(self, order: Order, asked: Asked) -> Body:
        return await self.link.order(order, role=asked.role, client=asked.client)


def _wanted(body: bytes) -> str | None:
    """Return the status that a body asks for, None if it asks for none."""
    try:
        content: Any = json.loads(body.decode())  # no encoding is guessed
    except (ValueError, RecursionError):
        return None
    wanted = content.get("status") if isinstance(content, dict) else None
    return wanted if wanted in ("running", "stopped") else None


def _begun_at(status: Body) -> float | None:
    reload = status["status"].get("reload")
    return reload["begun_at"] if reload else None
