"""Set-up of structlog: one event a line, for machines or for people, and never a key."""

import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

KEY = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])")
"""What a WireGuard key looks like: base64 of 32 bytes."""

HIDDEN = "[key]"


def redact(value: Any) -> Any:
    """Return `value` with everything that looks like a WireGuard key replaced by `[key]`."""
    if isinstance(value, str):
        return KEY.sub(HIDDEN, value)
    if isinstance(value, dict):
        return {redact(name): redact(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    if value is None or isinstance(value, (int, float)):
        return value
    return KEY.sub(HIDDEN, str(value))


def _redact_event(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {name: redact(value) for name, value in event.items()}


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Log events of at least `level` to `stream` (stdout) as `form`: json, console or auto.

    `auto` is console on a terminal and JSON elsewhere. Redaction comes last before rendering, so
    that tracebacks pass through it too.
    """
    stream = stream or sys.stdout
    console = form == "console" or (form == "auto" and stream.isatty())
    renderer = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
