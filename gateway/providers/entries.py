"""Typed access to a decoded JSON document that has not been checked.

A value of another type than expected counts as missing: a provider may change its list at any time,
and one odd entry must not cost the others.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

from gateway.model import Address

LONGEST_TEXT = 100
"""Characters of a name, a city and the like; longer texts count as missing."""
KEY_OCTETS = 32
LAST_PORT = 65535
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)*{_LABEL}", re.IGNORECASE | re.ASCII)


class Entry:
    """A JSON value; its members are asked for by name."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def member(self, name: str) -> "Entry":
        """Return the member `name` of an object, an empty entry where there is none.

        Without a name, return the value itself; so it is with the other methods too.
        """
        return Entry(self._raw(name))

    def all(self, name: str = "") -> Iterator["Entry"]:
        """Yield the elements of the array `name`."""
        value = self._raw(name)
        if isinstance(value, list):
            yield from map(Entry, value)

    def text(self, name: str = "") -> str:
        """Return a printable text without blanks around it, "" where there is none."""
        return self.long_text(name, LONGEST_TEXT)

    def long_text(self, name: str, longest: int) -> str:
        """Return the same of `longest` characters at most."""
        value = self._raw(name)
        text = value.strip() if isinstance(value, str) else ""
        return text if text.isprintable() and len(text) <= longest else ""

    def number(self, name: str = "") -> int | None:
        """Return a whole number, None where there is none."""
        value = self._raw(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, name: str) -> bool | None:
        """Return true or false, None for anything else."""
        value = self._raw(name)
        return value if isinstance(value, bool) else None

    def address(self, name: str = "") -> Address | None:
        """Return an address that can be a server's, None where there is none."""
        try:
            address = ip_address(self.text(name))
        except ValueError:
            return None
        return address if _may_be_a_server(address) else None

    def addresses(self, *names: str) -> tuple[Address, ...]:
        """Return the addresses of these members, without those that are missing."""
        found = map(self.address, names)
        return tuple(address for address in found if address is not None)

    def key(self, name: str) -> str:
        """Return a WireGuard key (base64 of 32 octets, not all zeros), "" where there is none."""
        text = self.text(name)
        return text if is_key(text) else ""

    def _raw(self, name: str) -> object:
        if not name:
            return self._value
        return self._value.get(name) if isinstance(self._value, dict) else None


def is_key(text: str) -> bool:
    """Return whether `text` is a WireGuard key as wg(8) writes it, and not all zeros."""
    try:
        octets = b64decode(text, validate=True)
    except ValueError:
        return False
    return len(octets) == KEY_OCTETS and any(octets) and b64encode(octets).decode() == text


def is_host(text: str) -> bool:
    """Return whether `text` is a host name (RFC 1123), or a part of one."""
    return len(text) <= LONGEST_TEXT and bool(_HOST.fullmatch(text))


def _may_be_a_server(address: Address) -> bool:
    """Return whether an address is that of one host, and not of this one.

    A list that names a private address is not refused: the encrypted flow goes there or nowhere.
    A zone is: it is a name of this host, and may be any text.
    """
    if not isinstance(address, IPv4Address) and (address.scope_id or address.ipv4_mapped):
        return False
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or address.is_reserved
    )
