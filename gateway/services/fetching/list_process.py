"""Fetches a provider's list, and hands over its servers in the kept form, in a process of its own.

What a host on the internet sends is decrypted and parsed here, so this process gives up everything
that it can: it has another user id where it may, no capability, and its memory, processor time and
output are limited. It has two descriptors: a connected socket, and a file in memory for the result,
which is the kept list after exit code 0, and the reason in words after FAILED.
"""

import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from gateway import __version__
from gateway.errors import NetworkError
from gateway.model import ServerList
from gateway.providers import catalog, lists
from gateway.services.fetching.lists import FAILED, RESULT, SOCKET
from gateway.system import https, rights

MOST_MEMORY = 640 << 20
MOST_PROCESSOR_TIME = 30
"""Bytes of address space, and seconds."""


def main() -> None:
    """Be the process, and end it."""
    name, host, target, port = sys.argv[1:5]
    hand_over(lambda: _fetched(ServerList(name, host, target, int(port))))


def hand_over(fetched: Callable[[], bytes]) -> NoReturn:
    """End the process with what `fetched` returns as its result, or with the reason why not."""
    code = FAILED
    try:
        result, reason = fetched(), ""
    except MemoryError:
        result, reason = b"", f"it takes more than {MOST_MEMORY >> 20} MiB of memory"
    except (NetworkError, lists.BadListError) as err:
        result, reason = b"", str(err)
    except Exception as err:  # noqa: BLE001 - what an answer can do to a library is not foreseen
        result, reason = b"", f"the answer cannot be read ({type(err).__name__})"
    try:
        with open(RESULT, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(result or reason.encode(errors="replace"))
        code = FAILED if reason else 0
    finally:
        os._exit(code)


def _fetched(listed: ServerList) -> bytes:
    """Return the list in the kept form. Raises NetworkError and BadListError."""
    provider = catalog.find(listed.provider)
    if provider is None:
        raise NetworkError("unknown provider", listed.provider)
    context = https.trusted()  # the files may be readable for root only
    give_up_rights()
    request = https.Request(listed, f"portcullis/{__version__}", lists.LARGEST)
    raw = https.get(socket.socket(fileno=SOCKET), request, context)
    servers = lists.servers_in(provider, raw)
    kept = lists.KeptList(listed.provider, listed.url, int(time.time()), servers)
    return lists.dumped(kept)


def give_up_rights() -> None:
    """Give up all rights, and set the limits. Raises NetworkError."""
    rights.give_up_rights(
        "the process for lists",
        (
            (resource.RLIMIT_AS, MOST_MEMORY),
            (resource.RLIMIT_FSIZE, lists.LARGEST_KEPT),
            (resource.RLIMIT_CPU, MOST_PROCESSOR_TIME),
        ),
    )
