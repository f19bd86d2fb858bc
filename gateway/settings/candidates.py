"""Reading servers: addresses and names, with their ports, and lists of them to choose from."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.model import Address, Endpoint, NamedEndpoint
from gateway.settings import addresses, values

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-f]*")
_LONGEST_NAME: Final = 253


@dataclass(frozen=True)
class EndpointChoice:
    """One server to try; `public_key` is None where the common one applies."""

    endpoint: Endpoint | NamedEndpoint
    public_key: str | None = None


def host(text: str) -> Address | str:
    """Read the address or the name of a server."""
    return _check_name(text) if is_name(text) else addresses.server_address(text)


def server(text: str) -> Endpoint | NamedEndpoint:
    """Read `address:port`, `[IPv6 address]:port` or `name:port` (wg(8), Endpoint)."""
    name, colon, port = text.rpartition(":")
    if colon and is_name(name):
        _check_name(name)
        try:
            return NamedEndpoint(name, values.port(port))
        except ValueError as err:
            raise ValueError(f"the port {err}") from None
    return addresses.endpoint(text)


def at(place: Address | str, port: int) -> Endpoint | NamedEndpoint:
    """Return the endpoint at an address or a name."""
    return NamedEndpoint(place, port) if isinstance(place, str) else Endpoint(place, port)


def host_of(endpoint: Endpoint | NamedEndpoint) -> Address | str:
    """Return the address or the name of an endpoint."""
    return endpoint.name if isinstance(endpoint, NamedEndpoint) else endpoint.address


def _check_name(text: str) -> str:
    """Refuse what resolvers take for this container itself, or for a number."""
    name = text.removesuffix(".").lower().removesuffix(".localdomain")
    last = name.rpartition(".")[2]
    if last == "localhost" or _HEXADECIMAL.fullmatch(last):
        raise ValueError(f"{values.shown(text)} is no server on the internet; write its address")
    return text


def is_name(text: str) -> bool:
    """Say whether `text` is a host name (RFC 1123), and neither half an address nor like a key."""
    labels = text.removesuffix(".").split(".")
    return (
        len(text) <= _LONGEST_NAME
        and all(map(_LABEL.fullmatch, labels))
        and not labels[-1].isdigit()
        and not values.may_be_secret(text)
    )


def endpoint_choices(text: str) -> tuple[EndpointChoice, ...]:
    """Read servers with their ports by comma, each with an optional `@publickey`."""
    return values.listed(text, _endpoint_choice)


def _endpoint_choice(text: str) -> EndpointChoice:
    place, separator, public_key = text.partition("@")
    if not separator:
        return EndpointChoice(server(place))
    try:
        return EndpointChoice(server(place), values.used_key(public_key))
    except ValueError as err:
        raise ValueError(f"{err} (in {values.shown(place)})") from None
