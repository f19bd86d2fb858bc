"""What a server is asked for, and which ports are taken of what it gives.

Pure. `policy.mapping` has what is sent when.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from gateway.model import Config, HostPort
from gateway.model.forwarding import ForwarderKind, Forwarding
from gateway.policy.mapped import Plan, Wish
from gateway.policy.portmap import Version

PROTONS_LIFETIME, LIFETIME = 60, 600
"""Seconds for which a port is asked for; Proton VPN gives it for no longer."""
ANY_OF_PROTON = 1
"""The public port that Proton VPN takes for "any" (its documentation of natpmpc)."""
FIRST_UNPRIVILEGED = 1024
RESOLVER_PORTS = frozenset({53, 853, 5353})


def plan_for(forwarding: Forwarding, former: Sequence[int] = ()) -> Plan:
    """Return what to ask for; `former` are the ports of an earlier connection, asked for again."""
    version = Version.PCP if forwarding.kind is ForwarderKind.PCP else Version.NATPMP
    lifetime = LIFETIME
    wishes = []
    for number in range(forwarding.count):
        public = former[number] if number < len(former) else 0
        if forwarding.kind is ForwarderKind.PROTONVPN:
            lifetime = PROTONS_LIFETIME
            wishes.append(Wish(number, public or ANY_OF_PROTON, at_public=True))
        else:
            fixed = number < len(forwarding.listening)
            private = forwarding.listening[number] if fixed else (public or None)
            wishes.append(Wish(private, public))
    return Plan(version, lifetime, tuple(wishes))


def target_of(forwarding: Forwarding, number: int, public: int) -> int:
    """Return the port here at which workloads listen for what arrives at `public`."""
    return forwarding.listening[number] if number < len(forwarding.listening) else public


def kept_closed(config: Config, ports: Iterable[int]) -> bool:
    """Return whether a server may not choose one of `ports`, because they have another use here.

    A server that could choose any port would reach what listens for others: the health server, the
    web interface of the torrent client or one at a published port, a service of the machine below
    1024.
    """
    return any(
        port < FIRST_UNPRIVILEGED or port in RESOLVER_PORTS or port in set(_in_use(config))
        for port in ports
    )


def _in_use(config: Config) -> Iterator[int]:
    """Yield the ports of the gateway's own servers and of the torrent client, and listed ones."""
    if config.port_client and config.port_client.url.address.is_loopback:
        yield config.port_client.url.port
    for part in _values(config):
        found = _values(part) if is_dataclass(part) and not isinstance(part, HostPort) else (part,)
        yield from (it.port for it in found if isinstance(it, HostPort))
    for each in config.input_ports:
        yield from range(each.first, each.last + 1)


def _values(part: Any) -> Iterator[Any]:
    return (getattr(part, it.name) for it in fields(part))
