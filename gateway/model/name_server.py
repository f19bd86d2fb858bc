"""Frozen values for the gateway's own resolver, part of the configuration (`gateway.model`)."""

from dataclasses import field
from ipaddress import IPv4Address, IPv6Address

from gateway.model.errands import Errand
from gateway.model.frozen import frozen

RESOLVER_USER = 53853
"""The user id of the gateway's resolver, which no other program of the namespace should have."""

DAY = 86400
"""Seconds."""


@frozen
class Upstream:
    """A resolver that the gateway's own one asks, by TCP and UDP or over TLS.

    Over TLS its certificate has to be one for `name`; without a name it is asked in plain.
    `provider` is what people call it, empty where the user has written the address.
    """

    address: IPv4Address | IPv6Address
    port: int = 53
    name: str = ""
    provider: str = ""


@frozen
class LocalZone:
    """A domain whose names only `resolvers` are asked for, in plain at port 53, on the LAN."""

    domain: str
    resolvers: tuple[IPv4Address | IPv6Address, ...]


HostName = tuple[str, tuple[IPv4Address | IPv6Address, ...]]
"""A name that the gateway's own resolver knows by itself, with its addresses."""


@frozen
class BlockFile:
    """A list of blocked names, with what shows that it has changed."""

    path: str
    size: int
    changed: int


@frozen
class BlockList(Errand):
    """A list of blocked names that is fetched; `kept` is the file that has its last copy, if any.

    That changes while the list stays the same, so it makes no difference between two of them.
    """

    kept: BlockFile | None = field(default=None, compare=False, kw_only=True)


@frozen
class NameServer:
    """The gateway's own resolver, which workloads ask at 127.0.0.1.

    It asks the `dns` of the tunnel in plain, and `upstreams` where the tunnel has none; for names
    in one of `local` only its resolvers. Private addresses are taken out of other answers, but for
    the domains `exempt`. Without `caching` each question is passed on. It checks signatures:
    `dnssec`. No list blocks the domains `unblocked`. `lists` are fetched every `update_period`
    seconds, with 0 only those without a copy. With `hijack` it answers what workloads ask
    others at port 53.
    """

    upstreams: tuple[Upstream, ...] = ()
    exempt: tuple[str, ...] = ()
    caching: bool = True
    local: tuple[LocalZone, ...] = ()
    unblocked: tuple[str, ...] = ()
    dnssec: bool = False
    hijack: bool = False
    lists: tuple[BlockList, ...] = ()
    update_period: int = DAY
