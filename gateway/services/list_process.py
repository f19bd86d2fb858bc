"""Fetches a provider's list, and hands over its servers in the kept form, in a process of its own.

What a host on the internet sends is decrypted and parsed here, so this process gives up everything
that it can: it has another user id where it may, no capability, and its memory, processor time and
output are limited. It has two descriptors: a connected socket, and a file in memory for the result,
which is the kept list after exit code 0, and the reason in words after FAILED.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from gateway import __version__
from gateway.errors import NetworkError
from gateway.model import ServerList
from gateway.providers import catalog, lists
from gateway.services.lists import FAILED, RESULT, SOCKET
from gateway.system import https

MOST_MEMORY = 640 << 20
MOST_PROCESSOR_TIME = 30
"""Bytes of address space, and seconds."""

USER = 65534
CAPABILITY_VERSION = 0x20080522
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
"""linux/capability.h, linux/prctl.h."""


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
    """Take another user id if that is allowed, give up every capability, and set the limits.

    The change of the user takes back that the kernel kills this process when the gateway goes
    (kernel/cred.c, commit_creds), so that is asked for again. Raises NetworkError.
    """
    parent = os.getppid()
    for kind, most in (
        (resource.RLIMIT_AS, MOST_MEMORY),
        (resource.RLIMIT_FSIZE, lists.LARGEST_KEPT),
        (resource.RLIMIT_CPU, MOST_PROCESSOR_TIME),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    with suppress(PermissionError):  # without CAP_SETUID
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    libc = ctypes.CDLL(None, use_errno=True)
    head, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(head, none) or libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise NetworkError("cannot give up its rights", "the process for lists")
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent:
        raise NetworkError("the gateway has ended meanwhile", "the process for lists")
