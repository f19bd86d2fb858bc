"""How every process that reads what a host sends begins and ends: without rights, with a result.

The result is a file. It has what was wanted after exit code 0, and the reason in words after FAILED
and REFUSED.
"""

import json
import os
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Any, NoReturn

from gateway.errors import NetworkError
from gateway.providers.lists import LARGEST_KEPT, BadListError
from gateway.providers.server import BadAnswerError, RefusedError
from gateway.services.fetching.lists import FAILED, REFUSED, RESULT, SOCKET
from gateway.services.fetching.registrar import SECRETS
from gateway.system import https, rights

MOST_MEMORY = 640 << 20
MOST_PROCESSOR_TIME = 30
"""Bytes of address space, and seconds."""
NOT_ACCEPTED = {401, 403}
"""The statuses by which a server refuses the user."""


def secrets_given() -> dict[str, Any]:
    """Return the secrets of the request."""
    with open(SECRETS, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        given: dict[str, Any] = json.load(file)
    return given


def give_up_rights() -> None:
    """Give up all rights, and set the limits. Raises NetworkError."""
    rights.give_up_rights(
        "the process for lists",
        (
            (resource.RLIMIT_AS, MOST_MEMORY),
            (resource.RLIMIT_FSIZE, LARGEST_KEPT),
            (resource.RLIMIT_CPU, MOST_PROCESSOR_TIME),
        ),
    )


def answer_to(request: https.Request, context: ssl.SSLContext, *, refusal: str = "") -> bytes:
    """Make the request on the socket of this process, and return the body of the answer.

    Raises NetworkError; RefusedError with `refusal`, if there is one, where the server refuses the
    user.
    """
    try:
        return https.get(socket.socket(fileno=SOCKET), request, context)
    except https.StatusError as err:
        if not refusal or err.status not in NOT_ACCEPTED:
            raise
        raise RefusedError(refusal.format(status=err.status)) from err


def hand_over_text(wanted: Callable[[], str]) -> NoReturn:
    """End the process as `hand_over` does."""
    hand_over(lambda: wanted().encode(errors="replace"))


def hand_over(wanted: Callable[[], bytes]) -> NoReturn:
    """End the process with what `wanted` returns as its result, or with the reason why not."""
    code, result, reason = FAILED, b"", ""
    try:
        result, code = wanted(), 0
    except MemoryError:
        reason = f"it takes more than {MOST_MEMORY >> 20} MiB of memory"
    except RefusedError as err:
        code, reason = REFUSED, str(err)
    except (NetworkError, BadListError, BadAnswerError) as err:
        reason = str(err)
    except Exception as err:  # noqa: BLE001 - what an answer can do to a library is not foreseen
        reason = f"the answer cannot be read ({type(err).__name__})"
    end = FAILED
    try:
        with open(RESULT, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(result or reason.encode(errors="replace"))
        end = code
    finally:
        os._exit(end)
