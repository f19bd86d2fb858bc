"""Which forwarded ports are redirected to another port here, which nothing else reaches.

A server sends what arrives for a lease to one port, and workloads may listen at another one. The
rules open that other one, because they see a packet when it has been redirected. So a packet that
was sent to it without having been redirected is dropped before: the lease is not about it. Answers
to flows that began here pass, because workloads send from that port too.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from gateway.model import INTERFACE, Config, PortRange, Protocol, Tunnel
from gateway.model.frozen import frozen
from gateway.model.lease import Lease
from gateway.policy.rules import Accept, CtDirection, Drop, Family, Ports, Rule, Transport
from gateway.policy.states import Connected, State


@frozen
class PortRedirection:
    """`redirected` are rules with the port that their packets get; `direct` are dropped."""

    redirected: tuple[tuple[Family, Rule, int], ...] = ()
    direct: tuple[tuple[Family, Rule], ...] = ()


def port_redirection_for(state: State, config: Config) -> PortRedirection | None:
    """Return what is redirected in `state`, None where nothing is."""
    if not isinstance(state, Connected):
        return None
    moved = [it for it in state.leases if it.arriving not in {None, it.listening}]
    if not moved:
        return None
    open_ports = frozenset(_open_directly(state.leases))
    return PortRedirection(
        tuple(it for lease in moved for it in _redirected(lease, state.tunnel)),
        tuple(it for lease in moved for it in _direct(lease, config, open_ports)),
    )


def _redirected(lease: Lease, tunnel: Tunnel) -> Iterator[tuple[Family, Rule, int]]:
    family = Family(lease.version)
    for address in filter(family.has, tunnel.addresses):
        for protocol in lease.protocols:
            rule = Rule(
                why="P9 a port that the server forwards",
                verdict=Accept(),
                in_interface=INTERFACE,
                destination=ip_network(address.ip),
                protocol=Transport(protocol),
                destination_ports=Ports.one(lease.arriving or lease.listening),
            )
            yield family, rule, lease.listening


def _direct(
    lease: Lease, config: Config, open_ports: frozenset[tuple[int, Protocol, int]]
) -> Iterator[tuple[Family, Rule]]:
    """Yield what drops packets to the port of `lease` here, unless something else wants them."""
    for protocol in lease.protocols:
        own = lease.version, protocol, lease.listening
        if own in open_ports or _is_listed(config.vpn_input_ports, protocol, lease.listening):
            continue
        rule = Rule(
            why="P9 not the port that is forwarded",
            verdict=Drop(),
            in_interface=INTERFACE,
            protocol=Transport(protocol),
            destination_ports=Ports.one(lease.listening),
            ct_direction=CtDirection.ORIGINAL,
        )
        yield Family(lease.version), rule


def _open_directly(leases: Iterable[Lease]) -> Iterator[tuple[int, Protocol, int]]:
    """Yield the ports at which packets of a lease arrive; they may go on to another one."""
    for it in leases:
        arriving = it.listening if it.arriving is None else it.arriving
        yield from ((it.version, protocol, arriving) for protocol in it.protocols)


def _is_listed(listed: Iterable[PortRange], protocol: Protocol, port: int) -> bool:
    return any(it.protocol is protocol and it.first <= port <= it.last for it in listed)
