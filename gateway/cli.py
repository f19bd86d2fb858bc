"""The commands of the gateway: `run` (the default), `check` and `status`.

Only here errors become exit codes: 0 well, 1 failed or unhealthy, 2 wrong configuration or usage.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException

import structlog

from gateway import app, log, settings
from gateway.errors import ConfigError, GatewayError, MissingError
from gateway.model import HostPort
from gateway.settings import Loaded

OK = 0
FAILED = 1
USAGE = 2

STATUS_TIME = 3.0
"""Seconds that the running gateway may take to answer `gateway status`."""

HELP = """\
usage: gateway [run | check | status [--json]]

  run      close the network namespace, connect, and stay (the default)
  check    read the configuration as `run` does and show what it means; touches nothing
  status   ask the running gateway how it is

The configuration is read from the environment: see docs/configuration.md.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name and return its exit code."""
    match list(arguments):
        case [] | ["run"]:
            return run()
        case ["check"]:
            return check()
        case ["status"]:
            return status(as_json=False)
        case ["status", "--json"]:
            return status(as_json=True)
        case ["help" | "-h" | "--help"]:
            print(HELP, end="")
            return OK
        case _:
            print(HELP, end="", file=sys.stderr)
            return USAGE


def run() -> int:
    """Be the gateway until told to stop: close the namespace, read the configuration, serve."""
    environ = settings.environment()
    wanted = settings.log_settings(environ)
    log.configure(wanted.level, wanted.format)
    logger = structlog.get_logger()
    try:
        secured = app.secure()
        logger.info("locked", firewall=secured.firewall.name)
        loaded = settings.load(environ)
        _tell(loaded)
        asyncio.run(app.serve(loaded.config, secured))
    except ConfigError as err:
        for problem in err.problems:
            logger.error("wrong configuration", variable=problem.where, problem=problem.message)
        return USAGE
    except MissingError as err:
        logger.error("something is missing; closed", missing=err.missing, remedy=err.remedy)
        return FAILED
    except GatewayError as err:
        logger.error("the gateway ends; closed", problem=str(err))
        return FAILED
    logger.info("stopped; closed")
    return OK


def _tell(loaded: Loaded) -> None:
    """Log what reading the configuration found out."""
    logger = structlog.get_logger()
    for notice in loaded.notices:
        logger.log(log.LEVELS[notice.weight], notice.message, where=notice.where)


def check() -> int:
    """Print what the configuration means, or every problem with it."""
    try:
        loaded = settings.load(settings.environment())
    except ConfigError as err:
        for problem in err.problems:
            print(problem, file=sys.stderr)
        return USAGE
    for notice in loaded.notices:
        print(notice)
    for name, origin in sorted(loaded.origins.items()):
        print(f"{name}: from {origin}")
    return OK


def status(*, as_json: bool) -> int:
    """Print what the running gateway tells of itself; the exit code says whether it is healthy."""
    address = settings.health_address(settings.environment())
    try:
        healthy, told = _ask(address)
    except (OSError, HTTPException, ValueError) as err:
        print(f"no answer from {address.host} port {address.port}: {err}", file=sys.stderr)
        return FAILED
    if as_json:
        print(json.dumps(told))
    else:
        for name, value in told.items():
            print(f"{name.replace('_', ' '):14} {_for_people(value)}")
    return OK if healthy else FAILED


def _ask(address: HostPort) -> tuple[bool, dict[str, object]]:
    """Return whether the gateway at `address` is healthy and all that it tells."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound, asked
    connection = HTTPConnection(
        host.get(address.host, address.host), address.port, timeout=STATUS_TIME
    )
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        told = json.loads(answer.read())
    finally:
        connection.close()
    if not isinstance(told, dict):
        raise TypeError("that is not the gateway")
    return answer.status == 200, told  # noqa: PLR2004 - HTTP


def _for_people(value: object) -> str:
    match value:
        case None | "" | []:
            return "-"
        case list():
            return "\n               ".join(map(str, value))
        case _:
            return str(value)
