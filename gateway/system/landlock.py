"""How a process gives up opening files (landlock(7), Linux 5.13 and later)."""

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress

CREATE, ADD, RESTRICT = 444, 445, 446
"""landlock_create_ruleset, landlock_add_rule, landlock_restrict_self (asm-generic/unistd.h)."""
VERSION, BENEATH = 1, 1
"""LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH (linux/landlock.h)."""
READ_FILE, READ_DIRECTORY = 1 << 2, 1 << 3
"""LANDLOCK_ACCESS_FS_READ_FILE and LANDLOCK_ACCESS_FS_READ_DIR."""
ACCESSES = {1: 13, 2: 14}
"""How many kinds of access to files the first versions have; later ones have these at least."""
SINCE_THIRD = 15


class _Beneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def read_only_below(directories: Iterable[str]) -> None:
    """Have the kernel refuse to open and to change any file, except reading those in `directories`.

    The process keeps the files that it has open. It must have set PR_SET_NO_NEW_PRIVS before. If
    the kernel is too old, has Landlock off, or a seccomp filter of the container refuses the call,
    this function changes nothing. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE, None, 0, VERSION)
    if version < 1:
        return
    handled = ctypes.c_uint64((1 << ACCESSES.get(version, SINCE_THIRD)) - 1)
    rules = _done(libc.syscall(CREATE, ctypes.byref(handled), ctypes.sizeof(handled), 0))
    try:
        for directory in directories:
            with suppress(OSError):  # not there, or not for this user
                _allow(libc, rules, os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        _done(libc.syscall(RESTRICT, rules, 0))
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, directory: int) -> None:
    """Add that files below an open directory, which is closed, can be read. Raises OSError."""
    try:
        beneath = _Beneath(READ_FILE | READ_DIRECTORY, directory)
        _done(libc.syscall(ADD, rules, BENEATH, ctypes.byref(beneath), 0))
    finally:
        os.close(directory)


def _done(result: int) -> int:
    """Return what a call has returned. Raises OSError if it has failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
