"""Asks the running gateway over HTTP, and makes what it says fit for a terminal.

While the gateway is gone, any workload can listen on its port, so `healthcheck.ask` limits the time
and the size of a reply. A person waits for `gateway status`, perhaps on a small machine. So this
module, and what that command imports besides, need no more than the health check itself: neither
the configuration nor any library (`tests/unit/test_imports.py`).
"""

from collections.abc import Mapping

from healthcheck import __main__ as healthcheck
from healthcheck.__main__ import ASK_INSTEAD, LARGEST_REPLY, TIME_LIMIT, Unhealthy

HEALTH, HISTORY = "/healthz", "/history"

LARGEST = {HEALTH: LARGEST_REPLY, HISTORY: 262144}
"""Bytes of the reply that are read; `policy.history` limits what is sent."""

WHY = "its log says why: docker logs CONTAINER"


class NoAnswer(Exception):  # noqa: N818 - a verdict more than an error
    """The gateway gives no answer that can be used; the text says why."""


def own_address() -> tuple[str, int]:
    """Return where the gateway of this container listens, from the environment. Raises NoAnswer."""
    try:
        return healthcheck.parse_address(healthcheck.given_address())
    except Unhealthy as err:
        raise NoAnswer(str(err)) from err


def ask(host: str, port: int, path: str = HEALTH) -> dict[str, object]:
    """Return what the gateway at `host` and `port` answers to `path`. Raises NoAnswer."""
    host = ASK_INSTEAD.get(host, host)
    where = f"{host}:{port}"
    try:
        reply = healthcheck.ask(host, port, path, LARGEST[path])
    except TimeoutError as err:
        raise NoAnswer(f"no complete answer within {TIME_LIMIT:g} s: {where}") from err
    except (OSError, Unhealthy) as err:
        raise NoAnswer(f"no answer from the gateway at {where} ({err}); {WHY}") from err
    try:
        answered = healthcheck.parse(reply.partition(b"\r\n\r\n")[2])
    except (ValueError, RecursionError):
        answered = None
    if not isinstance(answered, dict):
        raise NoAnswer(f"the reply is not from the gateway: {where}")
    return answered


def status_at(host: str, port: int) -> dict[str, object]:
    """Return the status of the gateway, for other commands. Raises NetworkError."""
    try:
        return ask(host, port)
    except NoAnswer as err:
        from gateway.errors import NetworkError  # noqa: PLC0415 - `gateway status` does without it

        raise NetworkError(str(err)) from err


def mapping(value: object) -> Mapping[str, object]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[object]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def visible(text: str) -> str:
    """Return `text` with control characters escaped, so that they do not control the terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
