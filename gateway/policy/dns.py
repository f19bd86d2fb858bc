"""Names: what workloads get as resolver configuration, and what an endpoint's name becomes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from gateway.model import Address, Config, Endpoint, Facts, NamedEndpoint, Peer, Tunnel
from gateway.policy.routing import uplink_to

FOUND = "# Found here:"
"""Begins the comment that keeps the resolvers which were in the file before."""


def resolvers_of(tunnel: Tunnel, config: Config) -> tuple[Address, ...]:
    """Return the resolvers that workloads get while `tunnel` is connected."""
    return tunnel.dns or config.dns


def resolv_conf(resolvers: Iterable[Address], found: Iterable[Address] = ()) -> str:
    """Return a resolv.conf(5) with `resolvers` and without any search domain.

    `search .` stands there because without it the C library takes the domain of the host's name
    as one. Without resolvers the C library would ask 127.0.0.1, where nobody answers. `found` are
    the resolvers of the file before; a gateway that starts again finds them in the comment.
    """
    before = " ".join([FOUND, *map(str, found)])
    lines = ["# Names resolve in the tunnel, or not at all.", before, "search ."]
    return "\n".join([*lines, *(f"nameserver {address}" for address in resolvers)]) + "\n"


def resolvers_in(text: str) -> tuple[Address, ...]:
    """Return the resolvers that a resolv.conf(5) names, or that it had before we wrote it."""
    lines = [line.split() for line in text.splitlines()]
    ours = [line.removeprefix(FOUND).split() for line in text.splitlines() if FOUND in line]
    words = ours[0] if ours else [line[1] for line in lines if line[:1] == ["nameserver"]]
    return tuple(address for word in words if (address := _address(word)))


def _address(word: str) -> Address | None:
    try:
        return ip_address(word.partition("%")[0])
    except ValueError:
        return None


def resolved(
    tunnel: Tunnel, answers: Mapping[str, tuple[Address, ...]], facts: Facts
) -> tuple[Tunnel, ...]:
    """Return `tunnel` once for each way to replace its endpoints' names by addresses.

    Addresses that no uplink has a route to are left out, and those that no server can have. Empty
    when a name has none left.
    """
    own = {address.ip for address in tunnel.addresses}
    usable = {
        name: [a for a in answers.get(name, ()) if a not in own and _can_be_reached(a, facts)]
        for name in tunnel.names
    }
    if not all(usable.values()):
        return ()
    most = max((len(addresses) for addresses in usable.values()), default=1)
    return tuple(
        replace(tunnel, peers=tuple(_with_address(peer, usable, turn) for peer in tunnel.peers))
        for turn in range(most)
    )


def _can_be_reached(address: Address, facts: Facts) -> bool:
    odd = address.is_loopback or address.is_multicast or address.is_unspecified
    return not odd and uplink_to(address, facts) is not None


def _with_address(peer: Peer, usable: Mapping[str, list[Address]], turn: int) -> Peer:
    if not isinstance(peer.endpoint, NamedEndpoint):
        return peer
    addresses = usable[peer.endpoint.name]
    address = addresses[turn % len(addresses)]
    return replace(peer, endpoint=Endpoint(address, peer.endpoint.port))
