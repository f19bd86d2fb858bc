"""What becomes a program for strangers: it gives up its rights, then it is another program.

A program of its own, run as `python -I -S confined.py USER PROGRAM ARGUMENT...`, standard library
only. The gateway's resolver and its proxies parse what others send, so they get another user, no
capability but that for small ports, and limits on memory and descriptors. With USER 0 the user
stays, because another one cannot be had: the capabilities are given up all the same. What cannot be
given up ends it, with the reason on standard error.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import NoReturn

MOST_MEMORY = 512 << 20
MOST_DESCRIPTORS = 4096
"""Bytes of address space, and descriptors."""

CAPABILITY_VERSION = 0x20080522
NET_BIND_SERVICE, LAST = 10, 40
"""linux/capability.h."""
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 1, 8, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 38, 47, 2
"""linux/prctl.h."""

libc = ctypes.CDLL(None, use_errno=True)


def command(user: int, program: str, *words: str) -> list[str]:
    """Return the command that becomes `program` as `user`, without other rights."""
    return [sys.executable, "-I", "-S", __file__, str(user), program, *words]


def main() -> None:
    """Give up what is not needed, and become the program."""
    user, *argv = sys.argv[1:]
    confine(int(user))
    os.execv(argv[0], argv)  # noqa: S606 - that is the purpose


def confine(user: int) -> None:
    """Give up what is not needed, for good, and go on as `user`, unless that is 0."""
    parent = os.getppid()
    limit_resources()
    become(user)
    # After the change of the user, which takes it back (kernel/cred.c, commit_creds).
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        end("the gateway has ended meanwhile")


def limit_resources() -> None:
    """Set the limits, none of them above what it is already."""
    for kind, most in (
        (resource.RLIMIT_AS, MOST_MEMORY),
        (resource.RLIMIT_NOFILE, MOST_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))


def become(user: int) -> None:
    """Take the id `user`, unless it is 0, and keep the capability for small ports at most.

    A program that root starts gets back what this process has given up (capabilities(7)), but not
    under PR_SET_NO_NEW_PRIVS (security/commoncap.c, cap_bprm_creds_from_file).
    """
    kept = 1 << NET_BIND_SERVICE if permitted() >> NET_BIND_SERVICE & 1 else 0
    for number in range(LAST + 1):
        if not kept >> number & 1:  # it takes CAP_SETPCAP, and is not needed with the last call
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    if user:
        call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    numbers = ctypes.c_uint32 * 6
    call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), numbers(kept, kept, kept, 0, 0, 0))
    if kept:
        call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, NET_BIND_SERVICE, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def permitted() -> int:
    """Return the permitted capabilities as bits."""
    numbers = (ctypes.c_uint32 * 6)()
    call("capget", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), numbers)
    return int(numbers[1]) | int(numbers[4]) << 32


def call(name: str, *arguments: object) -> None:
    """Make a call of libc; one that fails ends the process."""
    if getattr(libc, name)(*arguments):
        end(f"{name}: {os.strerror(ctypes.get_errno())}")


def end(why: str) -> NoReturn:
    """End the process, with the reason on standard error."""
    sys.stderr.write(f"{why}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
