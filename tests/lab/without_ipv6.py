"""Becomes a program to which the kernel denies having IPv6, by a filter of system calls.

    python without_ipv6.py PROGRAM ARGUMENT...

What `RestrictAddressFamilies=` of systemd.exec(5) does: socket(AF_INET6) gives EAFNOSUPPORT. A
program of its own, standard library only.
"""

import ctypes
import errno
import os
import socket
import struct
import sys

SYS_SOCKET = {"x86_64": 41, "aarch64": 198}
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
"""linux/seccomp.h, linux/prctl.h and linux/bpf_common.h."""


def install() -> None:
    """Put the filter into force for this process and all that it starts."""
    instruction = struct.Struct("=HBBI").pack
    text = b"".join(
        [
            instruction(BPF_LOAD_WORD, 0, 0, 0),  # the number
            instruction(BPF_JUMP_EQUAL, 0, 3, SYS_SOCKET[os.uname().machine]),
            instruction(BPF_LOAD_WORD, 0, 0, 16),  # the first argument
            instruction(BPF_JUMP_EQUAL, 0, 1, socket.AF_INET6),
            instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT),
            instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        ]
    )
    buffer = ctypes.create_string_buffer(text)
    header = struct.pack("@HP", len(text) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no new privileges")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    install()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the filter is to stay
