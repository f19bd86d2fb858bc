"""Parsers of addresses, subnets and resolvers, and functions on sets of subnets.

A ValueError says what to write. It repeats what was written only through `safe_quote`.
"""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final, TypeGuard

from gateway.model import EVERYTHING, Address, HostPort, Interface, Network
from gateway.settings.findings import Findings
from gateway.settings.values import comma_list, port, safe_quote


def address(text: str) -> Address:
    """Read one IP address: no name, no mask, no zone, not IPv4 inside IPv6."""
    try:
        value = ip_address(text)
    except ValueError:
        raise ValueError(f"{safe_quote(text)} is not an IP address") from None
    return check_form(value, text)


def check_form(value: Address, text: str) -> Address:
    """Return an address; one with a zone, or of IPv4 inside IPv6, is refused."""
    if isinstance(value, IPv6Address):
        if value.scope_id:
            raise ValueError(f"{safe_quote(text)} has a zone; write the address without %...")
        if value.ipv4_mapped:
            raise ValueError(f"{safe_quote(text)} is an IPv4 address; write {value.ipv4_mapped}")
    return value


def is_a_host(value: Address) -> bool:
    """Whether a single host can have the address: RFC 1122 (0.0.0.0, class E), RFC 4291."""
    classless = isinstance(value, IPv4Address) and value.is_reserved
    return not (value.is_unspecified or value.is_multicast or classless)


def interface(text: str) -> Interface:
    """Read an address of the tunnel with its prefix length; without one it is a host address."""
    _check_mask(text)
    try:
        value = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{safe_quote(text)} is not an address; write it as your provider does, such as "
            "10.64.0.2/32"
        ) from None
    check_form(value.ip, text)
    if value.ip.is_loopback or not is_a_host(value.ip):
        raise ValueError(
            f"{safe_quote(text)} cannot be an address of the tunnel, because {value.ip} is "
            f"{_kind(value.ip)}; write the address that your provider gives"
        )
    if not value.network.prefixlen:
        raise ValueError(
            f"{safe_quote(text)} has a /0 prefix, which puts every address on the tunnel's link; "
            f"write {value.ip} alone, or the prefix length that your provider gives"
        )
    return value


def _kind(value: Address) -> str:
    """Return what kind of address no host of a network can have."""
    if value.is_loopback:
        return "a loopback address"
    if value.is_multicast:
        return "a multicast address"
    return "the unspecified address" if value.is_unspecified else "a reserved address"


def interfaces(text: str) -> tuple[Interface, ...]:
    """Read a list of addresses of the tunnel."""
    return comma_list(text, interface)


def network(text: str) -> Network:
    """Read a subnet; bits beyond its prefix are cleared, an address without one is one host."""
    _check_mask(text)
    try:
        value = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{safe_quote(text)} is not a subnet; write one such as 192.168.1.0/24 or 192.168.1.5"
        ) from None
    check_form(value.network_address, text)
    return value


def networks(text: str) -> tuple[Network, ...]:
    """Read a list of subnets."""
    return comma_list(text, network)


def _check_mask(text: str) -> None:
    """Refuse what `ipaddress` would accept: masks such as 255.255.255.0 or 0.0.0.255, zones."""
    if "%" in text:
        raise ValueError(f"{safe_quote(text)} has a zone; write the address without %...")
    _, slash, mask = text.partition("/")
    if slash and not (mask.isascii() and mask.isdigit()):
        raise ValueError(f"{safe_quote(text)} has no prefix length; write a number after the /")


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
    if value.is_link_local or not is_a_host(value):
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
    return comma_list(text, resolver)


def listen_address(text: str) -> HostPort:
    """Read `address:port` that a server of ours listens on; `:port` means every address."""
    host, colon, number_text = text.rpartition(":")
    if not colon and text.isdigit():
        own, its = f"127.0.0.1:{text[:5]}", text[:5]
        raise ValueError(f"'{its}' has no address; write {own} for workloads, or :{its} for all")
    if not colon:
        raise ValueError(
            f"{safe_quote(text)} has no port; write address:port such as 127.0.0.1:9999"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{safe_quote(text)} is ambiguous; write IPv6 as [address]:port")
    bare = host.removeprefix("[").removesuffix("]") if ":" in host else host
    if bare == "localhost":
        bare = "127.0.0.1"
    try:
        value, number = address(bare) if bare else None, port(number_text)
    except ValueError as err:
        raise ValueError(f"{err}; write address:port such as 127.0.0.1:9999") from None
    if value and not (value.is_unspecified or is_a_host(value)):
        raise ValueError(
            f"{value} is not an address to listen on; write an address of this container, or none"
        )
    return HostPort(str(value) if value else "", number)


LOCAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598, shared address space
        "169.254.0.0/16",  # RFC 3927, link-local
        "fc00::/7",  # RFC 4193, unique local
        "fe80::/10",  # RFC 4291, link-local
    )
)
"""The ranges that subnets outside the tunnel lie in, unless a network of the engine is public."""

