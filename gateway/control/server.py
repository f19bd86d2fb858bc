"""The HTTP server of the control API: one request for each connection, and a limit for everything.

A connection has REQUEST_TIME for its request. Of more than MOST_CONNECTIONS one is closed, of the
address that has most of them: clients that are silent, or guess, cannot keep others out.
"""

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus

import h11

from gateway.control import answers
from gateway.control.answers import Answer
from gateway.control.judging import Judge, routed
from gateway.control.link import Link, Unanswered
from gateway.control.patience import place_of
from gateway.control.routes import UNANSWERED, Asked, Routes
from gateway.control.streams import EVENTS_TYPE, Streams, crowd_of

MOST_CONNECTIONS = 200
LARGEST_HEAD = 8192
LARGEST_BODY = 4096
"""Bytes. A request is a few words."""
REQUEST_TIME, ANSWER_TIME, READING_TIME = 5.0, 30.0, 5.0
"""Seconds for a request, for its answer, and for the client to read that."""
DISCARDED_TIME, MOST_DISCARDED = 1.0, 1 << 20
"""Seconds and bytes in which a refused request may end, so that its client sees the answer."""
FAULT_EVERY = 10.0
"""Seconds between two lines about unexpected errors."""

EVENTS = "GET /api/v1/events"
SAFE = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Connection", "close"),
)

HEAD_TOO_LARGE = answers.error(431, f"a head has {LARGEST_HEAD} bytes at most")
TOO_LARGE = answers.error(413, f"a body has {LARGEST_BODY} bytes at most")
FAULT = answers.error(500, "an error of the control API; its log line names the place")


class Shared:
    """What all connections use; the judge's gate and `routes` follow the configuration."""

    def __init__(self, link: Link, streams: Streams, denied: Callable[[str], None]) -> None:
        self.streams = streams
        self.judge = Judge(denied)
        self.routes = Routes(link, b"")
        self.open: dict[Connection, None] = {}
        self._reported_at = float("-inf")

    def report(self, err: Exception) -> None:
        """Write where an unexpected error was raised; not often, as any client may cause it."""
        now = asyncio.get_running_loop().time()
        if now - self._reported_at > FAULT_EVERY:
            self._reported_at = now
            sys.stderr.write(f"{_described(err)}\n")

    def make_room(self) -> None:
        """Close a connection if there are too many.

        It is the oldest of the address that has most of them: of those that have not sent their
        request, or of those that wait for an answer, whichever are more. So clients of neither kind
        keep others out.
        """
        if len(self.open) > MOST_CONNECTIONS:
            crowd = crowd_of([*self.open])
            waiting = [it for it in crowd if it.has_request]
            silent = [it for it in crowd if not it.has_request]
            max(silent, waiting, key=len)[0].drop()


