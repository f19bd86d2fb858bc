"""The bytes of the legacy tables, compared without taking them apart.

To take a table apart and compare it rule by rule takes milliseconds; to compare its bytes takes one
system call for each table. So the tables are read rule by rule only where their bytes differ from
those that were found right before. Counters are left out: they change with each packet.

The layouts are those of struct ipt_getinfo, ipt_get_entries and their twins for IPv6
(linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h).
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.firewall.xtables.entry import COUNTERS, ENTRY_SIZE, HEADER_SIZE, OFFSETS
from gateway.policy.rules import Family
from gateway.system.netns import OWN, Netns

GET_INFO, GET_ENTRIES = 64, 65
"""IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, and IP6T_ of the same numbers."""
LEVEL = {Family.IPV4: socket.IPPROTO_IP, Family.IPV6: socket.IPPROTO_IPV6}
ADDRESSES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
INFO = struct.Struct("=32sI5I5III")
"""struct ipt_getinfo: name, hooks, their entries and policies; number of entries, and size."""
REQUEST = struct.Struct("=32sI4x")
"""struct ipt_get_entries before the entries, which are aligned for 64-bit counters."""
MOST_BYTES = 32 << 20
"""The largest table that is read: some 100,000 rules."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Bytes:
    """What a table held: its hooks, and its entries without their counters (`mask` has no bits)."""

    info: bytes
    size: int
    mask: int
    entries: int

    @classmethod
    def of(cls, family: Family, info: bytes, blob: bytes) -> "Bytes":
        """Return what is to be compared of a table. Raises ValueError for entries without end."""
        mask = bytearray(b"\xff") * len(blob)
        size = ENTRY_SIZE[family]
        for offset in _entries(family, blob):
            mask[offset + size - COUNTERS.size : offset + size] = bytes(COUNTERS.size)
        number = int.from_bytes(mask, "little")
        return cls(info, len(blob), number, int.from_bytes(blob, "little") & number)

    def are(self, info: bytes, blob: bytes) -> bool:
        """Return whether a table that was read now holds the same."""
        return (self.info, self.size) == (info, len(blob)) and int.from_bytes(
            blob, "little"
        ) & self.mask == self.entries


class RawTable:
    """The table `name` of `family` in `netns`, as bytes."""

    def __init__(self, family: Family, name: str, netns: Netns = OWN) -> None:
        self._socket: socket.socket | None = None
        self._family = family
        self._name = name.encode()
        self._netns = netns

    def read(self) -> tuple[bytes, bytes]:
        """Return the table's hooks and its entries. Raises OSError; EAGAIN if it changes."""
        info = bytearray(INFO.pack(self._name, *[0] * 13))
        self._get(GET_INFO, info)
        size = INFO.unpack(info)[-1]
        if size > MOST_BYTES:
            raise OSError(f"the table has {size} bytes")
        answer = bytearray(REQUEST.pack(self._name, size)) + bytes(size)
        self._get(GET_ENTRIES, answer)
        return bytes(info), bytes(answer[REQUEST.size :])

    def bytes(self) -> Bytes:
        """Return what the table holds now. Raises OSError and ValueError."""
        return Bytes.of(self._family, *self.read())

    def __del__(self) -> None:
        """Close the socket, which lasts as long as who asks."""
        self.close()

    def close(self) -> None:
        """Close the socket; the next call opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _get(self, option: int, buffer: bytearray) -> None:
        """Fill `buffer`, which begins with what is asked for. Raises OSError."""
        if self._socket is None:
            family = ADDRESSES[self._family]
            self._socket = self._netns.socket(family, socket.SOCK_DGRAM)
        place = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        length = ctypes.c_uint32(len(buffer))
        level, descriptor = LEVEL[self._family], self._socket.fileno()
        if _LIBC.getsockopt(descriptor, level, option, place, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if length.value != len(buffer):
            raise OSError("the answer has another length than was asked for")


def _entries(family: Family, blob: bytes) -> Iterator[int]:
    """Yield where each entry begins. Raises ValueError for one that ends nowhere."""
    where, end = HEADER_SIZE[family] + 4, len(blob)
    offset = 0
    while offset < end:
        if end - offset < ENTRY_SIZE[family]:
            raise ValueError("an entry without end")
        _target, size = OFFSETS.unpack_from(blob, offset + where)
        if not ENTRY_SIZE[family] <= size <= end - offset:
            raise ValueError("an entry without end")
        yield offset
        offset += size
