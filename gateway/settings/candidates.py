"""Reading `WIREGUARD_ENDPOINTS`: servers in order of preference, some with a key of their own."""

from dataclasses import dataclass

from gateway.model import Endpoint
from gateway.settings import values


@dataclass(frozen=True)
class EndpointChoice:
    """One server to try; `public_key` is None where the common one applies."""

    endpoint: Endpoint
    public_key: str | None = None


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
