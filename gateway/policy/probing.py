"""What to send into the tunnel to find out whether it is alive."""

from enum import StrEnum
from ipaddress import ip_address

from gateway.model import Address, Config, HealthProbe, Network, ProbeKind, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.routing import IPV4
from gateway.policy.upstreams import OURS, upstreams_of


class ProbeProtocol(StrEnum):
    """The protocol of a probe."""

    DNS = "dns"
    NAME = "name"
    """A question to the gateway's own resolver, for a name that it has to pass on."""
    ICMP = "icmp"


@frozen
class Probe:
    """One packet into the tunnel that requests an answer.

    The answer itself matters little: a live server acknowledges every packet of data within ten
    seconds, and `evidence` decides from that. Only a resolver that does not answer means something
    by itself. `hops` is the packet's hop limit.
    """

    protocol: ProbeProtocol
    address: Address
    hops: int | None = None

    @property
    def is_question(self) -> bool:
        """Whether a resolver should answer."""
        return self.protocol is not ProbeProtocol.ICMP


@frozen
class Outcome:
    """What came of a probe, or of one with an echo to the server besides: a thorough one.

    `answered` is whether the probe itself was, `reached` whether it or the echo was. None: nothing
    could be sent, which says nothing. `tries` and `lost` count packets, those without an answer in
    time among them; a thorough probe sends too fast for that, and counts none.
    """

    answered: bool | None
    reached: bool | None
    tries: int = 0
    lost: int = 0


UNSENT = Outcome(None, None)

MOST_HOSTS = 2
"""Hosts that are asked which packets fit, before the server itself is."""

UNASSIGNED: dict[int, Address] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Addresses that no host has (RFC 5737, RFC 3849)."""


def probe_for(tunnel: Tunnel, config: Config) -> Probe | None:
    """Return the probe for `tunnel`, or None if none is configured or possible.

    If no resolver in the tunnel is known, the probe is an echo with a hop limit of one, which ends
    at the server. A live server acknowledges it even if nothing answers it.
    """
    wanted: HealthProbe = config.health_probe
    inside = [a for a in tunnel.dns if _is_inside(a, tunnel, config)]
    match wanted.kind:
        case ProbeKind.OFF:
            return None
        case ProbeKind.ICMP:
            address = wanted.address or next(iter(inside), None)
            return Probe(ProbeProtocol.ICMP, address) if address else None
        case ProbeKind.DNS:
            return _question(inside, tunnel, config)
        case ProbeKind.AUTO:
            return _question(inside, tunnel, config) or to_the_server(tunnel, config)


def _question(inside: list[Address], tunnel: Tunnel, config: Config) -> Probe | None:
    """Return the question to the tunnel's resolver, or else to ours, which asks others in it.

    Where questions are redirected to ours, it alone can ask.
    """
    hijack = config.name_server is not None and config.name_server.hijack
    if inside and not hijack:
        return Probe(ProbeProtocol.DNS, inside[0])
    asked = [it.address for it in upstreams_of(tunnel, config) if hijack or not tunnel.dns]
    if config.name_server and any(_is_inside(it, tunnel, config) for it in asked):
        return Probe(ProbeProtocol.NAME, OURS)
    return None


def echoes_for(tunnel: Tunnel, config: Config) -> tuple[Probe, ...]:
    """Return the echoes that show which packets fit through `tunnel`, the best first.

    A host that answers shows it for both directions. The one that ends at the server does so for
    packets to it. None where the configuration wants no probe.
    """
    wanted: HealthProbe = config.health_probe
    if wanted.kind is ProbeKind.OFF:
        return ()
    inside = [a for a in tunnel.dns if _is_inside(a, tunnel, config)]
    hosts = dict.fromkeys([*([wanted.address] if wanted.address else []), *inside])
    last = to_the_server(tunnel, config)
    echoes = [Probe(ProbeProtocol.ICMP, address) for address in hosts][:MOST_HOSTS]
    return (*echoes, *([last] if last else []))


def to_the_server(tunnel: Tunnel, config: Config) -> Probe | None:
    """Return an echo that ends at the server, to an address that is routed into the tunnel."""
    networks = [network for peer in tunnel.peers for network in peer.allowed_ips]
    own = {address.ip for address in tunnel.addresses}
    free = ((UNASSIGNED[network.version], network) for network in networks)
    addresses = [address if address in network else _last(network) for address, network in free]
    fitting = (a for a in addresses if a not in own and _is_inside(a, tunnel, config))
    return next((Probe(ProbeProtocol.ICMP, address, hops=1) for address in fitting), None)


def _last(network: Network) -> Address:
    """Return the last address of `network` that is not a broadcast address."""
    has_broadcast = network.version == IPV4 and network.num_addresses > 1
    return network[-2 if has_broadcast else -1]


def _is_inside(address: Address, tunnel: Tunnel, config: Config) -> bool:
    """Return whether packets to `address` go into the tunnel."""
    carried = any(address in network for peer in tunnel.peers for network in peer.allowed_ips)
    listed = (*config.outbound_subnets, *config.public_subnets)
    in_lan = any(address in subnet for subnet in listed)
    return carried and not in_lan and not address.is_loopback and tunnel.has_family(address.version)
