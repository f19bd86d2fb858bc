"""The last status and the history, as the answers that clients of the health server get.

The supervisor writes them on its thread, and the server reads them on another: what is kept is
frozen, and replaced as a whole.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from gateway import __version__
from gateway.model.lease import Lease
from gateway.policy.history import History, Sample, Transition
from gateway.policy.public_address import PublicAddress
from gateway.policy.reload import Answer as Reread
from gateway.policy.remedies import REMEDIES, remedy_of
from gateway.policy.report import REASONS, Status, with_resolver, with_services
from gateway.policy.reports import ResolverReport, ServiceReport
from gateway.policy.states import Reason
from gateway.policy.tried import Tried

STALE_AFTER = 10.0
"""Seconds without a new status after which the supervisor counts as hung."""

COUNT_EVERY = 1.0
"""Seconds for which refused packets are not counted again, however often the metrics are read."""
COUNT_TIME = 0.5
"""Seconds that an answer waits for the count; a busy loop answers with the last one."""

LARGEST = 60_000
"""Bytes of a status: `healthcheck` reads 64 KiB with the head, and takes more for a stranger's."""
LEFT_OUT = ("reload", "candidates", "limits", "services", "endpoints", "holes")
"""What a larger one is without, in this order, as far as that is necessary."""

JSON_TYPE = "application/json"

OK, UNAVAILABLE = 200, 503

Answer = tuple[int, str, bytes]


