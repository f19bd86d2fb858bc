"""The commands beside `run`: they ask, read or try, and change nothing but by `verify --cut`."""

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from time import monotonic

from gateway import __version__, settings
from gateway.errors import ConfigError, GatewayError, NetworkError
from gateway.model import Config, Facts, HostPort, Route, Uplink

OK = 0
FAILED = 1
USAGE = 2

ANSWER_TIME = 3.0
"""Seconds that the running gateway may take to answer, in all."""

LARGEST_ANSWER = 65536
"""Bytes of an answer. While the gateway is gone, any workload can listen on its port."""

ASK_INSTEAD = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not bound
"""Where to ask a server that listens on every address."""

EXAMPLE = Facts(
    uplinks=(
        Uplink("eth0", 2, 1500, (ip_interface("172.17.0.2/16"), ip_interface("fd00:17::2/64"))),
    ),
    routes=(
        Route(ip_network("0.0.0.0/0"), "eth0", ip_address("172.17.0.1")),
        Route(ip_network("172.17.0.0/16"), "eth0"),
        Route(ip_network("::/0"), "eth0", ip_address("fd00:17::1")),
        Route(ip_network("fd00:17::/64"), "eth0"),
    ),
)
"""A namespace as Docker makes it, with both families, for rules shown without looking at one."""


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name and return its exit code."""
    asked = _parser().parse_args(arguments)
    match asked.command:
        case "check":
            return check(asked)
        case "status":
            return status(as_json=asked.json)
        case "verify":
            return verify(asked)
        case _:
            _parser().print_help(sys.stderr)
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
    commands.add_parser("run", help="be the gateway (the default)")
    told = commands.add_parser("status", help="ask the running gateway how it is")
    told.add_argument("--json", action="store_true", help="for a program")
    checked = commands.add_parser(
        "check", help="read the configuration as it stands and show what it means; touches nothing"
    )
    source = checked.add_mutually_exclusive_group()
    source.add_argument("--env-file", type=Path, metavar="FILE", help="variables, one a line")
    source.add_argument("--compose", type=Path, metavar="FILE", help="a compose file")
    checked.add_argument("--service", default="gateway", help="the service in the compose file")
    checked.add_argument(
        "--rules", choices=["iptables", "nftables"], help="show the rules of each state"
    )
    tried = commands.add_parser(
        "verify", help="try every way around the tunnel, live and without harm"
    )
    tried.add_argument("--json", action="store_true", help="for a program")
    tried.add_argument("--cut", action="store_true", help="also take the tunnel away for a moment")
    tried.add_argument(
        "--echo", default="", metavar="URL", help="an address echo to ask through the tunnel"
    )
    return parser


def check(asked: argparse.Namespace) -> int:
    """Print what the configuration means, or every problem with it."""
    try:
        loaded = _load(asked)
    except ConfigError as err:
        for line in (*err.problems, *(f"  {one.weight}: {one}" for one in err.notices)):
            print(line, file=sys.stderr)
        return USAGE
    from gateway.settings.explain import explain  # noqa: PLC0415 - no other command needs it

    print(explain(loaded))
    if asked.rules:
        print(_rules(loaded.config, asked.rules))
    return OK


def _load(asked: argparse.Namespace) -> settings.Loaded:
    # Each reader is imported where it is wanted: the gateway itself needs none of them.
    environ = settings.environment()
    if asked.compose:
        from gateway.settings.trial import load_service  # noqa: PLC0415

        return load_service(asked.compose, asked.service, environ)
    if asked.env_file:
        from gateway.settings.envfile import read_env_file  # noqa: PLC0415

        return settings.load(read_env_file(asked.env_file))
    return settings.load(environ)


def _rules(config: Config, syntax: str) -> str:
    """Return the rules of each state as they would be in a container on Docker's own network."""
    from gateway.firewall import render_iptables, render_nftables  # noqa: PLC0415
    from gateway.policy.examples import NOT_YET_KNOWN, each_state  # noqa: PLC0415
    from gateway.policy.firewall import ruleset_for  # noqa: PLC0415
    from gateway.policy.rules import Family  # noqa: PLC0415

    own = " and ".join(str(address.ip) for address in EXAMPLE.uplinks[0].addresses)
    parts = [f"The rules of each state, in a container with the addresses {own} on eth0."]
    if any(tunnel.names for tunnel in config.tunnels):
        parts.append(f"{NOT_YET_KNOWN} stands for the address that a server's name will have.")
    for title, state in each_state(config):
        ruleset = ruleset_for(state, config, EXAMPLE)
        parts.append(f"\n# {title}")
        if syntax == "nftables":
            parts.append(render_nftables.render(ruleset))
        else:
            parts += [
                f"# IPv{family.value}\n{render_iptables.render(ruleset, family)}"
                for family in Family
            ]
    return "\n".join(parts)