class Connection(asyncio.Protocol):
    """One client, for one request."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        self._request: h11.Request | None = None
        self._body = b""
        self._task: asyncio.Task[None] | None = None
        self._is_refused = False
        self._discarded = 0
        self._deadline: asyncio.TimerHandle | None = None
        self.has_request = False
        self.place = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the client has REQUEST_TIME now."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: the loop gives TCP this kind
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else "0.0.0.0"  # noqa: S104 - it has hung up already
        self.place = place_of(self.client)
        self._limit(REQUEST_TIME)
        self._shared.open[self] = None
        self._shared.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._forget()
        if self._task is not None:
            self._task.cancel()

    def drop(self) -> None:
        """Hang up."""
        self._forget()
        self._transport.abort()

    def push(self, data: bytes) -> int:
        """Send `data` of a stream, and return how many bytes are unread."""
        self._transport.write(self._http.send(h11.Data(data=data)) or b"")
        return self._transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        """Read on, until the request is complete."""
        if self.has_request or self._is_refused:  # what follows is not kept
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self._transport.abort()
            return
        try:
            self._http.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as err:
            self._send(answers.error(err.error_status_hint, "this is not a request of HTTP/1.1"))

    def eof_received(self) -> bool:
        """Keep our half open while a request is answered: its client may have closed the other."""
        return self.has_request

    def _read(self) -> None:
        """Take what has arrived of the request, and answer once it is complete."""
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request = event
                if _size(event) > LARGEST_HEAD:  # h11 looks at the size of a part of a head only
                    return self._send(HEAD_TOO_LARGE)
                if _length(event) > LARGEST_BODY:
                    return self._send(TOO_LARGE)
                if self._http.they_are_waiting_for_100_continue:
                    ready = h11.InformationalResponse(status_code=100, headers=[])
                    self._transport.write(self._http.send(ready) or b"")
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > LARGEST_BODY:
                    return self._send(TOO_LARGE)
            elif isinstance(event, h11.EndOfMessage):
                self.has_request = True
                self._limit(ANSWER_TIME)
                self._task = asyncio.get_running_loop().create_task(self._answer())
                return None
            else:
                return None

    async def _answer(self) -> None:
        request = self._request
        assert request is not None  # noqa: S101 - for mypy: its end has arrived
        try:
            found = await self._answer_to(request)
        except Exception as err:  # noqa: BLE001 - one request is not to end the others
            self._shared.report(err)
            found = FAULT
        if found is not None:
            self._send(found)

    async def _answer_to(self, request: h11.Request) -> Answer | None:
        """Return the answer, None when a stream has begun."""
        headers, method = list(request.headers), request.method.decode("ascii", "replace")
        route = routed(method, request.target, headers)
        if isinstance(route, Answer):
            return route
        ruling = await self._shared.judge.judged(route, headers, self.client)
        if isinstance(ruling, Answer):
            return ruling
        if route == EVENTS:
            return Answer(200, b"", EVENTS_TYPE) if method == "HEAD" else await self._stream()
        asked = Asked(self._body, ruling.role, self.client)
        return await self._shared.routes.answer(route, asked)

    async def _stream(self) -> Answer | None:
        """Begin a stream of events, which has no end of its own."""
        try:
            await self._shared.streams.watched()
        except Unanswered:
            return UNANSWERED
        headers = [("Content-Type", EVENTS_TYPE), ("X-Accel-Buffering", "no"), *SAFE]
        self._transport.write(
            self._http.send(h11.Response(status_code=200, headers=headers, reason="OK")) or b""
        )
        self._limit(None)
        self._shared.open.pop(self, None)
        self._shared.streams.add(self)
        return None

    def _send(self, answer: Answer) -> None:
        """Send `answer` and hang up, once the client has read it."""
        if self._transport.is_closing():
            return
        size = (
            []
            if answer.code == HTTPStatus.NO_CONTENT
            else [("Content-Length", str(len(answer.body)))]
        )
        headers = [("Content-Type", answer.kind), *size, *answer.headers, *SAFE]
        is_head = self._request is not None and self._request.method == b"HEAD"
        reason = HTTPStatus(answer.code).phrase
        head = self._http.send(
            h11.Response(status_code=answer.code, headers=headers, reason=reason)
        )
        content = b"" if is_head or not answer.body else self._http.send(h11.Data(data=answer.body))
        self._transport.write((head or b"") + (content or b""))
        if self.has_request:
            self._limit(READING_TIME)
            self._transport.close()
        else:
            self._is_refused = True
            self._limit(DISCARDED_TIME)
            self._transport.write_eof()

    def _limit(self, seconds: float | None) -> None:
        """Hang up after `seconds`, or do not, in place of the limit before."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self._transport.abort)

    def _forget(self) -> None:
        self._limit(None)
        self._shared.open.pop(self, None)
        self._shared.streams.remove(self)


def _size(request: h11.Request) -> int:
    """Return about how many bytes the head of a request has."""
    headers = sum(len(name) + len(value) + 4 for name, value in request.headers)
    return len(request.target) + headers


def _length(request: h11.Request) -> int:
    """Return how long the body will be, 0 if that is not said; h11 has checked the number."""
    return max(
        (int(value) for name, value in request.headers if name == b"content-length"), default=0
    )


def _described(err: Exception) -> str:
    """Return where an unexpected error was raised, and nothing of the request."""
    at = err.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else "somewhere"
    return f"unexpected {type(err).__name__} at {where}"
