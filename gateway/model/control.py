"""The control API as it is configured: its routes, and who may use them."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from gateway.model.frozen import frozen
from gateway.model.secret import Secret

ROUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "/v1/version": ("GET",),
        "/v1/vpn/status": ("GET", "PUT"),
        "/v1/vpn/settings": ("GET",),
        "/v1/openvpn/status": ("GET", "PUT"),
        "/v1/openvpn/portforwarded": ("GET",),
        "/v1/portforward": ("GET",),
        "/v1/dns/status": ("GET",),
        "/v1/publicip/ip": ("GET",),
        "/api/v1/status": ("GET",),
        "/api/v1/events": ("GET",),
        "/api/v1/openapi.json": ("GET",),
        "/api/v1/reconnect": ("POST",),
        "/api/v1/next": ("POST",),
        "/api/v1/reload": ("POST",),
    }
)
"""The methods of each path. GET changes nothing, every other method does. HEAD is asked as GET."""

READING = "GET"


class Auth(StrEnum):
    """What a client shows: nothing, a key, or a name with a password."""

    NONE = "none"
    KEY = "apikey"
    BASIC = "basic"


@frozen
class Role:
    """Who may use which `routes`, each as "GET /v1/version".

    `credential` is the key, or the name and the password with a colon between them (RFC 7617), and
    None with `Auth.NONE`, which is for reading alone.
    """

    name: str
    auth: Auth
    routes: frozenset[str]
    credential: Secret | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where a client could change something without a credential."""
        if (self.auth is Auth.NONE) != (self.credential is None):
            raise ValueError("a role has a credential, or is for all")
        if self.auth is Auth.NONE and any(not is_reading(it) for it in self.routes):
            raise ValueError("without a credential nothing can be changed")


@frozen
class Control:
    """Who may use the control API, and what it says of the configuration.

    `provider` is the provider's name, and `selection` what chooses its servers, by the names that
    gluetun gives them.
    """

    roles: tuple[Role, ...] = ()
    provider: str = ""
    selection: tuple[tuple[str, tuple[str, ...]], ...] = ()


def every_route() -> frozenset[str]:
    """Return all routes."""
    return frozenset(f"{method} {path}" for path, methods in ROUTES.items() for method in methods)


def is_reading(route: str) -> bool:
    """Return whether a route changes nothing."""
    return route.startswith(f"{READING} ")