class Board:
    """Holds the last status: the supervisor writes it, the server reads it.

    `ask_to_count`, from any thread, asks the supervisor for a status with newly counted packets.
    `resolver` returns what is known of the gateway's own resolver, None without one, `services`
    what is known of optional ones, and `public_ip` what one of them has found out. `clock` is that
    of the statuses. `wall` returns seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self.ask_to_count: Callable[[], None] = lambda: None
        self.resolver: Callable[[], ResolverReport | None] = lambda: None
        self.services: Callable[[], tuple[ServiceReport, ...]] = lambda: ()
        self.public_ip: Callable[[], PublicAddress | None] = lambda: None
        self._published = Status(
            0.0, "starting", healthy=False, reason=Reason.STARTING, since=clock()
        )
        self._confirmed_at = 0.0
        self._history = History()

    def publish(self, status: Status) -> None:
        """Replace the status."""
        self._history = self._with_hang()
        self._published = status
        self._history = self._history.noted(self._status)

    def confirm(self) -> None:
        """Note that the status has not changed, and that the kernel is as wanted."""
        self._history = self._with_hang()
        self._confirmed_at = self._clock()
        self._history = self._history.noted(self._status)

    @property
    def _status(self) -> Status:
        """The last status, as it was when it was confirmed last."""
        status, resolver = confirmed(self._published, self._confirmed_at), self.resolver()
        status = status if resolver is None else with_resolver(status, resolver)
        status = with_services(status, services) if (services := self.services()) else status
        return replace(status, public_ip=found) if (found := self.public_ip()) else status

    @property
    def status(self) -> Status:
        """What was published last."""
        return self._status

    @property
    def past(self) -> History:
        """What was published before."""
        return self._history

    @property
    def is_healthy(self) -> bool:
        """Whether workloads could use the network when the status was last published."""
        return self._published.healthy

    def health(self) -> Answer:
        """Answer whether workloads can use the network, and why not."""
        body = self._body()
        return (OK if body["healthy"] else UNAVAILABLE), JSON_TYPE, _within(body)

    def liveness(self) -> Answer:
        """Answer whether the supervisor works; the tunnel may be down."""
        return (UNAVAILABLE if self._is_stale() else OK), JSON_TYPE, _json(self._body())

    def history(self) -> Answer:
        """Answer with the last transitions and samples."""
        # Reckoned back from now: the wall clock of a machine may be set after its start.
        epoch = self._wall() - self._clock()
        return OK, JSON_TYPE, _json(describe_history(self._with_hang(), epoch))

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
        from gateway.services.health import metrics  # noqa: PLC0415 - many are never scraped; it costs 7 MB

        body = self._body()
        status = replace(self._status, reason=Reason(str(body["reason_code"])))
        healthy, past = bool(body["healthy"]), self._with_hang()
        text = metrics.exposition(status, past, self._clock(), healthy=healthy)
        return OK, metrics.CONTENT_TYPE, text

    def _body(self) -> dict[str, object]:
        body = describe(self._status, self._clock())
        if self._is_stale():
            age = self._clock() - self._status.at
            reason = f"{REASONS[Reason.HUNG]} for {age:.0f} s"
            remedy = REMEDIES[Reason.HUNG]
            hung = {"reason": reason, "reason_code": str(Reason.HUNG), "remedy": remedy}
            return body | hung | {"healthy": False}
        return body

    def _with_hang(self) -> History:
        """Return the history, with the hang of the supervisor while the status is too old."""
        if not self._is_stale():
            return self._history
        hung = confirmed(self._status, self._status.at + STALE_AFTER)
        return self._history.noted(replace(hung, healthy=False, reason=Reason.HUNG))

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
    body = asdict(replace(status, candidates=()))
    since, later = body.pop("since"), now - body.pop("at")
    del body["counted_at"], body["leases"]
    for name in ("handshake_age", "verified_age"):
        body[name] = None if body[name] is None else round(body[name] + later, 1)
    body["state_age"] = round(now - since, 1)
    body["reason"] = REASONS[status.reason]
    body["reason_code"] = str(status.reason)
    body["remedy"] = remedy_of(status)
    body["endpoints"] = [{"address": str(e.address), "port": e.port} for e in status.endpoints]
    body["reconnects"] = dict(status.reconnects)
    body["refused"] = {f"{family} {way}": packets for family, way, packets in status.refused}
    body["reload"] = status.reload and _reread(status.reload, now)
    body["reloads"] = dict(status.reloads)
    if status.resolver:
        body["resolver"]["questions"] = dict(status.resolver.questions)
    body["version"] = __version__
    body["candidates"] = [_tried(it, now) for it in status.candidates]
    body["forwarded_ports"] = [_forwarded(it, now) for it in status.leases]
    body["limits"] = [asdict(limit) for limit in status.limits]
    return body


def _forwarded(it: Lease, now: float) -> dict[str, object]:
    """Return a forwarded port as the client gets it at `now`."""
    return {
        "port": it.port,
        "listening": it.listening,
        "arriving": it.arriving or it.listening,
        "version": it.version,
        "protocols": list(map(str, it.protocols)),
        "seconds": round(max(0.0, it.until - now), 1),
    }


def _tried(it: Tried, now: float) -> dict[str, object]:
    """Return the last attempt with a candidate, as the client gets it at `now`."""
    return {
        "endpoint": it.endpoint,
        "name": it.name,
        "age": round(now - it.at, 1),
        "result": str(it.result),
        "handshake_seconds": _rounded(it.handshake_seconds),
        "latency_seconds": _rounded(it.latency),
    }


def _rounded(seconds: float | None) -> float | None:
    """Return a time as milliseconds are reported, in seconds."""
    return None if seconds is None else round(seconds, 4)


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


def describe_history(history: History, epoch: float) -> dict[str, object]:
    """Return `history` as the JSON object that clients get; docs/health.md lists the fields.

    `epoch` is what its times need to become seconds since 1970.
    """
    return {
        "transitions": [_transition(it, epoch) for it in history.transitions],
        "samples": [_sample(it, epoch) for it in history.samples],
    }


def _transition(it: Transition, epoch: float) -> dict[str, object]:
    return {
        "at": round(epoch + it.at, 1),
        "state": it.state,
        "healthy": it.healthy,
        "reason": str(it.reason),
        "detail": it.detail or None,
        "seconds": round(it.seconds, 1),
    }


def _sample(it: Sample, epoch: float) -> dict[str, object]:
    return {
        "at": round(epoch + it.at, 1),
        "handshake_age": None if it.handshake_age is None else round(it.handshake_age, 1),
        "received": it.received,
        "sent": it.sent,
    }


def _within(body: dict[str, object]) -> bytes:
    """Return a status as JSON; of a large one, less what makes it so: empty or `null` then."""
    text = _json(body)
    for name in LEFT_OUT:
        if len(text) <= LARGEST:
            break
        body[name] = [] if isinstance(body[name], list) else None
        text = _json(body)
    return text


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode() + b"\n"
