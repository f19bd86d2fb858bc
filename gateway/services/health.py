"""The health endpoint: serves the last published status over HTTP and decides nothing.

It has a loop and a thread of its own, so it answers while the supervisor is busy and can report
that it hangs: if the status is older than STALE_AFTER seconds, the answer is 503. A connection
lasts TIME_LIMIT seconds at most. Of more than MOST_CONNECTIONS the oldest is closed, so clients
that never finish their requests cannot keep others out.
"""

import asyncio
import errno
import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace

import h11

from gateway.errors import NetworkError
from gateway.model import HostPort
from gateway.policy.reload import Answer as Reread
from gateway.policy.report import REASONS, ResolverReport, Status, with_resolver
from gateway.policy.states import Reason

STALE_AFTER = 10.0
"""Seconds without a new status after which the supervisor counts as hung."""

TIME_LIMIT = 5.0
MOST_CONNECTIONS = 200
LARGEST_REQUEST = 8192

JSON_TYPE, TEXT_TYPE = "application/json", "text/plain; charset=utf-8"

OK, UNAVAILABLE = 200, 503

COUNT_EVERY = 1.0
"""Seconds for which refused packets are not counted again, however often the metrics are read."""
COUNT_TIME = 0.5
"""Seconds that an answer waits for the count; a busy loop answers with the last one."""

Answer = tuple[int, str, bytes]


class Board:
    """Holds the last status: the supervisor writes it, the server reads it.

    `ask_to_count`, from any thread, asks the supervisor for a status with newly counted packets.
    `resolver` returns what is known of the gateway's own resolver, None without one.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.ask_to_count: Callable[[], None] = lambda: None
        self.resolver: Callable[[], ResolverReport | None] = lambda: None
        self._published = Status(
            0.0, "starting", healthy=False, reason=Reason.STARTING, since=clock()
        )
        self._confirmed_at = 0.0

    def publish(self, status: Status) -> None:
        """Replace the status."""
        self._published = status

    def confirm(self) -> None:
        """Note that the status has not changed, and that the kernel is as wanted."""
        self._confirmed_at = self._clock()

    @property
    def _status(self) -> Status:
        """The last status, as it was when it was confirmed last."""
        status, resolver = confirmed(self._published, self._confirmed_at), self.resolver()
        return status if resolver is None else with_resolver(status, resolver)

    @property
    def is_healthy(self) -> bool:
        """Whether workloads could use the network when the status was last published."""
        return self._published.healthy

    def health(self) -> Answer:
        """Answer whether workloads can use the network, and why not."""
        body = self._body()
        return (OK if body["healthy"] else UNAVAILABLE), JSON_TYPE, _json(body)

    def liveness(self) -> Answer:
        """Answer whether the supervisor works; the tunnel may be down."""
        return (UNAVAILABLE if self._is_stale() else OK), JSON_TYPE, _json(self._body())

    async def count(self) -> None:
        """Wait until refused packets were counted, if they have not been just now."""
        asked_at = self._clock()
        if not self._was_counted(asked_at - COUNT_EVERY):
            self.ask_to_count()
            # The status comes from another thread, which has no event of this loop to set.
            while not self._was_counted(asked_at) and self._clock() < asked_at + COUNT_TIME:  # noqa: ASYNC110
                await asyncio.sleep(COUNT_TIME / 50)

    def _was_counted(self, since: float) -> bool:
        counted_at = self._status.counted_at
        return counted_at is not None and counted_at >= since

    def metrics(self) -> Answer:
        """Answer with the status as metrics, for Prometheus."""
        if sys.modules.get("ssl", sys) is None:  # left out at the start, and the library imports it
            del sys.modules["ssl"]
        from gateway.services import metrics  # noqa: PLC0415 - many are never scraped; it costs 7 MB

        body = self._body()
        status = replace(self._status, reason=Reason(str(body["reason_code"])))
        text = metrics.exposition(status, self._clock(), healthy=bool(body["healthy"]))
        return OK, metrics.CONTENT_TYPE, text

    def _body(self) -> dict[str, object]:
        body = describe(self._status, self._clock())
        if self._is_stale():
            age = self._clock() - self._status.at
            reason = f"{REASONS[Reason.HUNG]} for {age:.0f} s"
            return body | {"healthy": False, "reason": reason, "reason_code": str(Reason.HUNG)}
        return body

    def _is_stale(self) -> bool:
        """Return whether the last status is too old; before the first one, never."""
        return 0.0 < self._status.at < self._clock() - STALE_AFTER


def confirmed(status: Status, at: float) -> Status:
    """Return `status` as it would be published at `at`, if that is later and nothing has changed.

    The kernel has been compared then, and found as wanted.
    """
    if at <= status.at:
        return status
    age = status.handshake_age
    grown = None if age is None else age + at - status.at
    return replace(status, at=at, handshake_age=grown, verified_age=0.0)


def describe(status: Status, now: float) -> dict[str, object]:
    """Return `status` at `now` as the JSON object that clients get; ages are in seconds.

    docs/health.md lists the fields.
    """
    body = asdict(status)
    since, later = body.pop("since"), now - body.pop("at")
    del body["counted_at"]
    for name in ("handshake_age", "verified_age"):
        body[name] = None if body[name] is None else round(body[name] + later, 1)
    body["state_age"] = round(now - since, 1)
    body["reason"] = REASONS[status.reason]
    body["reason_code"] = str(status.reason)
    body["endpoints"] = [{"address": str(e.address), "port": e.port} for e in status.endpoints]
    body["reconnects"] = dict(status.reconnects)
    body["refused"] = {f"{family} {way}": packets for family, way, packets in status.refused}
    body["reload"] = status.reload and _reread(status.reload, now)
    body["reloads"] = dict(status.reloads)
    if status.resolver:
        body["resolver"]["questions"] = dict(status.resolver.questions)
    body["limits"] = [asdict(limit) for limit in status.limits]
    return body


def _reread(answer: Reread, now: float) -> dict[str, object]:
    """Return what came of the last reading of the configuration, as the client gets it at `now`."""
    return {
        "outcome": str(answer.outcome),
        "begun_at": answer.begun_at,
        "age": round(now - answer.begun_at, 1),
        "changed": answer.changed,
        "needs_restart": answer.needs_restart,
        "problems": [asdict(fault) for fault in answer.faults],
        "found": answer.found,
    }


METRICS = "/metrics"
PATHS: dict[str, Callable[[Board], Answer]] = {
    "/": Board.health,
    "/healthz": Board.health,
    "/readyz": Board.health,
    "/livez": Board.liveness,
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
            if path_of(request.target) == METRICS:
                await self._board.count()
            self._send(request.method, respond(request.method, request.target, self._board))
        except BaseException:
            self._transport.abort()
            raise

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
    """Return the answer to a request; only GET and HEAD are allowed, and none changes anything."""
    if method not in (b"GET", b"HEAD"):
        return 405, TEXT_TYPE, b"only GET and HEAD\n"
    answer = PATHS.get(path_of(target))
    return answer(board) if answer else (404, TEXT_TYPE, b"not found\n")


def path_of(target: bytes) -> str:
    """Return the path in the target of a request."""
    return target.partition(b"?")[0].decode("ascii", "replace")


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode() + b"\n"
