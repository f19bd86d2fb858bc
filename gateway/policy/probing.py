"""What to ask inside the tunnel to know that it is alive."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from gateway.model import Address, Config, HealthProbe, Network, ProbeKind, Tunnel
from gateway.policy.routing import IPV4


class Question(StrEnum):
    """How the other side is asked."""

    DNS = "dns"
    ICMP = "icmp"


@dataclass(frozen=True)
class Probe:
    """One packet into the tunnel that somebody should answer.

    Whoever answers, or nobody: the server of a tunnel that is alive acknowledges every packet of
    data within ten seconds, which is what `pulse` goes by. Only the resolver's silence means
    something by itself. With `hops` the packet gets no farther than so many routers.
    """

    question: Question
    address: Address
    hops: int | None = None

    @property
    def is_question(self) -> bool:
        """Whether it is the tunnel's resolver that should answer."""
        return self.question is Question.DNS


NOBODY: dict[int, Address] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Addresses that nobody has (RFC 5737, RFC 3849)."""


def probe_for(tunnel: Tunnel, config: Config) -> Probe | None:
    """Return the probe for `tunnel`, or None when there is none to be had.

    Where no resolver is known inside it, something is sent all the same that ends at the server: an
    echo that no router passes on. Whatever becomes of it there, a live server acknowledges it.
    """
    wanted: HealthProbe = config.health_probe
    inside = [a for a in tunnel.dns if _is_inside(a, tunnel, config)]
    match wanted.kind:
        case ProbeKind.OFF:
            return None
        case ProbeKind.ICMP:
            address = wanted.address or next(iter(inside), None)
            return Probe(Question.ICMP, address) if address else None
        case ProbeKind.DNS:
            return Probe(Question.DNS, inside[0]) if inside else None
        case ProbeKind.AUTO:
            return Probe(Question.DNS, inside[0]) if inside else _to_the_server(tunnel, config)


def _to_the_server(tunnel: Tunnel, config: Config) -> Probe | None:
    """Return an echo that gets as far as the server, for an address that goes into the tunnel."""
    networks = [network for peer in tunnel.peers for network in peer.allowed_ips]
    own = {address.ip for address in tunnel.addresses}
    addresses = [NOBODY[n.version] if NOBODY[n.version] in n else _last(n) for n in networks]
    fitting = (a for a in addresses if a not in own and _is_inside(a, tunnel, config))
    return next((Probe(Question.ICMP, address, hops=1) for address in fitting), None)


def _last(network: Network) -> Address:
    """Return the last address of `network` that is no broadcast's."""
    beside = 1 if network.version == IPV4 and network.num_addresses > 1 else 0
    return network[-1 - beside]


def _is_inside(address: Address, tunnel: Tunnel, config: Config) -> bool:
    """Say whether packets to `address` go into the tunnel."""
    carried = any(address in network for peer in tunnel.peers for network in peer.allowed_ips)
    beside = any(address in subnet for subnet in config.outbound_subnets)
    return carried and not beside and not address.is_loopback and tunnel.has_family(address.version)
