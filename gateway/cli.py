"""The command line: the parser, `run` (the default), `hold`, `vault`, and the calls of the others.

Each command turns its errors into exit codes (`commands/exit_codes.py`), and `__main__` returns 1
for an unexpected error. What a command needs is imported only for that command.
"""

import gc
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway import __version__
from gateway.commands.exit_codes import FAILED, OK, USAGE

TYPE_CHECKING = False  # the module with that name takes 2 ms
if TYPE_CHECKING:
    import argparse

    from gateway.errors import Notice

SERVER_FLAGS = ("OWNED_ONLY", "PORT_FORWARD_ONLY")
SERVER_FILTERS = ("countries", "regions", "cities", "names", "hostnames", "categories", "isp")
"""The options of `gateway servers list`."""
UNUSABLE = "the configuration is wrong, see above; `gateway check` shows what is left to correct"


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name and return its exit code."""
    if list(arguments) in ([], ["run"]):
        return run()
    if list(arguments[:1]) == ["status"]:
        from gateway.commands.status import status

        return status(arguments[1:])
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    if asked.command in {"hold", "vault"}:
        return stay(asked.command, once=getattr(asked, "once", False))
    return run() if asked.command == "run" else _other(asked)


def _other(asked: "argparse.Namespace") -> int:
    """Run a command that changes nothing by itself."""
    match asked.command:
        case "check":
            from gateway.commands.check.command import check

            return check(asked)
        case "doctor" | "init":
            return _to_begin_or_to_ask_for_help(asked)
        case "reload":
            from gateway.commands.reload import reload

            return reload()
        case "pause" | "resume" | "reconnect" | "next":
            from gateway.commands.order import order

            return order(asked.command)
        case "servers":
            from gateway.commands.servers import servers

            return servers(asked)
        case _:
            from gateway.commands.verify.command import verify

            return verify(asked)


def _to_begin_or_to_ask_for_help(asked: "argparse.Namespace") -> int:
    if asked.command == "init":
        from gateway.commands.init.command import init

        return init(asked)
    from gateway.commands.doctor.command import doctor

    return doctor()


def run() -> int:
    """Close the namespace, read the configuration and run the gateway until it is asked to stop."""
    gc.disable()  # imports make no garbage: collecting would take a fifth of the start
    from gateway.system.lean import import_inspect, leave_out

    import_inspect()
    from gateway.settings import early
    from gateway.settings.reading import Reading

    environ = early.environment()
    reading = Reading(environ)  # first: it takes as long as all that follows, at the same time
    leave_out()
    import structlog

    from gateway.daemon.patience import is_asked_to_stop
    from gateway.daemon.securing import patiently, secure
    from gateway.system.meanwhile import meanwhile

    _configure_log(environ)
    logger = structlog.get_logger()
    logger.info("starting", version=__version__, commit=environ.get("PORTCULLIS_COMMIT", ""))
    # The rest is imported while the tools work that close the namespace.
    imported = meanwhile(lambda: importlib.import_module("gateway.daemon.main"))

    def serving() -> None:
        secured = secure()
        logger.info("locked", firewall=secured.firewall.name)
        imported()
        import asyncio

        from gateway.daemon.main import serve

        gc.freeze()
        gc.enable()
        read = patiently(lambda: reading.result(is_asked_to_stop))
        _log_notices(read.notices)
        asyncio.run(serve(read.config, secured, environ))
        logger.info("stopped; closed")

    return _exit_code(serving)


def stay(command: str, *, once: bool) -> int:
    """Close the namespace for gateways elsewhere, and stay unless `once`; return the exit code.

    `hold` then only waits, `vault` opens things in the namespace for a gateway.
    """
    from gateway import log
    from gateway.settings import early

    _configure_log(early.environment())
    if command == "hold":
        from gateway.daemon.holding import hold as close
        from gateway.daemon.holding import wait
    else:
        from gateway.daemon.vaulting import close, wait

    def staying() -> None:
        close()
        log.finish()
        if not once:
            wait()

    # What starts `hold --once` continues once it has ended well, so that has to mean: all is done.
    return _exit_code(staying, stopped=FAILED if once else OK)


def _configure_log(environ: Mapping[str, str]) -> None:
    from gateway import log
    from gateway.settings import early

    wanted = early.log_settings(environ)
    log.configure(wanted.level, wanted.format)


def _exit_code(work: Callable[[], None], stopped: int = OK) -> int:
    """Do `work`, log how it failed if it did, and return the exit code: `stopped` after a stop."""
    import structlog

    from gateway.errors import (
        ConfigError,
        GatewayError,
        MissingError,
        NotClosedError,
        StoppedError,
    )

    logger = structlog.get_logger()
    try:
        work()
    except ConfigError as err:
        _log_notices(err.notices)
        for problem in err.problems:
            logger.error("invalid configuration", variable=problem.where, problem=problem.message)
        logger.error("exiting; closed", problem=UNUSABLE)
        return USAGE
    except MissingError as err:
        logger.error("requirement missing; closed", missing=err.missing, remedy=err.remedy)
        return FAILED
    except NotClosedError as err:
        logger.critical("exiting; not closed by rules", problem=str(err))
        return FAILED
    except StoppedError:
        logger.info("stopped before start; closed")
        return stopped
    except GatewayError as err:
        logger.error("exiting; closed", problem=str(err))
        return FAILED
    return OK


def _log_notices(notices: "Iterable[Notice]") -> None:
    """Log the notices about the configuration."""
    import structlog

    from gateway import log

    logger = structlog.get_logger()
    for notice in notices:
        logger.log(
            log.LEVELS[notice.weight],
            "configuration notice",
            variable=notice.where,
            notice=notice.message,
        )


def _add_servers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from pathlib import Path

    parser = commands.add_parser("servers", help="fetch a provider's list of servers, or show it")
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    update = actions.add_parser("update", help="fetch the list now, and keep it")
    shown = actions.add_parser("list", help="show the servers of the list that is kept")
    for one in (update, shown):
        one.add_argument("provider", nargs="?", help="by default VPN_SERVICE_PROVIDER")
        one.add_argument("--directory", type=Path, help="where lists are kept: /config/servers")
    for option in SERVER_FILTERS:
        shown.add_argument(f"--{option}", metavar="A,B", help="as the variable of that name")
    for flag in SERVER_FLAGS:
        option = f"--{flag.lower().replace('_', '-')}"
        shown.add_argument(option, action="store_true", help=f"as {flag}")
    shown.add_argument("--json", action="store_true", help="print JSON")


def _parser() -> "argparse.ArgumentParser":
    import argparse
    from pathlib import Path

    from gateway.commands.init.arguments import add_init
    from gateway.commands.order import add_orders
    from gateway.commands.status import add_options

    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A fail-closed WireGuard gateway. Without a command it is the gateway: it "
        "closes the network namespace that it is started in, connects, and stays.",
        epilog="The configuration is read from the environment: docs/configuration.md.",
    )
    parser.add_argument("--version", action="version", version=f"portcullis {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("run", help="run the gateway (the default)")
    held = commands.add_parser(
        "hold", help="close the namespace and hold it for a gateway in another container"
    )
    held.add_argument("--once", action="store_true", help="close it, and end")
    add_orders(commands)
    add_init(commands)
    commands.add_parser(
        "doctor", help="print one text for a bug report, without secrets; changes nothing"
    )
    commands.add_parser(
        "vault", help="close a namespace without uplinks, and have a gateway elsewhere connect it"
    )
    _add_servers(commands)
    # Only for the list: `main` has handed it over, because what follows here takes longer.
    add_options(commands.add_parser("status", help="show the state of the running gateway"))
    checked = commands.add_parser(
        "check", help="check the configuration and show what it means; changes nothing"
    )
    source = checked.add_mutually_exclusive_group()
    for option, said in (
        ("--env-file", "variables, one per line"),
        ("--compose", "a compose file, or the output of `docker compose config`"),
        ("--inspect", "the output of `docker inspect` for a container"),
        ("--quadlet", "a Podman unit NAME.container"),
        ("--kubernetes", "manifests with a pod"),
        ("--unraid", "a template of a container"),
    ):
        source.add_argument(option, type=Path, metavar="FILE", help=f"{said}; - for standard input")
    checked.add_argument(
        "--service",
        help="the service or container; by default gateway, or the only one that is one",
    )
    checked.add_argument("--json", action="store_true", help="print JSON")
    checked.add_argument(
        "--migrate",
        action="store_true",
        help="print the compose file with the service changed for this image",
    )
    checked.add_argument(
        "--rules", choices=["iptables", "nftables"], help="show the rules of each state"
    )
    checked.add_argument(
        "--vault", action="store_true", help="show the rules of a gateway with a vault"
    )
    tried = commands.add_parser(
        "verify", help="try every way around the tunnel, live and without harm"
    )
    tried.add_argument("--json", action="store_true", help="print JSON")
    tried.add_argument("--cut", action="store_true", help="also take the tunnel down for a moment")
    tried.add_argument(
        "--echo",
        default="",
        metavar="URL",
        help="a service that returns the caller's address, asked through the tunnel",
    )
    return parser
