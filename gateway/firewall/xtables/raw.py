"""The bytes of the legacy tables: read, compared as they are, and taken apart into chains.

To take a table apart and compare it rule by rule takes milliseconds; to compare its bytes takes one
system call for each table. So the tables are compared rule by rule only where their bytes differ
from those that were found right before. Counters are left out: they change with each packet. The
rules are compared in the very bytes that are remembered: a table that was read a second time, by
libiptc for one, may have been another one the first time.

The layouts are those of struct ipt_getinfo, ipt_get_entries and their twins for IPv6
(linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h).
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise

from gateway.firewall.xtables.entry import (
    COUNTERS,
    ENTRY_SIZE,
    EXTENSION,
    HEADER_SIZE,
    OFFSETS,
    is_standard,
)
from gateway.model.frozen import frozen
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

READ_ATTEMPTS = 10
"""How often a table is read again because it was replaced between its size and its entries."""

HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
"""The built-in chains by the number of their hook (linux/netfilter.h)."""
VERDICT = struct.Struct("=i")
VERDICTS = {-1: "DROP", -2: "ACCEPT", -4: "QUEUE", -5: "RETURN"}
"""The verdicts of a standard target; those that are not negative say where it jumps to."""
CONTINUE = "CONTINUE"
"""The verdict that leads to the next entry, as libiptc calls it."""
HEAD = "ERROR"
"""The target of an entry that begins a chain, whose name follows, or ends the table."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@frozen
class RawChain:
    """A chain: each rule's bytes with the verdict of its target, empty for an extension.

    `policy` is the verdict of its last entry, which is not a rule.
    """

    name: str
    policy: str
    rules: tuple[tuple[bytes, str], ...]


@frozen
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
        self._info = _Buffer(INFO.size)
        self._entries = _Buffer(0)
        self._last = b"", b""

    def read(self) -> tuple[bytes, bytes]:
        """Return the table's hooks and its entries. Raises OSError; EAGAIN if it never stays.

        Where they are those that were read last, even in their counters, it is the same tuple.
        """
        for _ in range(READ_ATTEMPTS - 1):
            try:
                return self._read()
            except OSError as err:
                if err.errno != errno.EAGAIN:
                    raise
        return self._read()

    def _read(self) -> tuple[bytes, bytes]:
        INFO.pack_into(self._info.data, 0, self._name, *[0] * 13)
        self._get(GET_INFO, self._info)
        size = INFO.unpack(self._info.data)[-1]
        if size > MOST_BYTES:
            raise OSError(f"the table has {size} bytes")
        if len(self._entries.data) != REQUEST.size + size:
            self._entries = _Buffer(REQUEST.size + size)
        REQUEST.pack_into(self._entries.data, 0, self._name, size)
        self._get(GET_ENTRIES, self._entries)
        entries = memoryview(self._entries.data)[REQUEST.size :]
        info, blob = self._last
        if self._info.data != info or entries != blob:
            self._last = bytes(self._info.data), bytes(entries)
        return self._last

    def __del__(self) -> None:
        """Close the socket, which lasts as long as who asks."""
        self.close()

    def close(self) -> None:
        """Close the socket; the next call opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _get(self, option: int, buffer: "_Buffer") -> None:
        """Fill `buffer`, which begins with what is asked for. Raises OSError."""
        if self._socket is None:
            family = ADDRESSES[self._family]
            self._socket = self._netns.socket(family, socket.SOCK_DGRAM)
        length = ctypes.c_uint32(len(buffer.data))
        level, descriptor = LEVEL[self._family], self._socket.fileno()
        if _LIBC.getsockopt(descriptor, level, option, buffer.place, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if length.value != len(buffer.data):
            raise OSError("the answer has another length than was asked for")


class _Buffer:
    """Bytes that the kernel fills; they stay, since to make them takes longer than to fill them."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.place = (ctypes.c_char * size).from_buffer(self.data)


