"""What the routes of the control API answer while the gateway is late, silent or asked too much."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.control import link, routes
from gateway.control.answers import dns_status, forwarded, public_address
from gateway.control.link import MOST_ORDERS, Link
from gateway.control.messages import LONGEST_REQUEST, Broken, Message, packed, unpacked
from gateway.control.routes import Asked, Routes
from gateway.control.streams import Streams, crowd_of

ASKED = Asked(b'{"status":"stopped"}', "role", "192.0.2.1")


class Wire:
    """The gateway's end of the channel: what it gets, and what it answers."""

    def __init__(self, answer: Callable[[Message], Message | None]) -> None:
        self.got: list[Message] = []
        self.reader = asyncio.StreamReader()
        self._answer = answer

    def write(self, line: bytes) -> None:
        """Take a message, and answer it at once if there is an answer."""
        message = unpacked(line)
        self.got.append(message)
        if (answer := self._answer(message)) is not None:
            self.reader.feed_data(packed({"id": message.get("id"), **answer}))


def on(answer: Callable[[Message], Message | None], work: Callable[[Routes, Wire], Any]) -> None:
    """Do `work` with routes whose gateway answers so."""

    async def run() -> None:
        wire = Wire(answer)
        known = Link(wire.reader, wire, lambda _: None, lambda _name, _data: None)  # type: ignore[arg-type]
        running = asyncio.create_task(known.run())
        await work(Routes(known, b"{}"), wire)
        running.cancel()

    asyncio.run(run())


def late(message: Message) -> Message:
    """Answer as a gateway that takes its time: it is connected, whatever is ordered."""
    if "do" in message:
        return {"code": "noted", "text": "noted", "is_refused": False}
    return {"vpn": "running", "status": {"state": "connected", "reload": None, "version": "1"}}


