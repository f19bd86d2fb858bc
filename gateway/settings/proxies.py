"""Parsers of the variables of proxies.

A ValueError says what to write; it never repeats a password.
"""

import re
from typing import Final

from gateway.model import HostPort, Network, Secret
from gateway.settings import addresses, fields, values

MOST_SUBNETS: Final = 64

_PLAIN: Final = re.compile(r"[-A-Za-z0-9._]{1,200}")
"""What tinyproxy can read as a user name or a password (its src/conf.c, BasicAuth)."""
_LONGEST_BY_SOCKS: Final = 255
"""Bytes of both (RFC 1929, section 2)."""
_LOGS: Final = {"connect": True, "info": True, "notice": False, "warning": False}
_LOGS_LESS: Final = {"error": False, "critical": False}
"""Levels of another image, and whether requests are logged at each."""


def listening(text: str) -> HostPort:
    """Read where a proxy listens: `address:port`, `:port`, or a port alone."""
    return addresses.listen_address(f":{text}" if text.isdecimal() else text)


def subnets(text: str) -> tuple[Network, ...]:
    """Read a list of subnets, or addresses, that clients come from."""
    found = tuple(dict.fromkeys(values.comma_list(text, addresses.network)))
    if len(found) > MOST_SUBNETS:
        raise ValueError(f"has more than {MOST_SUBNETS} subnets; write wider ones")
    return found


def log(text: str) -> bool:
    """Read whether requests are logged; the levels of another image are taken too."""
    known = _LOGS | _LOGS_LESS
    return known[text.lower()] if text.lower() in known else fields.switch(text)


def http_user(text: str) -> str:
    """Read the user name of an HTTP proxy."""
    return _plain(text)


def http_password(text: str) -> Secret:
    """Read the password of an HTTP proxy."""
    return Secret(_plain(text))


def socks_user(text: str) -> str:
    """Read the user name of a SOCKS proxy."""
    return _short(text)


def socks_password(text: str) -> Secret:
    """Read the password of a SOCKS proxy."""
    return Secret(_short(text))


def _plain(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise ValueError(
            "may have letters, digits, '.', '_' and '-' only, at most 200 of them, which is what "
            "the proxy can read; write another one"
        )
    return text


def _short(text: str) -> str:
    if len(text.encode()) > _LONGEST_BY_SOCKS or not text.isprintable():
        raise ValueError(f"must be one line of at most {_LONGEST_BY_SOCKS} bytes; write another")
    return text
