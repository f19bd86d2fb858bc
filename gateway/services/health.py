"""The health endpoint: serves the last published status over HTTP and decides nothing.

It runs on a loop and a thread of its own, so that it answers while the supervisor is busy and can
say so when the supervisor hangs: a status that has not been renewed for STALE_AFTER seconds is
answered with 503, whatever it says. A connection lasts TIME_LIMIT seconds at most, and when there
are more than MOST_CONNECTIONS the oldest goes, so that clients which never finish their requests
cannot keep one out that does.
"""

import asyncio
import errno
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict

import h11

from gateway.errors import NetworkError
from gateway.model import HostPort
from gateway.policy.report import Status

STALE_AFTER = 10.0
"""Seconds without a new status after which the supervisor counts as hung."""

TIME_LIMIT = 5.0
MOST_CONNECTIONS = 200
LARGEST_REQUEST = 8192

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"

OK, UNAVAILABLE = 200, 503

Answer = tuple[int, str, bytes]


class Board:
    """Where the supervisor puts its last status, and the server finds it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._status = Status(0.0, "starting", healthy=False, reason="starting", since=clock())

    def publish(self, status: Status) -> None:
        """Put `status` in place of the former one."""
        self._status = status

    def health(self) -> Answer:
        """Say whether workloads can use the network, and why not."""
        told = self._told()
        return (OK if told["healthy"] else UNAVAILABLE), JSON_TYPE, _json(told)

    def liveness(self) -> Answer:
        """Say whether the supervisor works; the tunnel may be down."""
        return (UNAVAILABLE if self._is_stale() else OK), JSON_TYPE, _json(self._told())

    def metrics(self) -> Answer:
        """Return everything that is counted, for Prometheus."""
        from gateway.services import metrics  # noqa: PLC0415 - many are never scraped; it costs 7 MB

        healthy = bool(self._told()["healthy"])
        text = metrics.exposition(self._status, self._clock(), healthy=healthy)
        return OK, metrics.CONTENT_TYPE, text

    def _told(self) -> dict[str, object]:
        told = describe(self._status, self._clock())
        if self._is_stale():
            silence = self._clock() - self._status.at
            reason = f"the gateway has told nothing new for {silence:.0f} s"
            return told | {"healthy": False, "reason": reason}
        return told

    def _is_stale(self) -> bool:
        """Say whether the supervisor has been silent for too long, once it has begun to speak."""
        return 0.0 < self._status.at < self._clock() - STALE_AFTER


def describe(status: Status, now: float) -> dict[str, object]:
    """Return `status` at `now` as the JSON object that clients get; ages are in seconds."""
    told = asdict(status)
    since, later = told.pop("since"), now - told.pop("at")
    for name in ("handshake_age", "verified_age"):
        told[name] = None if told[name] is None else round(told[name] + later, 1)
    told["state_age"] = round(now - since, 1)
    told["reconnects"] = dict(status.reconnects)
    told["refused"] = {f"{family} {way}": packets for family, way, packets in status.refused}
    told["limits"] = list(status.limits)
    return told


PATHS: dict[str, Callable[[Board], Answer]] = {
    "/": Board.health,
    "/healthz": Board.health,
    "/readyz": Board.health,
    "/livez": Board.liveness,
    "/metrics": Board.metrics,
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
        run = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener)), name="health", daemon=True
        )
        try:
            run.start()
        except RuntimeError as err:  # what threading makes of EAGAIN
            listener.close()
            raise NetworkError("no thread can be started", "health", errno.EAGAIN) from err

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells mypy what TCP gives
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(TIME_LIMIT, transport.abort)
        self._others[self] = None
        if len(self._others) > MOST_CONNECTIONS:
            next(iter(self._others)).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._deadline.cancel()
        self._others.pop(self, None)

    def drop(self) -> None:
        """End the connection without an answer."""
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
            self._send(event.method, respond(event.method, event.target, self._board))

    def _send(self, method: bytes, answer: Answer) -> None:
        code, kind, body = answer
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        head = self._http.send(h11.Response(status_code=code, headers=headers))
        content = b"" if method == b"HEAD" else self._http.send(h11.Data(data=body))
        self._transport.write((head or b"") + (content or b""))
        self._transport.close()


def respond(method: bytes, target: bytes, board: Board) -> Answer:
    """Return the answer to a request; only GET and HEAD are known, and nothing changes anything."""
    if method not in (b"GET", b"HEAD"):
        return 405, TEXT_TYPE, b"only GET and HEAD\n"
    answer = PATHS.get(target.partition(b"?")[0].decode("ascii", "replace"))
    return answer(board) if answer else (404, TEXT_TYPE, b"not found\n")


def _json(told: dict[str, object]) -> bytes:
    return json.dumps(told).encode() + b"\n"
