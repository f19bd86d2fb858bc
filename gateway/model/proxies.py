"""Frozen values for the gateway's own proxies, part of the configuration (`gateway.model`)."""

from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.model.frozen import frozen
from gateway.model.place import HostPort
from gateway.model.secret import Secret

PROXY_USER = 53854
"""The user id of the gateway's proxies, which no other program of the namespace should have."""

Network = IPv4Network | IPv6Network

HERE: tuple[Network, ...] = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
"""Where clients in the namespace itself come from, if they use the proxy at loopback."""


@frozen
class Account:
    """What a client of a proxy has to give: a user name and a password."""

    user: str
    password: Secret


@frozen
class Proxy:
    """A proxy that listens at `listening`, TCP.

    Its clients come from `subnets`, None for everywhere, which takes an account. With an `account`
    each of them has to give it.
    """

    listening: HostPort
    account: Account | None = None
    subnets: tuple[Network, ...] | None = HERE


@frozen
class HttpProxy(Proxy):
    """A proxy for HTTP and CONNECT (RFC 9110, section 9.3.6).

    It logs each request: `log`. `stealth`: requests do not say that they came through a proxy.
    """

    log: bool = False
    stealth: bool = False


@frozen
class SocksProxy(Proxy):
    """A proxy for SOCKS, version 5 (RFC 1928, RFC 1929), for TCP connections."""
