"""Parsers for the torrent client that gets the forwarded port."""

from ipaddress import ip_address
from typing import Final

from gateway.model import Address
from gateway.model.port_client import ClientKind, ClientUrl
from gateway.settings import urls, values
from gateway.settings.values import safe_quote

LONGEST_URL: Final = 200
HERE: Final = ip_address("127.0.0.1")


def kind(text: str) -> ClientKind:
    """Read which program it is."""
    return ClientKind(values.choice(text, tuple(ClientKind)))


def url(text: str) -> ClientUrl:
    """Read the URL of a web interface, with an address: nothing is to look up a name for it."""
    if "@" in text:  # before anything is quoted
        raise ValueError(
            "has a user or a password in it; write these in FORWARDED_PORT_CLIENT_USER and "
            "FORWARDED_PORT_CLIENT_PASSWORD"
        )
    said = safe_quote(text)
    parts, host, number = urls.parts_of(text, LONGEST_URL, "write http://127.0.0.1:8080")
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError(f"{said} does not begin with http:// and an address")
    if "?" in text or "#" in text:
        raise ValueError(f"{said} has a part after ? or #; write http://address:port")
    tls = parts.scheme == "https"
    address = _address(host)
    if tls and not address.is_loopback:
        raise ValueError(f"{said} has https://, which works on loopback only; write http://")
    return ClientUrl(address, number or (443 if tls else 80), parts.path.strip("/"), tls)


def _address(host: str) -> Address:
    if host == "localhost":
        return HERE
    try:
        return ip_address(host)
    except ValueError:
        raise ValueError(
            f"{safe_quote(host)} is not an address; write 127.0.0.1 for a client in the gateway's "
            "network"
        ) from None