_REFUSED: Final = tuple(
    (ip_network(text), reason)
    for text, reason in (
        ("127.0.0.0/8", "loopback never leaves the namespace"),
        ("::1/128", "loopback never leaves the namespace"),
        ("224.0.0.0/4", "multicast is never let out"),
        ("ff00::/8", "multicast is never let out"),
        ("255.255.255.255/32", "broadcast is never let out"),
        ("0.0.0.0/8", "it is not a destination"),
        ("::ffff:0:0/96", "it is IPv4 inside IPv6; write the IPv4 subnet"),
    )
)


def report_host_bits(text: str, where: str, findings: Findings) -> None:
    """Report subnets of the readable list `text` that are read as wider ones."""
    for entry in map(str.strip, text.split(",")):
        if "/" in entry:
            written, network = ip_interface(entry).ip, ip_network(entry, strict=False)
            if written != network.network_address:
                findings.info(where, f"{entry} is read as {network}")


def allowed_ips(text: str) -> tuple[Network, ...]:
    """Read a list of destinations that go into the tunnel."""
    return comma_list(text, _allowed)


def _allowed(text: str) -> Network:
    value = network(text)
    if value.network_address.is_unspecified and value.prefixlen == value.max_prefixlen:
        raise ValueError(
            f"{safe_quote(text)} matches no host; write {value.network_address}/0 for everything"
        )
    if value.is_loopback:
        raise ValueError(f"{value} is loopback, which goes into no tunnel; leave it out")
    return value


def within(inner: Network, outer: Network) -> bool:
    """Whether `inner` is `outer` or a part of it."""
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


def simplified(networks: Sequence[Network], where: str, findings: Findings) -> tuple[Network, ...]:
    """Drop and report entries that others cover; two halves of a family become the whole."""
    kept: list[Network] = []
    known: set[Network] = set()
    places = {network: place for place, network in reversed([*enumerate(networks)])}
    lengths = {network.prefixlen for network in networks}
    for network in networks:
        around = (network.supernet(new_prefix=n) for n in lengths if n < network.prefixlen)
        wider = min((one for one in around if one in places), key=places.__getitem__, default=None)
        if network in known:
            findings.info(where, f"{network} is listed twice; once is enough")
        elif wider:
            findings.info(where, f"{network} is a part of {wider} and merged into it")
        else:
            kept.append(network)
            known.add(network)
    for everything in EVERYTHING:
        if everything not in kept and covers_family(kept, everything.version):
            kept = [one for one in kept if one.version != everything.version]
            kept.append(everything)
    return tuple(kept)


def covers_family(networks: Sequence[Network], version: int) -> bool:
    """Whether `networks` together cover all of IPv4 or all of IPv6."""
    if version == 4:  # noqa: PLR2004 - the IP version
        fours = [one for one in networks if isinstance(one, IPv4Network)]
        return any(one.prefixlen == 0 for one in collapse_addresses(fours))
    sixes = [one for one in networks if isinstance(one, IPv6Network)]
    return any(one.prefixlen == 0 for one in collapse_addresses(sixes))


def lan_subnets(text: str) -> tuple[Network, ...]:
    """Read a list of subnets outside the tunnel; the error names every wrong entry."""
    return comma_list(text, _lan_subnet)


def is_public(network: Network) -> TypeGuard[IPv4Network]:
    """Whether `network` is IPv4 on a public range."""
    return isinstance(network, IPv4Network) and not any(within(network, one) for one in LOCAL)


def _lan_subnet(text: str) -> Network:
    value = network(text)
    reason = why_no_lan(value)
    if reason:
        raise ValueError(f"{value} {reason}")
    return value


def why_no_lan(network: Network) -> str | None:
    """Return why `network` cannot be a subnet outside the tunnel, or None when it can."""
    if network.prefixlen == 0:
        return "is everything; list the subnets of your home network only"
    for range_, reason in _REFUSED:
        if within(network, range_) or network == range_:
            return f"cannot be outside the tunnel: {reason}"
    if any(within(network, local) for local in LOCAL):
        return None
    held = next((local for local in LOCAL if within(local, network)), None)
    if is_public(network) and not held:
        return None  # it is outside the tunnel only where an uplink is in it
    if held:
        return f"reaches beyond the private range {held} into public addresses; write that or less"
    return (
        "has public addresses, which are reached through the tunnel only; remove it, and give a "
        "Docker network that you reach a private range (subnet, under ipam)"
    )
