"""The parser of the command line, and the way to each command.

Each command is imported when it is asked for: together they need every part of the gateway.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import __version__
from gateway.commands.exit_codes import USAGE


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name and return its exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    match asked.command:
        case "check":
            from gateway.commands.check.command import check

            return check(asked)
        case "status":
            from gateway.commands.status import status

            return status(as_json=asked.json)
        case "verify":
            from gateway.commands.verify.command import verify

            return verify(asked)
        case _:
            parser.print_help(sys.stderr)
            return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A fail-closed WireGuard gateway. Without a command it is the gateway: it "
        "closes the network namespace that it is started in, connects, and stays.",
        epilog="The configuration is read from the environment: docs/configuration.md.",
    )
    parser.add_argument("--version", action="version", version=f"portcullis {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("run", help="run the gateway (the default)")
    shown = commands.add_parser("status", help="show the state of the running gateway")
    shown.add_argument("--json", action="store_true", help="print JSON")
    checked = commands.add_parser(
        "check", help="check the configuration and show what it means; changes nothing"
    )
    source = checked.add_mutually_exclusive_group()
    source.add_argument("--env-file", type=Path, metavar="FILE", help="variables, one per line")
    source.add_argument(
        "--compose",
        type=Path,
        metavar="FILE",
        help="a compose file, or - for the output of `docker compose config` on standard input",
    )
    checked.add_argument("--service", default="gateway", help="the service in the compose file")
    checked.add_argument(
        "--rules", choices=["iptables", "nftables"], help="show the rules of each state"
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
