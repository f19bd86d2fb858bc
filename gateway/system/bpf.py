"""Programs of classic BPF, which the kernel runs for packets of a socket, or calls of a process."""

import ctypes
import socket
import struct
from collections.abc import Sequence

Instruction = tuple[int, int, int, int]
"""The operation; how many instructions to skip if a test is true, and if it is not; the value."""
INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter."""

LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_BYTE_INDEXED, LOAD_HEADER = 0x20, 0x28, 0x30, 0x50, 0xB1
LOAD_WORD_INDEXED = 0x40
EQUAL, AT_LEAST, SHARES, RETURN = 0x15, 0x35, 0x45, 0x06
"""linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, the same with BPF_H and with BPF_B, its indexed form
(BPF_W|BPF_IND for words), and the length of an IPv4 header (BPF_LDX|BPF_B|BPF_MSH); BPF_JMP|
BPF_JEQ, BPF_JGE and BPF_JSET|BPF_K, BPF_RET|BPF_K."""

SO_ATTACH_FILTER = 26
"""asm-generic/socket.h."""


class Program:
    """A program in memory; `head` is its struct sock_fprog, true as long as this object exists."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        code = b"".join(INSTRUCTION.pack(*each) for each in instructions)
        self._code = ctypes.create_string_buffer(code, len(code))
        self.head = struct.pack("HP", len(instructions), ctypes.addressof(self._code))


def attach(channel: socket.socket, instructions: Sequence[Instruction]) -> None:
    """Have the kernel keep out of a socket's queue what a program refuses (socket(7)).

    Raises OSError.
    """
    program = Program(instructions)
    channel.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program.head)
