"""Rules as the legacy tables hold them: taking their bytes apart, and comparing.

Pure. The layouts are those of struct ipt_entry and ip6t_entry (linux/netfilter_ipv4/ip_tables.h,
linux/netfilter_ipv6/ip6_tables.h): addresses, interfaces and protocol; sizes; counters; then
matches and one target, each with a header of its own (linux/netfilter/x_tables.h). Comparing
bytes sees every parameter, also of extensions that we never use.
"""

import ctypes
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway.model.frozen import frozen
from gateway.policy.rules import Family

EXTENSION = struct.Struct("=H29sB")
"""struct xt_entry_match and xt_entry_target: size, name, revision."""

OFFSETS = struct.Struct("=HH")
"""Where the target begins, and where the entry ends."""

HEADER_SIZE = {Family.IPV4: 84, Family.IPV6: 136}
"""The size of struct ipt_ip and ip6t_ip6; the offsets follow behind four bytes (nfcache)."""

ENTRY_SIZE = {Family.IPV4: 112, Family.IPV6: 168}
"""The size of the entry before its first match."""

COUNTERS = struct.Struct("=QQ")
"""struct xt_counters, packets and bytes: what the entry has last before its first match."""

Sizes = Mapping[tuple[str, int], int]
"""How many bytes of an extension's parameters are the user's, by its name and revision."""

_FORMER_SIZE = 48
_SIZE = 56
"""The size of `struct xt_option_entry`, of which libxtables has a list for each extension.

python-iptables 1.2.0 steps by the former one. With iptables 1.8.11 (Debian 13) it grew by the field
`base` under the same version number (`XTABLES_VERSION_CODE` 12), so that the library finds the
first option of each extension only: "udp: no such parameter sport".
"""

Lookup = Callable[[Any, Any, bytes], Any]


@frozen
class Part:
    """A match or target. `verdict` is that of a standard target, which has no parameters then."""

    name: str
    verdict: str = ""
    revision: int = 0
    parameters: bytes = b""


@frozen
class Entry:
    """What a rule says: addresses, interfaces and protocol, then matches and target."""

    header: bytes
    parts: tuple[Part, ...]


def is_standard(family: Family, blob: bytes) -> bool:
    """Return whether the target of an entry is a verdict or a jump, and no extension."""
    target, _end = OFFSETS.unpack_from(blob, HEADER_SIZE[family] + 4)
    return not _name(blob, target)


def entry_of(family: Family, blob: bytes, verdict: str, sizes: Sizes) -> Entry:
    """Take the bytes of one entry apart.

    `verdict` is that of a standard target, or empty. Left out are the counters, and what
    the kernel keeps for itself behind the parameters (`sizes`; of unknown extensions all counts).
    """
    target, end = OFFSETS.unpack_from(blob, HEADER_SIZE[family] + 4)
    parts, offset = [], ENTRY_SIZE[family]
    while offset < end:
        size, _raw, revision = EXTENSION.unpack_from(blob, offset)
        name = _name(blob, offset)
        if offset >= target and verdict:
            parts.append(Part("", verdict))
        else:
            stop = offset + min(size, EXTENSION.size + sizes.get((name, revision), size))
            parts.append(Part(name, "", revision, blob[offset + EXTENSION.size : stop]))
        offset += max(size, EXTENSION.size)
    return Entry(blob[: HEADER_SIZE[family]], tuple(parts))


def leading_to(chain: str, family: Family, blob: bytes) -> bytes:
    """Return an entry with a standard target as one that jumps to `chain`.

    To libiptc, the name of the target is that of a chain (libiptc.c, iptcc_map_target).
    """
    target, _end = OFFSETS.unpack_from(blob, HEADER_SIZE[family] + 4)
    size, _name, revision = EXTENSION.unpack_from(blob, target)
    jump = EXTENSION.pack(size, chain.encode(), revision)
    return blob[:target] + jump + blob[target + len(jump) :]


def packets(family: Family, blob: bytes) -> int:
    """Return how many packets an entry has met."""
    count: int = COUNTERS.unpack_from(blob, ENTRY_SIZE[family] - COUNTERS.size)[0]
    return count


def differences(
    where: str, wanted: Sequence[tuple[str, Entry]], held: Sequence[Entry]
) -> Iterator[str]:
    """Yield a line for each rule of `wanted` (text, entry) not held, held without being wanted.

    When these are none, one line says that the order differs, if it does.
    """
    entries = [entry for _text, entry in wanted]
    missing = Counter(entries) - Counter(held)
    foreign = Counter(held) - Counter(entries)
    if not missing and not foreign and entries != list(held):
        yield f"{where}: the rules are out of order"
    for text, entry in wanted:
        if missing[entry]:
            missing[entry] -= 1
            yield f"{where}: missing {text}"
    for position, entry in enumerate(held, start=1):
        if foreign[entry]:
            foreign[entry] -= 1
            target = entry.parts[-1]
            yield f"{where}: rule {position} is foreign (-j {target.verdict or target.name})"


def _name(blob: bytes, offset: int) -> str:
    raw: bytes = EXTENSION.unpack_from(blob, offset)[1]
    return raw.partition(b"\0")[0].decode(errors="replace")


def entry_size(options: Any) -> int:
    """Return the size of one entry, from a pointer to a list of at least two options.

    An entry begins with the pointer to its name. In the longer form the `base` of the first entry,
    which is 0, is where the shorter form has the second name.
    """
    second = ctypes.addressof(options.contents) + _FORMER_SIZE
    return _FORMER_SIZE if ctypes.c_void_p.from_address(second).value else _SIZE


def lookup_by(size: int, entry_type: Any) -> Lookup:
    """Return a replacement for the library's `_option_lookup` that steps by `size` bytes.

    It returns the entry in its place, not a copy: libxtables reads the fields that `entry_type`
    does not know.
    """

    def lookup(_self: Any, options: Any, name: bytes) -> Any:
        address = ctypes.addressof(options.contents)
        while (entry := entry_type.from_address(address)).name:
            if entry.name == name:
                return entry
            address += size
        return None

    return lookup
