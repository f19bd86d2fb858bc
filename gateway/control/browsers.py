"""Keeps pages in a browser out: none may change anything here, or read what needs no credential.

No CORS header is ever sent, so no page can read an answer from another origin. What is left are
requests that a page sends without reading the answer, and a page whose name leads to the gateway's
address after it was loaded from elsewhere ("DNS rebinding").
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.control.access import Headers

PRIVATE_ENDINGS = (
    "localhost",
    "local",  # RFC 6762
    "internal",  # reserved by ICANN, 2024
    "home.arpa",  # RFC 8375
    "lan",
    "home",
    "test",  # RFC 6761
)
"""Endings of names that the internet's DNS does not have."""

OTHER_SITES = {b"cross-site", b"same-site"}
ORIGIN_REFUSED = (
    "a page of another origin has sent this (Origin, Sec-Fetch-Site); use a program outside of a "
    "browser, or a proxy that serves both under one origin"
)
HOST_REFUSED = (
    "without a credential, Host has to be an address or a name that the internet does not have "
    "(gateway, gateway.lan, localhost); send a credential, or use such a name"
)


def values_of(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return the values of the header `wanted`, which is in small letters."""
    return [value.strip() for name, value in headers if name == wanted]


def is_from_a_page(headers: Headers) -> bool:
    """Return whether a page of another origin has caused the request.

    Browsers name the relation of both (Fetch Metadata), and older ones the origin, with all
    requests but simple ones for reading (RFC 6454, Fetch).
    """
    if any(it.lower() in OTHER_SITES for it in values_of(headers, b"sec-fetch-site")):
        return True
    hosts = [it.lower() for it in values_of(headers, b"host")]
    return any(_host_of(it) not in hosts for it in values_of(headers, b"origin"))


def _host_of(origin: bytes) -> bytes:
    """Return host and port of an origin, as a Host header has them; empty for `null`."""
    return origin.lower().partition(b"://")[2]


def is_local(host: str) -> bool:
    """Return whether the Host header `host` cannot be a name that a stranger has registered."""
    if not host.isascii():  # as no header is, and to look at it would take a library
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        labels = name.removesuffix(".").split(".")
        return all(labels) and (len(labels) == 1 or name.removesuffix(".").endswith(_ENDINGS))
    return True


_ENDINGS = tuple(f".{it}" for it in PRIVATE_ENDINGS)
