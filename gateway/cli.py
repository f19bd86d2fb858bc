"""The command line: `run` (the default) is here, the other commands are in `commands`.

Each command turns errors into exit codes (`commands/exit_codes.py`); `__main__` returns 1 for an
error that nobody foresaw.
"""

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from gateway import log, settings
from gateway.commands.exit_codes import FAILED, OK, USAGE
from gateway.daemon import main as app
from gateway.errors import (
    ConfigError,
    GatewayError,
    MissingError,
    NotClosedError,
    Notice,
    StoppedError,
)


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name and return its exit code."""
    if list(arguments) in ([], ["run"]):
        return run()
    from gateway.commands import main as commands  # noqa: PLC0415 - the gateway needs none of it

    return commands.main(arguments)


def run() -> int:
    """Be the gateway until told to stop: close the namespace, read the configuration, serve."""
    environ = settings.environment()
    wanted = settings.log_settings(environ)
    log.configure(wanted.level, wanted.format)
    logger = structlog.get_logger()
    try:
        secured = app.secure()
        logger.info("locked", firewall=secured.firewall.name)
        loaded = app.patiently(lambda: settings.load(environ))
        _tell(loaded.notices)
        asyncio.run(app.serve(loaded.config, secured))
    except ConfigError as err:
        _tell(err.notices)
        for problem in err.problems:
            logger.error("wrong configuration", variable=problem.where, problem=problem.message)
        return USAGE
    except MissingError as err:
        logger.error("something is missing; closed", missing=err.missing, remedy=err.remedy)
        return FAILED
    except NotClosedError as err:
        logger.critical("the gateway ends; not closed by rules", problem=str(err))
        return FAILED
    except StoppedError:
        logger.info("stopped before it could begin; closed")
        return OK
    except GatewayError as err:
        logger.error("the gateway ends; closed", problem=str(err))
        return FAILED
    logger.info("stopped; closed")
    return OK


def _tell(notices: Iterable[Notice]) -> None:
    """Log what reading the configuration found out."""
    logger = structlog.get_logger()
    for notice in notices:
        logger.log(log.LEVELS[notice.weight], notice.message, where=notice.where)
