"""The configuration: the environment, secret files and wg-quick files become one `Config`.

`load` reads everything and reports every problem at once; `log_settings` says how to log even when
the rest is wrong. This package is the only reader of the environment.
"""

from gateway.errors import Notice, Weight
from gateway.settings.assemble import (
    Loaded,
    LogSettings,
    environment,
    health_address,
    load,
    log_settings,
)

__all__ = [
    "Loaded",
    "LogSettings",
    "Notice",
    "Weight",
    "environment",
    "health_address",
    "load",
    "log_settings",
]