def test_a_gateway_that_takes_its_time_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer says what is under way."""
    monkeypatch.setattr(routes, "PAUSE_TIME", 0.2)
    monkeypatch.setattr(routes, "RELOAD_TIME", 0.2)

    async def work(known: Routes, _wire: Wire) -> None:
        reply = await known.answer("PUT /v1/vpn/status", ASKED)
        assert (reply.code, json.loads(reply.body)) == (200, {"outcome": "stopping"})
        reply = await known.answer("POST /api/v1/reload", ASKED)
        assert (reply.code, json.loads(reply.body)) == (202, {"outcome": "requested"})

    on(late, work)


def test_a_pause_that_is_not_in_force_yet_can_be_taken_back() -> None:
    """A shortage keeps its rules out: it is not stopped, and not running either."""
    state = ["paused"]

    def stopping(message: Message) -> Message:
        if "do" in message:
            state[0] = "connected"
            return {"code": "resumed", "text": "resumed", "is_refused": False}
        vpn = "stopping" if state[0] == "paused" else "running"
        return {"vpn": vpn, "status": {"state": state[0]}}

    async def work(known: Routes, wire: Wire) -> None:
        resume = Asked(b'{"status":"running"}', "role", "192.0.2.1")
        reply = await known.answer("PUT /v1/vpn/status", resume)
        assert json.loads(reply.body) == {"outcome": "running"}
        assert [it["do"] for it in wire.got if "do" in it] == ["resume"]

    on(stopping, work)


def test_a_gateway_that_is_silent_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """For questions and for orders, with when to ask again."""
    monkeypatch.setattr(link, "ANSWER_TIME", 0.1)

    async def work(known: Routes, _wire: Wire) -> None:
        for route in ("GET /v1/version", "POST /api/v1/next", "PUT /v1/vpn/status"):
            reply = await known.answer(route, ASKED)
            assert reply.code == 503
            assert ("Retry-After", "1") in reply.headers

    on(lambda _: None, work)


def test_many_questions_are_one_and_many_orders_are_too_many() -> None:
    """However many clients ask at once, the gateway gets few messages."""

    async def work(known: Routes, wire: Wire) -> None:
        asking = (known.answer("GET /v1/version", ASKED) for _ in range(500))
        assert {it.code for it in await asyncio.gather(*asking)} == {200}
        assert len(wire.got) == 1
        ordering = (known.answer("POST /api/v1/next", ASKED) for _ in range(50))
        codes = [it.code for it in await asyncio.gather(*ordering)]
        assert (codes.count(202), codes.count(503)) == (MOST_ORDERS, 50 - MOST_ORDERS)

    on(late, work)


def test_a_reload_that_is_wrong_is_answered_with_its_problems() -> None:
    """As 422."""
    begun = 0

    def answer(message: Message) -> Message:
        nonlocal begun
        begun += "do" in message
        reload = {"begun_at": begun, "outcome": "refused", "problems": [{"problem": "x"}]}
        return {"vpn": "running", "is_refused": False, "status": {"reload": reload}}

    async def work(known: Routes, _wire: Wire) -> None:
        reply = await known.answer("POST /api/v1/reload", ASKED)
        assert (reply.code, json.loads(reply.body)["outcome"]) == (422, "refused")

    on(answer, work)


@pytest.mark.parametrize(
    ("resolver", "word"),
    [
        (None, "stopped"),
        ({"answers": True, "problem": ""}, "running"),
        ({"answers": False, "problem": ""}, "starting"),
        ({"answers": False, "problem": "it has ended"}, "crashed"),
    ],
)
def test_the_resolver_has_gluetuns_words(resolver: object, word: str) -> None:
    """A gateway without one has stopped it."""
    assert dns_status({"resolver": resolver}) == word


def test_ports_and_addresses_that_are_not_known_have_the_form_of_those_that_are() -> None:
    """0 for a port, and empty texts: some clients demand each field."""
    assert forwarded({}) == {"port": 0, "ports": []}
    listed = [{"port": 5}, {"port": 5}, {"port": 6}]
    assert forwarded({"forwarded_ports": listed}) == {"port": 5, "ports": [5, 6]}
    assert set(public_address({"public_ip": None}).values()) == {""}


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"1", b"[" * 100_000, b"\xff"])
def test_what_is_not_a_message_is_refused(line: bytes) -> None:
    """Also what could break the parser."""
    with pytest.raises(Broken):
        unpacked(line)


def test_no_message_to_the_gateway_is_longer_than_it_reads() -> None:
    """Names and addresses are cut."""

    async def work(known: Routes, wire: Wire) -> None:
        long = Asked(b"", "r" * 5000, "c" * 5000)
        await known.answer("POST /api/v1/next", long)
        assert len(packed(wire.got[-1])) < LONGEST_REQUEST

    on(late, work)


def test_a_client_that_hangs_up_while_its_stream_begins_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway sends events no longer, and the next client asks for them itself."""
    monkeypatch.setattr(link, "ANSWER_TIME", 0.1)
    silent = [True]

    def answer(message: Message) -> Message | None:
        return None if silent[0] else late(message)

    async def work(known: Routes, wire: Wire) -> None:
        streams = Streams(known.link)
        beginning = asyncio.create_task(streams.watched())
        await asyncio.sleep(0.01)
        beginning.cancel()
        await asyncio.sleep(0.2)
        assert [it["watch"] for it in wire.got] == [True, False]
        silent[0] = False
        await streams.watched()
        assert [it["watch"] for it in wire.got] == [True, False, True]

    on(answer, work)


class Place:
    """A client at a place."""

    def __init__(self, place: str) -> None:
        self.place = place

    def push(self, data: bytes) -> int:
        """Take nothing."""
        return len(data)

    def drop(self) -> None:
        """Do nothing."""


def test_the_oldest_client_of_the_place_with_most_of_them_gives_way() -> None:
    """Never the only one of another place, unless all are alone."""
    clients = [Place("a"), Place("b"), Place("b"), Place("c")]
    assert crowd_of(clients)[0] is clients[1]
    assert crowd_of(clients[:2]) == [clients[0]]
