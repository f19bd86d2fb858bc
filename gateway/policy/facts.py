"""Frozen values of what was found: how the namespace looks, and what WireGuard reports.

As in `gateway.model`, nothing here decides anything or touches the kernel.
"""

from ipaddress import IPv6Address

from gateway.model import Address, Endpoint, Interface, Network
from gateway.model.frozen import frozen


@frozen
class Uplink:
    """An interface of the namespace that is neither loopback nor the tunnel.

    `addresses` have the kernel's prefixes, without link-local ones. `index` is the kernel's, `mtu`
    the largest packet. `routers` are the link-local gateways here that the main table uses.
    """

    name: str
    index: int
    mtu: int
    addresses: tuple[Interface, ...] = ()
    routers: tuple[IPv6Address, ...] = ()


@frozen
class Route:
    """A unicast route of the main table: `destination` via `interface`, and `gateway` if any."""

    destination: Network
    interface: str
    gateway: Address | None = None
    metric: int = 0


@frozen
class Facts:
    """What the namespace looks like at one moment: its uplinks and the routes of its main table.

    `ipv6` is False if a new interface cannot have an IPv6 address: the kernel has no IPv6, or the
    namespace has it disabled (net.ipv6.conf.default.disable_ipv6). `guard_mark` is the secret mark
    of packets that passed the rules and leave through an uplink, None without an egress guard.
    `all_routes` is False if the main table has more routes than are read. `down` are the links that
    would be uplinks if they were up.
    """

    uplinks: tuple[Uplink, ...] = ()
    routes: tuple[Route, ...] = ()
    ipv6: bool = True
    guard_mark: int | None = None
    all_routes: bool = True
    down: tuple[str, ...] = ()


@frozen
class PeerStatus:
    """WireGuard's report on one peer.

    `handshake` is the time of the last handshake, in seconds since the epoch by the wall clock, or
    None before the first. Compare it for change only: the wall clock may jump.
    """

    public_key: str
    endpoint: Endpoint | None
    handshake: float | None
    received: int
    sent: int


@frozen
class TunnelStatus:
    """WireGuard's report on the tunnel."""

    listen_port: int
    fwmark: int
    peers: tuple[PeerStatus, ...]

    @property
    def received(self) -> int:
        """Bytes received from all peers."""
        return sum(peer.received for peer in self.peers)

    @property
    def sent(self) -> int:
        """Bytes sent to all peers."""
        return sum(peer.sent for peer in self.peers)
