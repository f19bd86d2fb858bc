"""Parsers for variables with a form of their own.

A ValueError says what to write. It repeats what was written only through `safe_quote`.
"""

import re
import shlex
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

from gateway.model import (
    INTERFACE,
    Address,
    Backend,
    HealthProbe,
    Implementation,
    ProbeKind,
    Secret,
)
from gateway.settings import addresses, values
from gateway.settings.servers import host
from gateway.settings.values import safe_quote

_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_LOG_FORMATS: Final = ("text", "json", "auto", "console")

_SHELL: Final = re.compile(r"(&&|\|\|?|&|;;?)|(#).*|[0-9]?(>>?|<).*|.*(;)")
"""Words that only a shell understands."""
_PROVIDER: Final = re.compile(r"[A-Za-z][A-Za-z0-9 ._+-]{1,39}")
_LONGEST_LOGIN: Final = 200
_INTERFACE: Final = "{{VPN_INTERFACE}}"
"""How gluetun writes the interface in its commands."""


class Order(StrEnum):
    """How several servers are ordered."""

    RANDOM = "random"
    LISTED = "listed"
    LATENCY = "latency"


def path(text: str) -> PurePosixPath:
    """Read the path of a file in the container."""
    value = PurePosixPath(text)
    if not value.is_absolute():
        raise ValueError(f"must be an absolute path in the container, got {safe_quote(text)}")
    return value


_ON: Final = ("on", "true", "yes", "1")
_SWITCHES: Final = (*_ON, "off", "false", "no", "0")


def provider(text: str) -> str:
    """Read the name of a provider; `custom` means that the server is written out."""
    if not _PROVIDER.fullmatch(text):
        raise ValueError(f"{safe_quote(text)} is not the name of a provider; write custom")
    return text.lower()


def server_order(text: str) -> Order:
    """Read the order in which several servers are tried."""
    return Order(values.choice(text, tuple(Order)))


def switch(text: str) -> bool:
    """Read `on` or `off`, in the words that other images take too."""
    return values.choice(text, _SWITCHES) in _ON


def period(text: str) -> int | None:
    """Read how often something is done, in seconds; `off` and 0 mean never."""
    return None if text.lower() == "off" else values.seconds(text) or None


def server_filter(text: str) -> tuple[str, ...]:
    """Read a list of what servers are chosen by: names of countries, of cities, of hosts."""
    return values.comma_list(text, _filter_entry)


def _filter_entry(text: str) -> str:
    if not any(map(str.isalnum, text)):
        raise ValueError(f"{safe_quote(text)} has no letters; write a name as the provider does")
    return text


def login(text: str) -> Secret:
    """Read a user name or a password."""
    if len(text) > _LONGEST_LOGIN or not text.isprintable():
        raise ValueError(
            f"must be one line of at most {_LONGEST_LOGIN} characters; write that of your account"
        )
    return Secret(text)


def vpn_type(text: str) -> str:
    """Read the protocol; there is only one."""
    if text.lower() != "wireguard":
        raise ValueError(
            f"must be wireguard, got {safe_quote(text)}: this gateway speaks nothing else; write "
            "VPN_TYPE=wireguard, and mount your provider's WireGuard file at /config/wg0.conf or "
            "write its key in WIREGUARD_PRIVATE_KEY. For Private Internet Access, the login is "
            "enough"
        )
    return "wireguard"


def implementation(text: str) -> Implementation:
    """Read where WireGuard runs."""
    return Implementation(values.choice(text, Implementation))


def backend(text: str) -> Backend:
    """Read which firewall carries the rules."""
    return Backend(values.choice(text, Backend))


def log_level(text: str) -> str:
    """Read the least level to log; `warn` is an older word for `warning`."""
    return "warning" if text.lower() == "warn" else values.choice(text, _LOG_LEVELS)


def log_format(text: str) -> str:
    """Read the form of the log."""
    return values.choice(text, _LOG_FORMATS)


def endpoint_ip(text: str) -> Address | str:
    """Read a server's address or name; its port has a variable of its own."""
    if "," in text:
        raise ValueError(
            f"{safe_quote(text)} lists several servers; put them in WIREGUARD_ENDPOINTS, each with "
            "its port"
        )
    if "://" in text:
        raise ValueError(f"{safe_quote(text)} is a URL; write the address or the name alone")
    if text.count(":") == 1:
        raise ValueError(f"{safe_quote(text)} has a port; put the port in WIREGUARD_ENDPOINT_PORT")
    return host(text)


def endpoint_resolver(text: str) -> Address:
    """Read a resolver outside the tunnel: Docker's at 127.0.0.11 is one."""
    value = addresses.address(text)
    if value.is_unspecified or value.is_multicast:
        raise ValueError(f"{value} cannot be a DNS server; write one that this network has")
    return value


def command(text: str) -> tuple[str, ...]:
    """Read a program with its arguments, quoted as in a shell; the message never shows them."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError("has an unclosed quote; close it") from None
    if words and not words[0]:
        raise ValueError("does not name a program; begin with its path")
    for word in words:
        if shell := _SHELL.fullmatch(word):
            found = next(filter(None, shell.groups()))
            raise ValueError(f"has {found}, but no shell runs it: put the command in a script")
    return tuple(word.replace(_INTERFACE, INTERFACE) for word in words)


def probe(text: str) -> HealthProbe:
    """Read how the tunnel is probed: a word, with an address after `icmp:`."""
    kind, colon, address = text.partition(":")
    if colon and kind.lower() != ProbeKind.ICMP:
        raise ValueError(f"{safe_quote(text)} has an address, which only icmp takes")
    word = values.choice(kind, ProbeKind)
    if not colon:
        return HealthProbe(ProbeKind(word))
    value = addresses.address(address)
    if value.is_loopback or value.is_unspecified or value.is_multicast:
        raise ValueError(f"{value} is not an address in the tunnel; write one that answers there")
    return HealthProbe(ProbeKind(word), value)
