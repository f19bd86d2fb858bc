"""How a process that reads what others send gives up its rights, before it reads anything."""

import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

import gateway
from gateway.errors import NetworkError
from gateway.system.landlock import read_only_below
from gateway.system.seccomp import refuse_starting

USER = 65534
"""The user id of the user without rights."""
CAPABILITY_VERSION = 0x20080522
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
"""linux/capability.h, linux/prctl.h."""
NO_OTHER_USER = {errno.EPERM, errno.EINVAL}
"""Without CAP_SETUID; in a user namespace that has no such id (setresuid(2))."""


def give_up_rights(what: str, limits: Iterable[tuple[int, int]]) -> None:
    """Take another user id if there is one, give up every capability, and set the limits.

    `what` is the process, for errors, and `limits` are resources with the most of each. It leaves
    no core and can start no process. The kernel's limit on processes does not apply to root
    (kernel/fork.c, copy_process), so without another user a seccomp filter refuses them. Landlock
    allows it to open only what Python imports: as root it could read the keys. A kernel without
    Landlock or seccomp is accepted. What is given up cannot be had back (prctl(2),
    PR_SET_NO_NEW_PRIVS). The change of the user takes back that the kernel kills this process when
    the gateway goes (kernel/cred.c, commit_creds), so that is asked for again. Raises NetworkError.
    """
    parent = os.getppid()
    for kind, most in (*limits, (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    is_other = _take_another_user(what)
    libc = ctypes.CDLL(None, use_errno=True)
    head, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(head, none) or libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise NetworkError("cannot give up its rights", what)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):  # others with its user id cannot read its memory
        raise NetworkError("cannot hide its memory", what)
    try:
        read_only_below(_importable())
    except OSError as err:
        raise NetworkError(f"cannot give up files: {err.strerror}", what, err.errno) from err
    if not is_other:
        with suppress(NotImplementedError, OSError):
            refuse_starting()
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent:
        raise NetworkError("the gateway has ended meanwhile", what)


def _take_another_user(what: str) -> bool:
    """Return whether it has another user id from now on. Raises NetworkError."""
    try:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    except OSError as err:
        if err.errno not in NO_OTHER_USER:
            raise NetworkError(f"cannot change its user: {err.strerror}", what, err.errno) from err
        return False
    return True


def _importable() -> list[str]:
    """Return the directories that Python imports from, and that of the gateway.

    The root directory is left out, below which all is: it is among them for `python -m gateway` in
    that directory.
    """
    return [*(it for it in sys.path if os.path.realpath(it) != "/"), *gateway.__path__]
