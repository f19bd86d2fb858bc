"""Names: the resolver configuration of workloads, and the addresses of an endpoint's name.

The resolvers that the container was given have to outlive the file that named them, because a
gateway that starts again asks them for the endpoint's name. They are kept in a copy that no
workload can reach (gateway.system.given), and in a comment of that file, for a gateway whose
container was created again in the same namespace. Workloads can write to the file, so the comment
has a seal that only the private key can make. Without a copy, and if a gateway ran here before,
only a sealed comment is trusted: the choice of the resolver reveals the name and decides which
server gets the handshakes.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from gateway.model import Address, Candidate, Endpoint, NamedEndpoint, Peer, Secret, Tunnel
from gateway.policy.facts import Facts
from gateway.policy.routing import IPV4
from gateway.policy.ways import uplink_to

FOUND = "# Found here:"
"""The start of the comment with the resolvers that were in the file before."""

DOCKER_RESOLVER = ip_address("127.0.0.11")

SEAL_LENGTH = 32
"""Hexadecimal digits of the comment's seal."""


def resolv_conf(resolvers: Iterable[Address], found: Iterable[Address], key: Secret) -> str:
    """Return a resolv.conf(5) with `resolvers` and without any search domain.

    Without `search .`, the C library searches the domain of the host's name. Without resolvers, it
    asks 127.0.0.1, where no server answers. `found` are the resolvers of the file before, sealed
    with `key`.
    """
    before = " ".join([FOUND, *map(str, found)])
    lines = ["# Names resolve in the tunnel, or not at all.", f"{before} {_seal(before, key)}"]
    return "\n".join([*lines, "search .", *(f"nameserver {it}" for it in resolvers)]) + "\n"


def resolvers_found(text: str, key: Secret, *, first: bool, kept: bool) -> tuple[Address, ...]:
    """Return the resolvers that the container was given, as far as its resolv.conf can be trusted.

    `first`: no gateway ran in this namespace before. That alone does not prove that the file is
    unchanged: a container that starts again has a new namespace and the same file, which running
    workloads still have mounted. `kept`: the container's own layer can hold a copy and had none, so
    this is its first start. If it cannot hold one, a file without a seal is trusted only if it
    names Docker's own resolver, which listens inside the namespace.
    """
    for line in text.splitlines():
        before, _, seal = line.rpartition(" ")
        if before.startswith(FOUND) and hmac.compare_digest(
            seal.encode(), _seal(before, key).encode()
        ):
            return _addresses(before.removeprefix(FOUND).split())
    named = resolvers_in(text) if first else ()
    return named if kept else tuple(it for it in named if it == DOCKER_RESOLVER)


def kept(found: Iterable[Address]) -> str:
    """Return the copy's text for the resolvers `found`."""
    return "".join(f"{address}\n" for address in found)


def resolvers_kept(text: str) -> tuple[Address, ...]:
    """Return the resolvers of a copy."""
    return _addresses(text.split())


def resolvers_in(text: str) -> tuple[Address, ...]:
    """Return the resolvers of a resolv.conf(5), those in our comment first; no seal is checked."""
    lines = [line.split() for line in text.splitlines()]
    ours = [line.removeprefix(FOUND).split() for line in text.splitlines() if FOUND in line]
    return _addresses(
        ours[0] if ours else [it[1] for it in lines if it[:1] == ["nameserver"] and it[1:]]
    )


def _seal(text: str, key: Secret) -> str:
    return hmac.new(key.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()[:SEAL_LENGTH]


def _addresses(words: Iterable[str]) -> tuple[Address, ...]:
    return tuple(address for word in words if (address := _address(word)))


def _address(word: str) -> Address | None:
    try:
        return ip_address(word.partition("%")[0])
    except ValueError:
        return None


def with_addresses(candidate: Candidate, servers: Mapping[str, Address]) -> Tunnel:
    """Return the tunnel to build from `candidate`, with the address of each name from `servers`.

    Raises KeyError for a name without an address, and ValueError without a mark.
    """
    if candidate.fwmark is None:
        raise ValueError("this tunnel has no firewall mark yet")
    peers = (
        Peer(
            peer.public_key,
            Endpoint(servers[peer.endpoint.name], peer.endpoint.port)
            if isinstance(peer.endpoint, NamedEndpoint)
            else peer.endpoint,
            peer.allowed_ips,
            peer.preshared_key,
            peer.persistent_keepalive,
        )
        for peer in candidate.peers
    )
    return Tunnel(
        candidate.private_key,
        candidate.addresses,
        tuple(peers),
        candidate.listen_port,
        mtu=candidate.mtu,
        dns=candidate.dns,
        fwmark=candidate.fwmark,
    )


def resolved(
    tunnel: Candidate, answers: Mapping[str, tuple[Address, ...]], facts: Facts
) -> tuple[Tunnel, ...]:
    """Return `tunnel` once for each way to replace its endpoints' names by addresses.

    Addresses are left out that no uplink has a route to, or that no server can have: the flow to
    an address of this host would go through loopback, where a workload can read its mark. The
    result is empty if a name has no address left.
    """
    usable = {name: reachable(answers.get(name, ()), tunnel, facts) for name in tunnel.names}
    if not all(usable.values()):
        return ()
    most = max((len(addresses) for addresses in usable.values()), default=1)
    return tuple(
        with_addresses(tunnel, {name: found[turn % len(found)] for name, found in usable.items()})
        for turn in range(most)
    )


def reachable(found: Iterable[Address], candidate: Candidate, facts: Facts) -> tuple[Address, ...]:
    """Return the addresses of `found` that another host can have, and that an uplink leads to."""
    uplinks = [address for uplink in facts.uplinks for address in uplink.addresses]
    own = {address.ip for address in (*candidate.addresses, *uplinks)}
    own |= {address.network.broadcast_address for address in uplinks if address.version == IPV4}
    return tuple(a for a in found if a not in own and _can_be_reached(a, facts))


def _can_be_reached(address: Address, facts: Facts) -> bool:
    odd = address.is_loopback or address.is_multicast or address.is_unspecified
    odd = odd or (address.version == IPV4 and address.is_reserved)  # 255.255.255.255 is one
    return not odd and uplink_to(address, facts) is not None
