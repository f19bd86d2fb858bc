"""The few settings that are needed before, or without, the rest: how to log, and where health is.

A wrong value counts as not set here; `assemble.load` reports it. This module is light: the running
gateway imports it, and not the rest of this package.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from gateway.model import HostPort
from gateway.model.frozen import frozen
from gateway.settings import fields
from gateway.settings.addresses import listen_address
from gateway.settings.values import unquoted

T = TypeVar("T")

DEFAULT_HEALTH_SERVER: Final = HostPort("127.0.0.1", 9999)


@frozen
class LogSettings:
    """How to log: the least `level` (debug, info, warning, error), `format` text or json."""

    level: str = "info"
    format: str = "text"


def environment() -> Mapping[str, str]:
    """Return a copy of the process's environment."""
    return dict(os.environ)


def log_settings(environ: Mapping[str, str]) -> LogSettings:
    """Return how to log."""
    return LogSettings(
        _plain(environ, "LOG_LEVEL", fields.log_level, "info"),
        _plain(environ, "LOG_FORMAT", fields.log_format, "text"),
    )


def health_address(environ: Mapping[str, str]) -> HostPort:
    """Return where the health server listens."""
    return _plain(environ, "HEALTH_SERVER_ADDRESS", listen_address, DEFAULT_HEALTH_SERVER)


def _plain(environ: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    try:
        return parse(unquoted(environ.get(name, "").strip()))
    except ValueError:
        return default