def status(*, as_json: bool) -> int:
    """Print what the running gateway tells of itself; the exit code says whether it is healthy."""
    try:
        told = _ask(settings.health_address(settings.environment()))
    except NetworkError as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    if as_json:
        print(json.dumps(told))
    else:
        for name, value in told.items():
            print(f"{visible(name.replace('_', ' ')):14} {for_people(value)}")
    return OK if told.get("healthy") else FAILED


def _ask(address: HostPort) -> dict[str, object]:
    """Return what the gateway at `address` tells. Raises NetworkError when it does not answer."""
    host = ASK_INSTEAD.get(address.host, address.host)
    where = f"{host}:{address.port}"
    try:
        answer = exchange(host, address.port)
    except TimeoutError as err:
        raise NetworkError(f"no complete answer within {ANSWER_TIME:g} s", where) from err
    except OSError as err:
        raise NetworkError(f"no answer from the gateway ({err})", where) from err
    try:
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise NetworkError("that is not the gateway", where)
    return told


def exchange(host: str, port: int) -> bytes:
    """Return the whole answer to GET /healthz; raises OSError if it takes too long or is too long.

    Whoever listens there may send byte by byte, and without end.
    """
    deadline = monotonic() + ANSWER_TIME
    answer = b""
    with socket.create_connection((host, port), timeout=ANSWER_TIME) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        while len(answer) <= LARGEST_ANSWER:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            part = connection.recv(LARGEST_ANSWER)
            if not part:
                return answer
            answer += part
    raise OSError(f"longer than {LARGEST_ANSWER} bytes")


def for_people(value: object) -> str:
    """Return `value` of an answer in words that a terminal can be shown."""
    match value:
        case None | "" | [] | {}:
            return "-"
        case dict():
            return visible(", ".join(f"{name}: {number}" for name, number in value.items()))
        case list():
            return "\n               ".join(visible(str(each)) for each in value)
        case _:
            return visible(str(value))


def visible(text: str) -> str:
    """Return `text` with control characters escaped: a terminal would obey them."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def verify(asked: argparse.Namespace) -> int:
    """Try every way around the tunnel and print what happened; the exit code sums it up."""
    from gateway.policy.dns import resolvers_in  # noqa: PLC0415 - as in _rules
    from gateway.system.resolv import ResolverFile  # noqa: PLC0415
    from gateway.verification.report import Verification  # noqa: PLC0415

    environ = settings.environment()
    address = settings.health_address(environ)
    named = ""
    with suppress(NetworkError):
        named = ResolverFile().read()
    try:
        config = settings.load(environ).config
        trial = Verification(lambda: _ask(address), config, resolvers_in(named))
        lines = trial.run(echo=asked.echo, cut=asked.cut)
    except ConfigError as err:
        print("\n".join(map(str, err.problems)), file=sys.stderr)
        return USAGE
    except GatewayError as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    ok = all(line.ok for line in lines)
    if asked.json:
        print(json.dumps({"ok": ok, "trials": [asdict(line) for line in lines]}))
        return OK if ok else FAILED
    width = max(len(line.tried) for line in lines)
    for line in lines:
        verdict = "ok  " if line.ok else "FAIL"
        print(f"{verdict}  {visible(line.tried):{width}}  {visible(line.happened)}")
    print("\nAs promised." if ok else "\nNOT as promised: see the lines with FAIL.")
    return OK if ok else FAILED
