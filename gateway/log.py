"""Configures structlog: one event in a line, as JSON or for people, and never a key."""

import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from gateway import log_text
from gateway.system import applied
from gateway.system.log_writer import Stream, without_waiting

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

KEY = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])")
"""The form of a WireGuard key: base64 of 32 bytes."""

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


def configure(level: str, form: str) -> None:
    """Log events of at least `level` to stdout as `form`: text or json.

    Redaction comes last before rendering, so
    that it covers tracebacks too. After this, no write to stdout or stderr waits for its reader;
    this includes Python's own warnings. At the level debug, what is applied to the kernel is
    logged as well.
    """
    renderer = structlog.processors.JSONRenderer() if form == "json" else log_text.render
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_event,
        renderer,
    ]

    def lost_line(lines: int) -> str:
        event: Any = {"event": "log lines lost", "lines": lines}
        for processor in processors:
            event = processor(None, "warning", event)
        return str(event)

    sys.stdout = without_waiting(sys.stdout, lost_line)
    sys.stderr = without_waiting(sys.stderr)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    applied.show_to(_log_applied if level == "debug" else None)


def finish() -> None:
    """Wait a moment until what was logged is written, for a process that becomes another one."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.finish()


def _log_applied(event: str, command: str, stdin: str) -> None:
    """Log what was applied; see `gateway.system.applied`."""
    fields = {"command": command, **({"input": stdin} if stdin else {})}
    structlog.get_logger().debug(event, **fields)
