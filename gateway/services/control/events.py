"""What has happened since the last look, as events for clients of the control API; pure."""

from collections.abc import Iterator
from typing import Any

from gateway.policy.history import History, Transition
from gateway.policy.reload import Answer
from gateway.policy.report import REASONS, Status

Event = tuple[str, dict[str, Any]]
"""The name of an event, and what it says."""


class Past:
    """What clients have been sent already."""

    def __init__(self, history: History, status: Status) -> None:
        self._transitions_until = _last(history)
        self._ports = _ports(status)
        self._reload = status.reload

    def news(self, history: History, status: Status) -> Iterator[Event]:
        """Yield what has happened since, and remember it."""
        later = [it for it in history.transitions if it.at > self._transitions_until]
        self._transitions_until = _last(history)
        for it in later:
            yield "transition", _transition(it)
        if (ports := _ports(status)) != self._ports:
            self._ports = ports
            yield "ports", {"ports": ports}
        if status.reload is not None and status.reload != self._reload:
            self._reload = status.reload
            yield "reload", _reload(status.reload)


def _last(history: History) -> float:
    return history.transitions[-1].at if history.transitions else float("-inf")


def _ports(status: Status) -> list[int]:
    return list(dict.fromkeys(it.port for it in status.leases))


def _transition(it: Transition) -> dict[str, Any]:
    return {
        "state": it.state,
        "healthy": it.healthy,
        "reason": REASONS[it.reason],
        "reason_code": str(it.reason),
        "detail": it.detail,
        "lasted": round(it.seconds, 1),
    }


def _reload(it: Answer) -> dict[str, Any]:
    return {
        "outcome": str(it.outcome),
        "changed": list(it.changed),
        "needs_restart": list(it.needs_restart),
        "problems": [{"variable": one.variable, "problem": one.problem} for one in it.faults],
        "found": it.found,
    }
