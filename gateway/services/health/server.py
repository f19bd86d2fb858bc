"""The health endpoint: serves the last published status over HTTP and decides nothing.

It has a loop and a thread of its own, so it answers while the supervisor is busy and can report
that it hangs: if the status is too old, the answer is 503. A connection
lasts TIME_LIMIT seconds at most. Of more than MOST_CONNECTIONS the oldest is closed, so clients
that never finish their requests cannot keep others out.
"""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

import h11

from gateway.errors import NetworkError
from gateway.model import HostPort
from gateway.services.health.board import Answer, Board

TIME_LIMIT = 5.0
MOST_CONNECTIONS = 200
LARGEST_REQUEST = 8192
NOTHING_MORE: Mapping[str, str] = MappingProxyType({})

TEXT_TYPE = "text/plain; charset=utf-8"

METRICS, HISTORY, ROOT = "/metrics", "/history", "/"
COUNTED = {METRICS, HISTORY}
"""Paths whose clients want to know what was refused: a page asks for the history each minute."""
PATHS: dict[str, Callable[[Board], Answer]] = {
    ROOT: Board.health,
    "/healthz": Board.health,
    "/readyz": Board.health,
    "/livez": Board.liveness,
    HISTORY: Board.history,
    METRICS: Board.metrics,
}


class HealthServer:
    """Serves `board` until the process ends."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._open: dict[_Connection, None] = {}

    def start(self, address: HostPort) -> None:
        """Listen on `address` and answer on a thread of its own; raises NetworkError if taken."""
        host = address.host or "::"
        try:
            listener = socket.create_server(
                (host, address.port),
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                backlog=MOST_CONNECTIONS,
                dualstack_ipv6=not address.host and socket.has_dualstack_ipv6(),
            )
        except OSError as err:
            raise NetworkError(
                f"cannot listen: {err.strerror}", f"{address.host}:{address.port}", err.errno
            ) from err
        try:
            loop = asyncio.new_event_loop()  # here, where a shortage is noticed
        except OSError as err:
            listener.close()
            raise NetworkError(f"cannot serve: {err.strerror}", "health", err.errno) from err
        run = threading.Thread(target=lambda: self._run(loop, listener), name="health", daemon=True)
        try:
            run.start()
        except RuntimeError as err:  # what threading makes of EAGAIN
            loop.close()
            listener.close()
            raise NetworkError("no thread can be started", "health", errno.EAGAIN) from err

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Connection(self._board, self._open), sock=listener
        )
        await server.serve_forever()


class _Connection(asyncio.Protocol):
    """One client, for one request."""

    def __init__(self, board: Board, others: "dict[_Connection, None]") -> None:
        self._board = board
        self._others = others
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_REQUEST)
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: the loop gives TCP this kind
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(TIME_LIMIT, transport.abort)
        self._others[self] = None
        if len(self._others) > MOST_CONNECTIONS:
            next(iter(self._others)).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._deadline.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._others.pop(self, None)

    def drop(self) -> None:
        """Close the connection without an answer."""
        self._others.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as err:
            self._send(b"GET", (err.error_status_hint, TEXT_TYPE, b"bad request\n"))
            return
        if isinstance(event, h11.Request):
            self._transport.pause_reading()  # one request: what follows it is not kept
            self._answering = asyncio.get_running_loop().create_task(self._answer(event))

    async def _answer(self, request: h11.Request) -> None:
        try:
            if path_of(request.target) in COUNTED:
                await self._board.count()
            if wants_page(request):
                from gateway.services.health import page  # noqa: PLC0415 - most gateways are never looked at

                self._send(request.method, page.answer(), page.HEADERS)
            else:
                self._send(request.method, respond(request.method, request.target, self._board))
        except BaseException:
            self._transport.abort()
            raise

    def _send(self, method: bytes, answer: Answer, more: Mapping[str, str] = NOTHING_MORE) -> None:
        code, kind, body = answer
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *more.items(),
            ("Connection", "close"),
        ]
        head = self._http.send(h11.Response(status_code=code, headers=headers))
        content = b"" if method == b"HEAD" else self._http.send(h11.Data(data=body))
        self._transport.write((head or b"") + (content or b""))
        self._transport.close()


def respond(method: bytes, target: bytes, board: Board) -> Answer:
    """Return the answer to a request; only GET and HEAD are allowed, and none changes anything."""
    if method not in (b"GET", b"HEAD"):
        return 405, TEXT_TYPE, b"only GET and HEAD\n"
    answer = PATHS.get(path_of(target))
    return answer(board) if answer else (404, TEXT_TYPE, b"not found\n")


def wants_page(request: h11.Request) -> bool:
    """Return whether a browser asks: it names HTML, and likes JSON less (RFC 9110, 12.5.1)."""
    if request.method not in {b"GET", b"HEAD"} or path_of(request.target) != ROOT:
        return False
    given = b",".join(value for name, value in request.headers if name == b"accept")
    html, in_json = (_quality(given, kind) for kind in (b"text/html", b"application/json"))
    return html > in_json


def _quality(accept: bytes, kind: bytes) -> float:
    """Return how much a client likes `kind`, which it has to name: 0 to 1."""
    for part in accept.lower().split(b","):
        name, *parameters = (it.strip() for it in part.split(b";"))
        if name == kind:
            weights = (it[2:] for it in parameters if it.startswith(b"q="))
            try:
                return float(next(weights, b"1"))
            except ValueError:
                return 0.0
    return 0.0


def path_of(target: bytes) -> str:
    """Return the path in the target of a request."""
    return target.partition(b"?")[0].decode("ascii", "replace")
