"""Walking the options of an extension, in both sizes that libxtables has had."""

import ctypes
from typing import Any

import pytest

from gateway.firewall.xtables.entry import entry_size, lookup_by


class Former(ctypes.Structure):
    """`struct xt_option_entry` until iptables 1.8.10, as python-iptables knows it."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("id", ctypes.c_uint),
        ("excl", ctypes.c_uint),
        ("also", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("ptroff", ctypes.c_uint),
        ("size", ctypes.c_size_t),
        ("min", ctypes.c_uint),
        ("max", ctypes.c_uint),
    )


class Longer(Former):
    """`struct xt_option_entry` since iptables 1.8.11."""

    _fields_ = (("base", ctypes.c_uint),)


def listed(kind: Any) -> Any:
    """Return a list of three options and its end, as a pointer to what the library knows."""
    options = (kind * 4)()
    for number, name in enumerate((b"source-port", b"sport", b"dport")):
        options[number].name = name
        options[number].id = number
        options[number].max = 65535
    return ctypes.cast(options, ctypes.POINTER(Former))


@pytest.mark.parametrize("kind", [Former, Longer])
def test_the_size_of_an_entry_is_reported_from_the_list_itself(kind: Any) -> None:
    """The version number is the same for both sizes, the memory is not."""
    assert entry_size(listed(kind)) == ctypes.sizeof(kind)


@pytest.mark.parametrize("kind", [Former, Longer])
@pytest.mark.parametrize(("name", "number"), [(b"source-port", 0), (b"sport", 1), (b"dport", 2)])
def test_every_option_is_found_in_its_place(kind: Any, name: bytes, number: int) -> None:
    """Not only the first one, which is what the library finds with iptables 1.8.11."""
    options = listed(kind)
    found = lookup_by(entry_size(options), Former)(None, options, name)
    assert found.id == number
    here = ctypes.addressof(options.contents) + number * ctypes.sizeof(kind)
    assert ctypes.addressof(found) == here


@pytest.mark.parametrize("kind", [Former, Longer])
def test_an_unknown_option_is_not_found(kind: Any) -> None:
    """The walk ends at the entry without a name."""
    options = listed(kind)
    assert lookup_by(entry_size(options), Former)(None, options, b"mark") is None
