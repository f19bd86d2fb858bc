"""Becomes a program whose kernel calls another program decides about, and so do all its children.

    python filtered.py SOCKET NUMBER,NUMBER,... PROGRAM ARGUMENT...

The system calls with these numbers pass; all others stop until the listener at the Unix socket
SOCKET has answered (seccomp(2), SECCOMP_RET_USER_NOTIF). A program of its own, standard library
only.
"""

import ctypes
import os
import socket
import struct
import sys

AUDIT_ARCH_X86_64 = 0xC000003E
SYS_SECCOMP = 317
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
PR_SET_NO_NEW_PRIVS = 38
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
"""linux/seccomp.h, linux/prctl.h and linux/bpf_common.h."""


def program(numbers: list[int]) -> bytes:
    """Return the filter that passes the system calls `numbers`, and stops at every other."""
    instruction = struct.Struct("HBBI").pack
    checks = [
        # (code, how many to skip if equal, how many if not, value)
        instruction(BPF_JUMP_EQUAL, len(numbers) - at, 0, number)
        for at, number in enumerate(numbers)
    ]
    return b"".join(
        [
            instruction(BPF_LOAD_WORD, 0, 0, 4),  # the architecture
            instruction(BPF_JUMP_EQUAL, 0, len(numbers) + 2, AUDIT_ARCH_X86_64),
            instruction(BPF_LOAD_WORD, 0, 0, 0),  # the number
            *checks,
            instruction(BPF_RETURN, 0, 0, SECCOMP_RET_USER_NOTIF),
            instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        ]
    )


def install(numbers: list[int]) -> int:
    """Put the filter into force for this process; return the descriptor that hears of its stops."""
    text = program(numbers)
    buffer = ctypes.create_string_buffer(text)
    header = struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER
    listener: int = libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def main() -> None:
    """Install the filter, let the listener take its descriptor, and become the program."""
    _, path, numbers, *argv = sys.argv
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(path)
        listener = install([int(number) for number in numbers.split(",")])
        # A call that no filter stops. The program that answers took the listener from /proc.
        os.read(channel.fileno(), 1)
        os.close(listener)
    os.execv(argv[0], argv)  # noqa: S606 - the pid and the filter are to stay


if __name__ == "__main__":
    main()
