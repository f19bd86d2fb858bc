"""Reading single values: text in, a checked value out, or a ValueError that says what to write.

Every parser takes the text of one variable or of one line of a wg-quick file. A message never
repeats a key: it shows what was written only through `shown`.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Final, TypeVar

from gateway.model import (
    Address,
    Endpoint,
    HostPort,
    Interface,
    Network,
    PortRange,
    Protocol,
    Secret,
)

T = TypeVar("T")

_KEY_BYTES: Final = 32
_KEY_CHARACTERS: Final = 44
_LAST_PORT: Final = 65535
_LONGEST_SHOWN: Final = 60
_BASE64_RUN: Final = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_CERTAINLY_A_KEY: Final = 40
_LAST_MARK: Final = 0xFFFFFFFF
_FWMARK: Final = re.compile(r"0[xX][0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,9}")
_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")


def may_be_secret(text: str) -> bool:
    """Say whether a part of `text` looks like a key."""
    return any(_hide_key(match) != match.group() for match in _BASE64_RUN.finditer(text))


def shown(text: str) -> str:
    """Return `text` fit for a message: in quotes, short, printable, and without key material."""
    hidden = _BASE64_RUN.sub(_hide_key, text)
    short = hidden if len(hidden) <= _LONGEST_SHOWN else f"{hidden[:_LONGEST_SHOWN]}..."
    return "'" + "".join(c if c.isprintable() else "?" for c in short) + "'"


def _hide_key(match: re.Match[str]) -> str:
    """Replace what may be a key, or a part of one: long, or of capitals, small letters, digits."""
    run = match.group()
    mixed = any(map(str.isupper, run)) and any(map(str.islower, run)) and any(map(str.isdigit, run))
    return "(hidden: may be a key)" if mixed or len(run) >= _CERTAINLY_A_KEY else run


def listed(text: str, read: Callable[[str], T]) -> tuple[T, ...]:
    """Read a list separated by commas; empty entries do not count. All wrong entries are told."""
    values: list[T] = []
    wrong: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            values.append(read(entry))
        except ValueError as err:
            wrong.append(str(err))
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(values)


def key(text: str) -> str:
    """Read a WireGuard key: base64 of 32 bytes (wg(8)). The message never shows it."""
    if len(text) != _KEY_CHARACTERS:
        raise ValueError(
            f"is no WireGuard key: it has {len(text)} characters, a key has {_KEY_CHARACTERS} and "
            "ends in '='; copy the whole key"
        )
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES or b64encode(raw).decode() != text:
        raise ValueError(
            "is no WireGuard key: it is not the base64 form of 32 bytes; copy the whole key"
        )
    return text


def used_key(text: str) -> str:
    """Read a key that identifies somebody: all zeros, which wg(8) takes for none, is refused."""
    if not any(b64decode(key(text))):
        raise ValueError("is all zeros, which is no key; copy the key of your provider")
    return text


def secret_key(text: str) -> Secret:
    """Read a private key."""
    return Secret(used_key(text))


def preshared_key(text: str) -> Secret | None:
    """Read a preshared key; all zeros mean none (wg(8))."""
    return Secret(text) if any(b64decode(key(text))) else None


def number(text: str, first: int, last: int, unit: str = "") -> int:
    """Read a whole number from `first` to `last`, written in ASCII digits."""
    if text.isascii() and text.isdigit() and len(text) <= len(str(last)):
        value = int(text)
        if first <= value <= last:
            return value
    raise ValueError(f"must be {first} to {last}{unit}, got {shown(text)}")


def port(text: str) -> int:
    """Read the number of one port."""
    return number(text, 1, _LAST_PORT)


def ports(text: str) -> tuple[PortRange, ...]:
    """Read a list of ports and port ranges, each with `/tcp`, `/udp`, or for both without it."""
    return tuple(entry for group in listed(text, _port_entry) for entry in group)


def _port_entry(text: str) -> tuple[PortRange, ...]:
    numbers, slash, protocol = text.lower().partition("/")
    if slash and protocol not in set(Protocol):
        raise ValueError(f"{shown(text)} has an unknown protocol; write 8080/tcp or 8080/udp")
    first, dash, last = (part.strip() for part in numbers.partition("-"))
    try:
        begin = port(first)
        end = port(last) if dash else begin
    except ValueError:
        raise ValueError(
            f"{shown(text)} is no port; write a number from 1 to {_LAST_PORT} or a range such as "
            "6881-6889, with /tcp or /udp to admit only that"
        ) from None
    if end < begin:
        raise ValueError(f"{shown(text)} runs backwards; write {end}-{begin}")
    protocols = (Protocol(protocol),) if slash else tuple(Protocol)
    return tuple(PortRange(each, begin, end) for each in protocols)


def seconds(text: str) -> int:
    """Read a duration in whole seconds: `25s`, `1m30s`, `1h`, or a plain number of seconds."""
    if text.isascii() and text.isdigit() and len(text) <= len(str(_LAST_PORT)):
        return int(text)
    match = _DURATION.fullmatch(text.replace(" ", "").lower())
    if text and match and text.isascii():
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + rest
    raise ValueError(f"must be a duration in whole seconds such as 25s, got {shown(text)}")


def keepalive(text: str) -> int:
    """Read the interval between keepalives in seconds; `off` and 0 mean none (wg(8))."""
    if text.lower() == "off":
        return 0
    value = seconds(text)
    if value > _LAST_PORT:
        raise ValueError(f"must be at most {_LAST_PORT} seconds, got {shown(text)}")
    return value


def mtu(text: str) -> int | None:
    """Read a packet size in bytes; 0 means by the uplink. IPv4 needs 576 (RFC 791)."""
    return None if text == "0" else number(text, 576, _LAST_PORT, " bytes")


def fwmark(text: str) -> int | None:
    """Read a firewall mark, decimal or hexadecimal; `off` and 0 mean the default (wg(8))."""
    if text.lower() == "off":
        return None
    value = int(text, 0) if _FWMARK.fullmatch(text) else _LAST_MARK + 1
    if value > _LAST_MARK:
        raise ValueError(f"must be a number such as 51820 or 0xca6c, got {shown(text)}")
    return value or None


def address(text: str) -> Address:
    """Read one IP address: no name, no mask, no zone, not IPv4 inside IPv6."""
    try:
        value = ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is no IP address") from None
    return _plain(value, text)


def _plain(value: Address, text: str) -> Address:
    if isinstance(value, IPv6Address):
        if value.scope_id:
            raise ValueError(f"{shown(text)} has a zone; write the address without %...")
        if value.ipv4_mapped:
            raise ValueError(f"{shown(text)} is an IPv4 address; write {value.ipv4_mapped}")
    return value


def _is_a_host(value: Address) -> bool:
    """Say whether one host can have the address: RFC 1122 (0.0.0.0, class E), RFC 4291."""
    classless = isinstance(value, IPv4Address) and value.is_reserved
    return not (value.is_unspecified or value.is_multicast or classless)


def interface(text: str) -> Interface:
    """Read an address of the tunnel with its prefix length; without one it is a host address."""
    _check_mask(text)
    try:
        value = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is no address; write it as your provider does, such as 10.64.0.2/32"
        ) from None
    _plain(value.ip, text)
    if value.ip.is_loopback or not _is_a_host(value.ip):
        raise ValueError(f"{shown(text)} cannot be an address of the tunnel")
    return value


def interfaces(text: str) -> tuple[Interface, ...]:
    """Read a list of addresses of the tunnel."""
    return listed(text, interface)


def network(text: str) -> Network:
    """Read a subnet; bits beyond its prefix are cleared, an address without one is one host."""
    _check_mask(text)
    try:
        value = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is no subnet; write one such as 192.168.1.0/24 or 192.168.1.5"
        ) from None
    _plain(value.network_address, text)
    return value


def networks(text: str) -> tuple[Network, ...]:
    """Read a list of subnets."""
    return listed(text, network)


def _check_mask(text: str) -> None:
    """Refuse what `ipaddress` would accept: masks such as 255.255.255.0 or 0.0.0.255, zones."""
    if "%" in text:
        raise ValueError(f"{shown(text)} has a zone; write the address without %...")
    _, slash, mask = text.partition("/")
    if slash and not (mask.isascii() and mask.isdigit()):
        raise ValueError(f"{shown(text)} has no prefix length; write a number after the /")


def resolver(text: str) -> Address:
    """Read the address of a DNS server that the namespace can ask."""
    value = address(text)
    if str(value) in _FOREIGN_RESOLVERS:
        raise ValueError(f"{value} {_FOREIGN_RESOLVERS[str(value)]}")
    if value.is_link_local or not _is_a_host(value):
        raise ValueError(f"{value} cannot be a DNS server; write your provider's resolver")
    return value


_FOREIGN_RESOLVERS: Final = {
    "127.0.0.11": "is Docker's resolver, which asks outside the tunnel where no rule of this "
    "namespace sees it; write your provider's resolver, which is asked through the tunnel",
    "127.0.0.53": "is the host's own resolver, which is not there in this namespace; write your "
    "provider's resolver, which is asked through the tunnel",
    "127.0.0.54": "is the host's own resolver, which is not there in this namespace; write your "
    "provider's resolver, which is asked through the tunnel",
}


def resolvers(text: str) -> tuple[Address, ...]:
    """Read a list of DNS servers."""
    return listed(text, resolver)


def server_address(text: str) -> Address:
    """Read the address of a WireGuard server."""
    try:
        value = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(
            f"{shown(text)} is neither an IP address nor a name; write the server's"
        ) from None
    _plain(value, text)
    if value.is_loopback or not _is_a_host(value):
        raise ValueError(f"{value} cannot be reached as a server; write the server's own address")
    return value


def endpoint(text: str) -> Endpoint:
    """Read `address:port` or `[IPv6 address]:port` of a WireGuard server."""
    host, colon, number_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{shown(text)} has no port; write address:port")
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{shown(text)} is ambiguous; write IPv6 as [address]:port")
    try:
        number_of_port = port(number_text)
    except ValueError as err:
        raise ValueError(f"the port {err}") from None
    return Endpoint(server_address(host), number_of_port)


def listen_address(text: str) -> HostPort:
    """Read `address:port` that a server of ours listens on; `:port` means every address."""
    host, colon, number_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{shown(text)} has no port; write address:port such as 127.0.0.1:9999")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{shown(text)} is ambiguous; write IPv6 as [address]:port")
    bare = host.removeprefix("[").removesuffix("]") if ":" in host else host
    if bare == "localhost":
        bare = "127.0.0.1"
    try:
        return HostPort(str(address(bare)) if bare else "", port(number_text))
    except ValueError as err:
        raise ValueError(f"{err}; write address:port such as 127.0.0.1:9999") from None


def choice(text: str, choices: Iterable[str]) -> str:
    """Read one of a few words, in capitals or not."""
    allowed = tuple(choices)
    if text.lower() not in allowed:
        raise ValueError(f"must be {' or '.join(allowed)}, got {shown(text)}")
    return text.lower()