def chains_in(family: Family, info: bytes, blob: bytes) -> list[RawChain]:
    """Take a table apart, as libiptc does (libiptc.c, parse_table). Raises ValueError.

    The built-in chains are where the hooks begin. Each other chain begins with an entry that has
    its name. The last entry of each is its policy, which is RETURN for those of users.
    """
    _name, hooks, *places, _number, _size = INFO.unpack(info)
    used = [hook for hook in range(len(HOOKS)) if hooks >> hook & 1]
    begins = {places[hook]: HOOKS[hook] for hook in used}
    ends = {HOOKS[hook]: places[len(HOOKS) + hook] for hook in used}
    if len(begins) != len(used):
        raise ValueError("two hooks begin at the same entry")
    chains: list[tuple[str, list[tuple[int, bytes]]]] = []
    for offset, entry in _cut(family, blob):
        if (name := _head_of(family, entry)) is not None:
            begins[offset + len(entry)] = name
            chains.append((name, []))
        elif offset in begins and (not chains or chains[-1][0] != begins[offset]):
            chains.append((begins[offset], [(offset, entry)]))
        elif chains:
            chains[-1][1].append((offset, entry))
    if not chains or chains.pop()[1]:
        raise ValueError("the table does not end")
    if not ends.keys() <= {name for name, _entries in chains}:
        raise ValueError("a hook leads nowhere")
    return [_chain(family, name, entries, begins, ends.get(name)) for name, entries in chains]


def _chain(
    family: Family,
    name: str,
    entries: list[tuple[int, bytes]],
    begins: dict[int, str],
    end: int | None,
) -> RawChain:
    verdicts = [_verdict(family, offset, entry, begins) for offset, entry in entries]
    if not entries or not _is_policy(family, entries[-1][1]):
        raise ValueError("a chain without end")
    if end is not None and entries[-1][0] != end:
        raise ValueError("a hook ends in another chain")
    rules = tuple(zip((entry for _offset, entry in entries), verdicts, strict=True))
    return RawChain(name, verdicts[-1], rules[:-1])


def _is_policy(family: Family, entry: bytes) -> bool:
    """Return whether an entry has no condition and a standard target."""
    header = HEADER_SIZE[family]
    target, _end = OFFSETS.unpack_from(entry, header + 4)
    return not any(entry[:header]) and target == ENTRY_SIZE[family] and is_standard(family, entry)


def _verdict(family: Family, offset: int, entry: bytes, begins: dict[int, str]) -> str:
    if not is_standard(family, entry):
        return ""
    target, end = OFFSETS.unpack_from(entry, HEADER_SIZE[family] + 4)
    number: int = VERDICT.unpack_from(entry, target + EXTENSION.size)[0]
    if number == offset + end:
        return CONTINUE
    found = VERDICTS.get(number) if number < 0 else begins.get(number)
    if found is None:
        raise ValueError("a jump to nowhere")
    return found


def _head_of(family: Family, entry: bytes) -> str | None:
    """Return the name in an entry that begins a chain or ends the table, None for any other."""
    target, _end = OFFSETS.unpack_from(entry, HEADER_SIZE[family] + 4)
    kind = EXTENSION.unpack_from(entry, target)[1]
    if kind.partition(b"\0")[0] != HEAD.encode():
        return None
    return entry[target + EXTENSION.size :].partition(b"\0")[0].decode(errors="replace")


def _cut(family: Family, blob: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each entry with its place. Raises ValueError where one has no room for its target."""
    offsets = [*_entries(family, blob), len(blob)]
    for offset, end in pairwise(offsets):
        entry = blob[offset:end]
        target, _end = OFFSETS.unpack_from(entry, HEADER_SIZE[family] + 4)
        if not ENTRY_SIZE[family] <= target <= len(entry) - EXTENSION.size - VERDICT.size:
            raise ValueError("an entry without a target")
        yield offset, entry


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
