"""Frozen values for the gateway's own resolver, part of the configuration (`gateway.model`)."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

RESOLVER_USER = 53853
"""The user id of the gateway's resolver, which no other program of the namespace should have."""


@dataclass(frozen=True)
class Upstream:
    """A resolver that the gateway's own one asks, by TCP and UDP or over TLS.

    Over TLS its certificate has to be one for `name`; without a name it is asked in plain.
    `provider` is what people call it, empty where the user has written the address.
    """

    address: IPv4Address | IPv6Address
    port: int = 53
    name: str = ""
    provider: str = ""


@dataclass(frozen=True)
class NameServer:
    """The gateway's own resolver, which workloads ask at 127.0.0.1.

    It asks the `dns` of the tunnel in plain, and `upstreams` where the tunnel has none. Private
    addresses are taken out of answers, but for names in the domains `exempt`. Without `caching`
    each question is passed on.
    """

    upstreams: tuple[Upstream, ...] = ()
    exempt: tuple[str, ...] = ()
    caching: bool = True
