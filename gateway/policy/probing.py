"""What to ask inside the tunnel to know that it is alive."""

from dataclasses import dataclass
from enum import StrEnum

from gateway.model import Address, Config, HealthProbe, ProbeKind, Tunnel
from gateway.policy.dns import resolvers_of


class Question(StrEnum):
    """How the other side is asked."""

    DNS = "dns"
    ICMP = "icmp"


@dataclass(frozen=True)
class Probe:
    """One packet into the tunnel that somebody should answer.

    Whoever answers, or nobody: the server of a tunnel that is alive acknowledges every packet of
    data within ten seconds, which is what `pulse` goes by. Only the resolver's silence means
    something by itself.
    """

    question: Question
    address: Address

    @property
    def is_question(self) -> bool:
        """Whether it is the tunnel's resolver that should answer."""
        return self.question is Question.DNS


def probe_for(tunnel: Tunnel, config: Config) -> Probe | None:
    """Return the probe for `tunnel`, or None when there is nobody inside it to ask."""
    wanted: HealthProbe = config.health_probe
    inside = [a for a in resolvers_of(tunnel, config) if _is_inside(a, tunnel, config)]
    match wanted.kind:
        case ProbeKind.OFF:
            return None
        case ProbeKind.ICMP:
            address = wanted.address or next(iter(inside), None)
            return Probe(Question.ICMP, address) if address else None
        case ProbeKind.AUTO | ProbeKind.DNS:
            return Probe(Question.DNS, inside[0]) if inside else None


def _is_inside(address: Address, tunnel: Tunnel, config: Config) -> bool:
    """Say whether packets to `address` go into the tunnel."""
    carried = any(address in network for peer in tunnel.peers for network in peer.allowed_ips)
    beside = any(address in subnet for subnet in config.outbound_subnets)
    return carried and not beside and not address.is_loopback and tunnel.has_family(address.version)
