"""The messages between the gateway and the server of the control API: a JSON object in a line.

The server asks for the status and for orders, each with a number that the answer repeats. The
gateway sends the roles first, events while the server wants them, and now and then a question
whether it is there.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

LISTENER, CHANNEL = 3, 4
"""The descriptors of the server: the socket that listens, and the one to the gateway."""

LONGEST_REQUEST = 1024
LONGEST_ANSWER = 1 << 20
"""Bytes of a message to the gateway, and of one to the server."""

Message = Mapping[str, Any]


class Order(StrEnum):
    """What the server may ask the gateway to do. None of it opens anything."""

    PAUSE = "pause"
    RESUME = "resume"
    RECONNECT = "reconnect"
    NEXT = "next"
    RELOAD = "reload"


class Broken(ValueError):  # noqa: N818 - it is what a message is
    """A line is not a message of ours."""


def packed(message: Message) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def unpacked(line: bytes) -> dict[str, Any]:
    """Return the message in a line. Raises Broken."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise Broken("not JSON") from err
    if not isinstance(message, dict):
        raise Broken("not an object")
    return message
