"""How a process gives up the calls that open connections and start programs (seccomp(2))."""

import ctypes
import os
from collections.abc import Sequence

from gateway.system.bpf import AT_LEAST, EQUAL, LOAD_WORD, RETURN, SHARES, Instruction, Program

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
"""linux/prctl.h, linux/seccomp.h."""

NUMBER, MACHINE, FOURTH = 0, 4, 40
"""Where struct seccomp_data has the call, the machine that it is for, and its fourth argument."""
ALLOW, REFUSE = 0x7FFF0000, 0x00050001
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with EPERM."""
OTHER_CALLS = 0x40000000
"""The calls of x32 on x86_64 begin here (arch/x86/entry/syscalls)."""

CALLS = {
    "x86_64": (
        0xC000003E,
        # socket, connect, bind, listen, execve, ptrace, process_vm_readv, process_vm_writev,
        # execveat, io_uring_setup, pidfd_getfd, sendmsg, sendmmsg
        (41, 42, 49, 50, 59, 101, 310, 311, 322, 425, 438, 46, 307),
    ),
    "aarch64": (0xC00000B7, (198, 203, 200, 201, 221, 117, 270, 271, 281, 425, 438, 211, 269)),
}
"""By machine: its AUDIT_ARCH (linux/audit.h), and the numbers of the calls that are refused."""
STARTING = {"x86_64": (56, 57, 58, 435), "aarch64": (220, 435)}
"""clone, fork, vfork and clone3; arm64 has two of them."""
SENDTO = {"x86_64": 44, "aarch64": 206}
MSG_FASTOPEN = 0x20000000
"""With this flag sendto, sendmsg and sendmmsg connect a socket whose peer has closed it, to any
address (net/ipv4/tcp.c, tcp_sendmsg_fastopen). The other two are of no use
here."""


def refuse_connecting() -> None:
    """Have the kernel refuse to open and connect sockets, to start programs and to look into any.

    Sockets that others hand over can be used. To be called after `give_up_rights`, because it takes
    PR_SET_NO_NEW_PRIVS. Raises NotImplementedError for a machine of another kind, and OSError where
    the kernel has no filters (seccomp(2)).
    """
    _install(filter_for(os.uname().machine))


def refuse_starting() -> None:
    """Have the kernel refuse to start processes and threads, which RLIMIT_NPROC allows root.

    To be called, and it raises, as `refuse_connecting`.
    """
    machine = os.uname().machine
    _install(refusing(machine, STARTING.get(machine, ())))


def filter_for(machine: str) -> list[Instruction]:
    """Return what refuses CALLS on a machine, as uname(2) calls it. Raises NotImplementedError."""
    _, refused = CALLS.get(machine, (0, ()))
    last: list[Instruction] = [
        (EQUAL, 0, 2, SENDTO.get(machine, 0)),
        (LOAD_WORD, 0, 0, FOURTH),
        (SHARES, 1, 0, MSG_FASTOPEN),
    ]
    return refusing(machine, refused, last)


def refusing(
    machine: str, calls: Sequence[int], last: Sequence[Instruction] = ()
) -> list[Instruction]:
    """Return what refuses `calls` on a machine. Raises NotImplementedError.

    `last` decides about the others: it ends behind itself to allow one, or skips an instruction.
    """
    if machine not in CALLS:
        raise NotImplementedError(f"no filter of calls is known for {machine}")
    kind, _ = CALLS[machine]
    tests = [(EQUAL, number) for number in calls] + [(AT_LEAST, OTHER_CALLS)]
    code: list[Instruction] = [(LOAD_WORD, 0, 0, MACHINE), (EQUAL, 1, 0, kind)]
    code += [(RETURN, 0, 0, REFUSE), (LOAD_WORD, 0, 0, NUMBER)]
    # Each test that is true jumps behind those that are left, and behind ALLOW.
    code += [(test, len(tests) - i + len(last), 0, value) for i, (test, value) in enumerate(tests)]
    return [*code, *last, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]


def _install(code: Sequence[Instruction]) -> None:
    """Have the kernel ask a filter about each call from now on. Raises OSError."""
    program = Program(code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program.head, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel takes no filter of calls: {os.strerror(number)}")
