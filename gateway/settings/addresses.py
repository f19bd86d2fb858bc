"""Reading addresses: of the tunnel, of subnets, resolvers and servers.

As in `values`, a ValueError says what to write and shows what was written only through `shown`.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Final

from gateway.model import Address, Endpoint, HostPort, Interface, Network
from gateway.settings.values import listed, port, shown


def address(text: str) -> Address:
    """Read one IP address: no name, no mask, no zone, not IPv4 inside IPv6."""
    try:
        value = ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is no IP address") from None
    return _plain(value, text)


def _plain(value: Address, text: str) -> Address:
    if isinstance(value, IPv6Address):
        if value.scope_id:
            raise ValueError(f"{shown(text)} has a zone; write the address without %...")
        if value.ipv4_mapped:
            raise ValueError(f"{shown(text)} is an IPv4 address; write {value.ipv4_mapped}")
    return value


def _is_a_host(value: Address) -> bool:
    """Say whether one host can have the address: RFC 1122 (0.0.0.0, class E), RFC 4291."""
    classless = isinstance(value, IPv4Address) and value.is_reserved
    return not (value.is_unspecified or value.is_multicast or classless)


def interface(text: str) -> Interface:
    """Read an address of the tunnel with its prefix length; without one it is a host address."""
    _check_mask(text)
    try:
        value = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is no address; write it as your provider does, such as 10.64.0.2/32"
        ) from None
    _plain(value.ip, text)
    if value.ip.is_loopback or not _is_a_host(value.ip):
        raise ValueError(f"{shown(text)} cannot be an address of the tunnel")
    if not value.network.prefixlen:
        raise ValueError(
            f"{shown(text)} has every address for its neighbour; write {value.ip} alone, or the "
            "prefix length that your provider gives"
        )
    return value


def interfaces(text: str) -> tuple[Interface, ...]:
    """Read a list of addresses of the tunnel."""
    return listed(text, interface)


def network(text: str) -> Network:
    """Read a subnet; bits beyond its prefix are cleared, an address without one is one host."""
    _check_mask(text)
    try:
        value = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is no subnet; write one such as 192.168.1.0/24 or 192.168.1.5"
        ) from None
    _plain(value.network_address, text)
    return value


def networks(text: str) -> tuple[Network, ...]:
    """Read a list of subnets."""
    return listed(text, network)


def _check_mask(text: str) -> None:
    """Refuse what `ipaddress` would accept: masks such as 255.255.255.0 or 0.0.0.255, zones."""
    if "%" in text:
        raise ValueError(f"{shown(text)} has a zone; write the address without %...")
    _, slash, mask = text.partition("/")
    if slash and not (mask.isascii() and mask.isdigit()):
        raise ValueError(f"{shown(text)} has no prefix length; write a number after the /")


def resolver(text: str) -> Address:
    """Read the address of a DNS server that the namespace can ask."""
    try:
        value = address(text)
    except ValueError as err:
        raise ValueError(
            f"{err}; write a resolver's address alone, without a port and without tls://"
        ) from None
    if str(value) in _FOREIGN_RESOLVERS:
        raise ValueError(f"{value} {_FOREIGN_RESOLVERS[str(value)]}")
    if value.is_link_local or not _is_a_host(value):
        raise ValueError(f"{value} cannot be a DNS server; write your provider's resolver")
    return value


_FOREIGN_RESOLVERS: Final = {
    "127.0.0.11": "is Docker's resolver, which asks outside the tunnel where no rule of this "
    "namespace sees it; write your provider's resolver, which is asked through the tunnel",
    "127.0.0.53": "is the host's own resolver, which is not there in this namespace; write your "
    "provider's resolver, which is asked through the tunnel",
    "127.0.0.54": "is the host's own resolver, which is not there in this namespace; write your "
    "provider's resolver, which is asked through the tunnel",
}


def resolvers(text: str) -> tuple[Address, ...]:
    """Read a list of DNS servers."""
    return listed(text, resolver)


def server_address(text: str) -> Address:
    """Read the address of a WireGuard server."""
    bracketed = text.startswith("[") and text.endswith("]")
    try:
        value = ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is neither an IP address nor a name; write the server's"
        ) from None
    _plain(value, text)
    if value.is_loopback or not _is_a_host(value):
        raise ValueError(f"{value} cannot be reached as a server; write the server's own address")
    return value


def endpoint(text: str) -> Endpoint:
    """Read `address:port` or `[IPv6 address]:port` of a WireGuard server."""
    host, colon, number_text = text.rpartition(":")
    if "://" in text:
        raise ValueError(f"{shown(text)} is a URL; write address:port alone")
    if not colon or text.endswith("]"):
        raise ValueError(f"{shown(text)} has no port; write address:port, or [IPv6 address]:port")
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{shown(text)} is ambiguous; write IPv6 as [address]:port")
    try:
        number_of_port = port(number_text)
    except ValueError as err:
        raise ValueError(f"the port {err}") from None
    return Endpoint(server_address(host), number_of_port)


def listen_address(text: str) -> HostPort:
    """Read `address:port` that a server of ours listens on; `:port` means every address."""
    host, colon, number_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{shown(text)} has no port; write address:port such as 127.0.0.1:9999")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{shown(text)} is ambiguous; write IPv6 as [address]:port")
    bare = host.removeprefix("[").removesuffix("]") if ":" in host else host
    if bare == "localhost":
        bare = "127.0.0.1"
    try:
        value, number = address(bare) if bare else None, port(number_text)
    except ValueError as err:
        raise ValueError(f"{err}; write address:port such as 127.0.0.1:9999") from None
    if value and not (value.is_unspecified or _is_a_host(value)):
        raise ValueError(
            f"{value} is no address to listen on; write one of this container, or none"
        )
    return HostPort(str(value) if value else "", number)
