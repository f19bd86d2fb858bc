"""Frozen values of ports that the VPN server forwards, and of a connection that has them."""

from gateway.model import Protocol, Tunnel
from gateway.model.frozen import frozen

BOTH = (Protocol.TCP, Protocol.UDP)

MOST_LEASES = 16
"""How many ports may be forwarded at a time: each has rules of its own."""


@frozen
class Lease:
    """A port that the server forwards until `until`, in seconds of the gateway's clock.

    `port` is the one that the internet sees, `listening` the one here at which workloads listen, by
    IP `version`. The server sends its packets to `arriving`; None where that is `listening` itself,
    else the kernel redirects them.
    """

    port: int
    listening: int
    until: float
    protocols: tuple[Protocol, ...] = BOTH
    version: int = 4
    arriving: int | None = None


@frozen
class Connection:
    """A tunnel that carries traffic, and the ports that its server forwards, which are open."""

    tunnel: Tunnel
    leases: tuple[Lease, ...] = ()
