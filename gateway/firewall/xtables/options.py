"""The list of an extension's options as libxtables holds it, walked at its true size.

python-iptables 1.2.0 steps through the array of `struct xt_option_entry` by the size that the
structure had until iptables 1.8.10. With 1.8.11 (Debian 13) it grew by the field `base` under the
same version number (`XTABLES_VERSION_CODE` 12), so that the library finds the first option of each
extension only: "udp: no such parameter sport".
"""

import ctypes
from collections.abc import Callable
from typing import Any

_FORMER_SIZE = 48
_SIZE = 56

Lookup = Callable[[Any, Any, bytes], Any]


def entry_size(options: Any) -> int:
    """Return the size of one entry, from a pointer to a list of at least two options.

    An entry begins with the pointer to its name. In the longer form the `base` of the first entry,
    which is 0, stands where the shorter form has the second name.
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
