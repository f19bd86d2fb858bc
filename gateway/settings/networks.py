"""Sets of subnets: what they cover, what in them is double, and which of them a LAN may be."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface, ip_network
from typing import Final

from gateway.model import EVERYTHING, Network
from gateway.settings import addresses, values
from gateway.settings.findings import Findings
from gateway.settings.values import shown

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
"""What a subnet outside the tunnel may be part of."""

_REFUSED: Final = tuple(
    (ip_network(text), reason)
    for text, reason in (
        ("127.0.0.0/8", "loopback never leaves the namespace"),
        ("::1/128", "loopback never leaves the namespace"),
        ("224.0.0.0/4", "multicast is never let out"),
        ("ff00::/8", "multicast is never let out"),
        ("255.255.255.255/32", "broadcast is never let out"),
        ("0.0.0.0/8", "it is no destination"),
        ("::ffff:0:0/96", "it is IPv4 inside IPv6; write the IPv4 subnet"),
    )
)


def tell_host_bits(text: str, where: str, findings: Findings) -> None:
    """Tell which of the subnets in `text`, a list that could be read, are read as wider ones."""
    for entry in map(str.strip, text.split(",")):
        if "/" in entry:
            written, network = ip_interface(entry).ip, ip_network(entry, strict=False)
            if written != network.network_address:
                findings.tell(where, f"{entry} is read as {network}")


def allowed_ips(text: str) -> tuple[Network, ...]:
    """Read a list of destinations that go into the tunnel."""
    return values.listed(text, _allowed)


def _allowed(text: str) -> Network:
    network = addresses.network(text)
    if network.network_address.is_unspecified and network.prefixlen == network.max_prefixlen:
        raise ValueError(
            f"{shown(text)} is nobody's address; write {network.network_address}/0 for everything"
        )
    if network.is_loopback:
        raise ValueError(f"{network} is loopback, which goes into no tunnel; leave it out")
    return network


def within(inner: Network, outer: Network) -> bool:
    """Say whether `inner` is `outer` or a part of it."""
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


def simplified(networks: Sequence[Network], where: str, findings: Findings) -> tuple[Network, ...]:
    """Drop what another entry covers and tell it; halves that make up everything become it."""
    kept: list[Network] = []
    for network in networks:
        wider = next((one for one in networks if one != network and within(network, one)), None)
        if network in kept:
            findings.tell(where, f"{network} stands twice; once is enough")
        elif wider:
            findings.tell(where, f"{network} is a part of {wider} and merged into it")
        else:
            kept.append(network)
    for everything in EVERYTHING:
        if everything not in kept and covers_family(kept, everything.version):
            kept = [one for one in kept if one.version != everything.version]
            kept.append(everything)
    return tuple(kept)


def covers_family(networks: Sequence[Network], version: int) -> bool:
    """Say whether `networks` together are all of IPv4 or all of IPv6."""
    if version == 4:  # noqa: PLR2004 - the IP version
        fours = [one for one in networks if isinstance(one, IPv4Network)]
        return any(one.prefixlen == 0 for one in collapse_addresses(fours))
    sixes = [one for one in networks if isinstance(one, IPv6Network)]
    return any(one.prefixlen == 0 for one in collapse_addresses(sixes))


def lan_subnets(text: str) -> tuple[Network, ...]:
    """Read a list of subnets outside the tunnel; each entry that cannot be one is told."""
    return values.listed(text, _lan_subnet)


def _lan_subnet(text: str) -> Network:
    network = addresses.network(text)
    reason = why_no_lan(network)
    if reason:
        raise ValueError(f"{network} {reason}")
    return network


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
    if held:
        return f"reaches beyond the private range {held} into public addresses; write that or less"
    return "has public addresses, which are reached through the tunnel only; remove it"
