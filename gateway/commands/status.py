"""`gateway status`: asks the running gateway for its state and shows the answer."""

import json
import socket
import sys
from time import monotonic

from gateway import settings
from gateway.commands.exit_codes import FAILED, OK
from gateway.errors import NetworkError
from gateway.model import HostPort

ANSWER_TIME = 3.0
"""Seconds that the running gateway may take to answer, in all."""

LARGEST_ANSWER = 65536
"""Bytes of an answer. While the gateway is gone, any workload can listen on its port."""

ASK_INSTEAD = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not bound
"""Where to ask a server that listens on every address."""


def status(*, as_json: bool) -> int:
    """Print the status of the running gateway; the exit code says whether it is healthy."""
    try:
        answered = ask(settings.health_address(settings.environment()))
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
        answer = exchange(host, address.port)
    except TimeoutError as err:
        raise NetworkError(f"no complete answer within {ANSWER_TIME:g} s", where) from err
    except OSError as err:
        raise NetworkError(f"no answer from the gateway ({err})", where) from err
    try:
        answered = json.loads(answer.partition(b"\r\n\r\n")[2])
    except (ValueError, RecursionError):
        answered = None
    if not isinstance(answered, dict):
        raise NetworkError("the reply is not from the gateway", where)
    return answered


def exchange(host: str, port: int) -> bytes:
    """Return the whole answer to GET /healthz; raises OSError if it takes too long or is too long.

    The peer may be any program: it may send byte by byte, and without end.
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
    """Return a value of the answer as text that is safe for a terminal."""
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
    """Return `text` with control characters escaped, so that they do not control the terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
