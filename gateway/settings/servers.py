"""Parsers of servers: addresses or names with ports, and lists of them."""

import re
from ipaddress import ip_address
from typing import Final

from gateway.model import Address, Endpoint, NamedEndpoint
from gateway.model.frozen import frozen
from gateway.settings import addresses, values
from gateway.settings.values import safe_quote

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-f]*")
_LONGEST_NAME: Final = 253


@frozen
class EndpointChoice:
    """One server to try; `public_key` is None if the common key applies.

    `name` is what a provider calls it.
    """

    endpoint: Endpoint | NamedEndpoint
    public_key: str | None = None
    name: str = ""


def host(text: str) -> Address | str:
    """Read the address or the name of a server."""
    return _check_name(text) if is_name(text) else server_address(text)


def server(text: str) -> Endpoint | NamedEndpoint:
    """Read `address:port`, `[IPv6 address]:port` or `name:port` (wg(8), Endpoint)."""
    name, colon, port = text.rpartition(":")
    if colon and is_name(name):
        _check_name(name)
        try:
            return NamedEndpoint(name, values.port(port))
        except ValueError as err:
            raise ValueError(f"the port {err}") from None
    return endpoint(text)


def server_address(text: str) -> Address:
    """Read the address of a WireGuard server."""
    bracketed = text.startswith("[") and text.endswith("]")
    try:
        value = ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        raise ValueError(
            f"{safe_quote(text)} is neither an IP address nor a name; write the server's"
        ) from None
    addresses.check_form(value, text)
    if value.is_loopback or not addresses.is_a_host(value):
        raise ValueError(f"{value} cannot be reached as a server; write the server's own address")
    return value


def endpoint(text: str) -> Endpoint:
    """Read `address:port` or `[IPv6 address]:port` of a WireGuard server."""
    host, colon, number_text = text.rpartition(":")
    if "://" in text:
        raise ValueError(f"{safe_quote(text)} is a URL; write address:port alone")
    if not colon or text.endswith("]"):
        raise ValueError(
            f"{safe_quote(text)} has no port; write address:port, or [IPv6 address]:port"
        )
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{safe_quote(text)} is ambiguous; write IPv6 as [address]:port")
    try:
        number_of_port = values.port(number_text)
    except ValueError as err:
        raise ValueError(f"the port {err}") from None
    return Endpoint(server_address(host), number_of_port)


def at(place: Address | str, port: int) -> Endpoint | NamedEndpoint:
    """Return the endpoint at an address or a name."""
    return NamedEndpoint(place, port) if isinstance(place, str) else Endpoint(place, port)


def host_of(endpoint: Endpoint | NamedEndpoint) -> Address | str:
    """Return the address or the name of an endpoint."""
    return endpoint.name if isinstance(endpoint, NamedEndpoint) else endpoint.address


def _check_name(text: str) -> str:
    """Refuse names that resolvers read as this container or as a number."""
    name = text.removesuffix(".").lower().removesuffix(".localdomain")
    last = name.rpartition(".")[2]
    if last == "localhost" or _HEXADECIMAL.fullmatch(last):
        raise ValueError(
            f"{safe_quote(text)} cannot be a server on the internet; write the server's address"
        )
    return text


def is_name(text: str) -> bool:
    """Whether `text` is a host name (RFC 1123) that is unlike an address or a key."""
    labels = text.removesuffix(".").split(".")
    return (
        len(text) <= _LONGEST_NAME
        and all(map(_LABEL.fullmatch, labels))
        and not labels[-1].isdigit()
        and not values.may_be_secret(text)
    )


def endpoint_choices(text: str) -> tuple[EndpointChoice, ...]:
    """Read comma-separated servers with ports, each with an optional `@publickey`."""
    return values.comma_list(text, _endpoint_choice)


def _endpoint_choice(text: str) -> EndpointChoice:
    place, separator, public_key = text.partition("@")
    if not separator:
        return EndpointChoice(server(place))
    try:
        return EndpointChoice(server(place), values.used_key(public_key))
    except ValueError as err:
        raise ValueError(f"{err} (in {safe_quote(place)})") from None
