"""Reading servers: `Endpoint` lines, and `WIREGUARD_ENDPOINTS` with a key for some of them."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.model import Endpoint
from gateway.settings import values

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", re.IGNORECASE)
_LONGEST_NAME: Final = 253


@dataclass(frozen=True)
class EndpointChoice:
    """One server to try; `public_key` is None where the common one applies."""

    endpoint: Endpoint
    public_key: str | None = None


@dataclass(frozen=True)
class NamedEndpoint:
    """A server by its name, which nothing looks up yet."""

    name: str
    port: int


def server(text: str) -> Endpoint | NamedEndpoint:
    """Read `address:port`, `[IPv6 address]:port` or `name:port` (wg(8), Endpoint)."""
    host, colon, port = text.rpartition(":")
    if colon and _is_name(host):
        return NamedEndpoint(host, values.port(port))
    return values.endpoint(text)


def _is_name(text: str) -> bool:
    """Say whether `text` is a host name (RFC 1123) and not an attempt at an IPv4 address."""
    labels = text.removesuffix(".").split(".")
    return (
        len(text) <= _LONGEST_NAME
        and all(map(_LABEL.fullmatch, labels))
        and not labels[-1].isdigit()
    )


def endpoint_choices(text: str) -> tuple[EndpointChoice, ...]:
    """Read `address:port` by comma, each with an optional `@publickey`."""
    return values.listed(text, _endpoint_choice)


def _endpoint_choice(text: str) -> EndpointChoice:
    place, at, public_key = text.partition("@")
    if not at:
        return EndpointChoice(values.endpoint(place))
    try:
        return EndpointChoice(values.endpoint(place), values.used_key(public_key))
    except ValueError as err:
        raise ValueError(f"{err} (in {values.shown(place)})") from None
