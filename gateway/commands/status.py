"""`gateway status`: asks the running gateway for its state and prints the answer.

While the gateway is gone, any workload can listen on its port, so `healthcheck.ask` limits the time
and the size of a reply.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.commands.exit_codes import FAILED, OK
from gateway.errors import NetworkError
from gateway.model import HostPort
from gateway.settings import early
from healthcheck import __main__ as healthcheck
from healthcheck.__main__ import ASK_INSTEAD, TIME_LIMIT


def status(*, as_json: bool) -> int:
    """Print the status of the running gateway; the exit code says whether it is healthy."""
    try:
        answered = ask(early.health_address(early.environment()))
    except NetworkError as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    if as_json:
        print(json.dumps(answered))
    else:
        for name, value in answered.items():
            print(f"{visible(name.replace('_', ' ')):14} {for_people(value)}")
    return OK if answered.get("healthy") else FAILED


def ask(address: HostPort) -> dict[str, object]:
    """Return the status of the gateway at `address`; raises NetworkError without an answer."""
    host = ASK_INSTEAD.get(address.host, address.host)
    where = f"{host}:{address.port}"
    try:
        reply = healthcheck.ask(host, address.port)
    except TimeoutError as err:
        raise NetworkError(f"no complete answer within {TIME_LIMIT:g} s", where) from err
    except (OSError, healthcheck.Unhealthy) as err:
        why = "its log says why: docker logs CONTAINER"
        raise NetworkError(f"no answer from the gateway at {where} ({err}); {why}") from err
    try:
        answered = json.loads(reply.partition(b"\r\n\r\n")[2])
    except (ValueError, RecursionError):
        answered = None
    if not isinstance(answered, dict):
        raise NetworkError("the reply is not from the gateway", where)
    return answered


def for_people(value: object) -> str:
    """Return a value of the answer as text that is safe for a terminal."""
    match value:
        case None | "" | []:
            return "-"
        case dict() if not value:  # the pattern {} is any dictionary
            return "-"
        case dict():
            return _of_dict(value)
        case list():
            return _indented(map(_one_of_several, value))
        case _:
            return visible(str(value))


def _of_dict(value: Mapping[Any, object]) -> str:
    """Return the last reading of the configuration, the resolver, or counts as text."""
    match value:
        case {"outcome": outcome, "age": age, **found}:
            return _indented([visible(f"{outcome} {age} s ago"), *of_reload(found)])
        case {"asks": asks, "problem": problem}:
            return visible(f"{problem}; asks {asks}" if problem else f"asks {asks}")
        case _:
            return visible(", ".join(f"{name}: {number}" for name, number in value.items()))


def of_reload(found: Mapping[Any, object]) -> list[str]:
    """Return what an answer says about the last reading of the configuration, a line for each."""
    lines = [
        f"{words}: {', '.join(map(visible, map(str, names)))}"
        for name, words in (("changed", "changed"), ("needs_restart", "needs a restart"))
        if isinstance(names := found.get(name), list) and names
    ]
    problems = found.get("problems")
    listed = [it for it in problems if isinstance(it, dict)] if isinstance(problems, list) else []
    for it in listed:
        named = (str(it[key]) for key in ("variable", "problem") if it.get(key))
        lines.append(visible(": ".join(named)))
    number = found.get("found")
    if isinstance(number, int) and number > len(listed):
        lines.append(f"and {number - len(listed)} more, which the log has")
    return lines


def _indented(lines: Iterable[str]) -> str:
    return "\n               ".join(lines)


def _one_of_several(value: object) -> str:
    """Return a part of a list: a limit as text, remedy and code, anything else as it is."""
    match value:
        case {"code": code, "text": text, "remedy": remedy}:
            return visible(f"{text}; {remedy} [{code}]")
        case dict():
            return for_people(value)
        case _:
            return visible(str(value))


def visible(text: str) -> str:
    """Return `text` with control characters escaped, so that they do not control the terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
