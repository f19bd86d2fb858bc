"""Parsers of single values: text in, a checked value out, or a ValueError that says what to write.

Every parser takes the text of one variable or of one line of a wg-quick file. A message never
repeats a key: it shows what was written only through `safe_quote`.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from gateway.model import PortRange, Protocol, Secret

T = TypeVar("T")

_KEY_BYTES: Final = 32
_KEY_CHARACTERS: Final = 44
_LAST_PORT: Final = 65535
_LONGEST_SHOWN: Final = 60
_BASE64_RUN: Final = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_CERTAINLY_A_KEY: Final = 40
_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,60}")
_LAST_MARK: Final = 0xFFFFFFFF
_FWMARK: Final = re.compile(r"0[xX][0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,9}")
_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")


def may_be_secret(text: str) -> bool:
    """Whether a part of `text` looks like a key."""
    return any(_hide_key(match) != match.group() for match in _BASE64_RUN.finditer(text))


def safe_quote(text: str) -> str:
    """Return `text` for a message: in quotes, short, printable, and without key material."""
    hidden = without_keys(text)
    short = hidden if len(hidden) <= _LONGEST_SHOWN else f"{hidden[:_LONGEST_SHOWN]}..."
    return "'" + "".join(c if c.isprintable() else "?" for c in short) + "'"


def without_keys(text: str) -> str:
    """Return `text` with another text in place of everything that may be a key or a part of one."""
    return _BASE64_RUN.sub(_hide_key, text)


def unquoted(text: str) -> str:
    """Strip the quotes that a compose list or an env file leaves around a whole value."""
    around = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if around and text[0] not in text[1:-1] else text


def safe_name(name: str) -> str:
    """Return the name of a variable for a message, through `safe_quote` if it may hold a key."""
    return name if _NAME.fullmatch(name) and not may_be_secret(name) else safe_quote(name)


def safe_text(text: str) -> str:
    """Return a text of the user for a message, through `safe_quote` if it may hold a key."""
    return text if text.isprintable() and not may_be_secret(text) else safe_quote(text)


def _hide_key(match: re.Match[str]) -> str:
    """Replace what may be a key, or a part of one: long, or of capitals, small letters, digits."""
    run = match.group()
    mixed = any(map(str.isupper, run)) and any(map(str.islower, run)) and any(map(str.isdigit, run))
    return "(hidden: may be a key)" if mixed or len(run) >= _CERTAINLY_A_KEY else run


MOST_ENTRIES = 4096
"""How many entries of a list are read: with more, nothing would start in a reasonable time."""


def comma_list(text: str, read: Callable[[str], T]) -> tuple[T, ...]:
    """Read a comma-separated list, without empty entries. The error names every wrong entry."""
    values: list[T] = []
    wrong: list[str] = []
    entries = [*filter(None, (part.strip() for part in text.split(",")))]
    if len(entries) > MOST_ENTRIES:
        raise ValueError(
            f"has {len(entries)} entries, at most {MOST_ENTRIES} are read; write ranges of ports,"
            " or wider subnets"
        )
    for entry in entries:
        try:
            values.append(read(entry))
        except ValueError as err:
            blanks = len(entry.split()) > 1
            wrong.append(
                f"{safe_quote(entry)} has spaces; write commas between entries"
                if blanks
                else str(err)
            )
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(values)


def key(text: str) -> str:
    """Read a WireGuard key: base64 of 32 bytes (wg(8)). The message never shows it."""
    if _TOKEN.fullmatch(text):
        raise ValueError(
            "is not a WireGuard key: 64 hexadecimal digits are an access token of NordVPN; write "
            "the nordlynx_private_key that `curl -u token:YOUR_TOKEN "
            "https://api.nordvpn.com/v1/users/services/credentials` shows"
        )
    if len(text) != _KEY_CHARACTERS:
        several = "character" if len(text) == 1 else "characters"
        raise ValueError(
            f"is not a WireGuard key: it has {len(text)} {several}, a key has {_KEY_CHARACTERS} "
            "and ends in '='; write the key alone, and the whole of it"
        )
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES or b64encode(raw).decode() != text:
        raise ValueError(
            "is not a WireGuard key: it is not the base64 form of 32 bytes; copy the whole key"
        )
    return text


def used_key(text: str) -> str:
    """Read a private or public key. All zeros, which wg(8) reads as no key, are refused."""
    if not any(b64decode(key(text))):
        raise ValueError("is all zeros, which is not a key; copy the key from your provider")
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
    raise ValueError(f"must be {first} to {last}{unit}, got {safe_quote(text)}")


def port(text: str) -> int:
    """Read the number of one port."""
    return number(text, 1, _LAST_PORT)


def ports(text: str) -> tuple[PortRange, ...]:
    """Read a list of ports and port ranges, each with `/tcp`, `/udp`, or for both without it."""
    return tuple(entry for group in comma_list(text, _port_entry) for entry in group)


def _port_entry(text: str) -> tuple[PortRange, ...]:
    numbers, slash, protocol = text.lower().partition("/")
    if slash and protocol not in set(Protocol):
        raise ValueError(f"{safe_quote(text)} has an unknown protocol; write 8080/tcp or 8080/udp")
    if ":" in numbers:
        raise ValueError(
            f"{safe_quote(text)} is a pair of ports; write the one in the container, "
            f"{safe_quote(text.rpartition(':')[2])}"
        )
    first, dash, last = (part.strip() for part in numbers.partition("-"))
    try:
        begin = port(first)
        end = port(last) if dash else begin
    except ValueError:
        raise ValueError(
            f"{safe_quote(text)} is not a port; write a number from 1 to {_LAST_PORT} or a range "
            "such as 6881-6889, with /tcp or /udp to admit only that"
        ) from None
    if end < begin:
        raise ValueError(f"{safe_quote(text)} runs backwards; write {end}-{begin}")
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
    raise ValueError(f"must be a duration in whole seconds such as 25s, got {safe_quote(text)}")


def keepalive(text: str) -> int:
    """Read the interval between keepalives in seconds; `off` and 0 mean none (wg(8))."""
    if text.lower() == "off":
        return 0
    value = seconds(text)
    if value > _LAST_PORT:
        raise ValueError(f"must be at most {_LAST_PORT} seconds, got {safe_quote(text)}")
    return value


def mtu(text: str) -> int | None:
    """Read a packet size in bytes; 0 means not set. IPv4 needs 576 (RFC 791)."""
    return None if text == "0" else number(text, 576, _LAST_PORT, " bytes")


def fwmark(text: str) -> int | None:
    """Read a firewall mark, decimal or hexadecimal; `off` and 0 mean none (wg(8))."""
    if text.lower() == "off":
        return None
    value = int(text, 0) if _FWMARK.fullmatch(text) else _LAST_MARK + 1
    if value > _LAST_MARK:
        raise ValueError(f"must be a number such as 51820 or 0xca6c, got {safe_quote(text)}")
    return value or None


def choice(text: str, choices: Iterable[str]) -> str:
    """Read one of a few words, in either case."""
    allowed = tuple(choices)
    if text.lower() not in allowed:
        raise ValueError(f"must be {' or '.join(allowed)}, got {safe_quote(text)}")
    return text.lower()
