"""A WireGuard that exists in memory only, and keeps the same contract as the real ones."""

import errno
from dataclasses import dataclass, field

from gateway.errors import TunnelError, TunnelGone
from gateway.model import INTERFACE, Tunnel
from gateway.policy.facts import PeerStatus, TunnelStatus


@dataclass
class FakeTunnel:
    """A tunnel backend; what the world does to it is set from outside.

    `answers` says whether servers answer, `taken` which UDP ports others have, `now` is the wall
    clock, `delays` how long the handshakes of endpoints take in seconds. Every call is noted in
    `calls`, with the tunnel's first endpoint if it has one.
    """

    answers: bool = True
    taken: set[int] = field(default_factory=set)
    now: float = 1_000_000.0
    delays: dict[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    standing: Tunnel | None = None
    mtu: int | None = None

    @property
    def name(self) -> str:
        """The name in health and logs."""
        return "fake"

    async def up(self, tunnel: Tunnel, mtu: int) -> None:
        """Make a new interface, unless its port is taken."""
        self.calls.append(f"up {_first(tunnel)} mtu {mtu}")
        self.standing = None
        if tunnel.listen_port in self.taken:
            raise TunnelError("the port is taken", INTERFACE, errno.EADDRINUSE)
        self._begin(tunnel)
        self.mtu = mtu

    async def configure(self, tunnel: Tunnel) -> float:
        """Replace the peers."""
        self.calls.append(f"configure {tunnel.endpoints[0]}")
        if _device(self._require()) != _device(tunnel):
            raise TunnelError("not as set", INTERFACE)
        self._begin(tunnel)
        return self._begun_at(tunnel)

    async def status(self) -> TunnelStatus:
        """Return what it knows; a server that answers has done so by now."""
        tunnel = self._require()
        handshake = self.now if self.answers else None
        return TunnelStatus(
            tunnel.listen_port,
            tunnel.fwmark,
            tuple(
                PeerStatus(peer.public_key, peer.endpoint, handshake, 92 if handshake else 0, 148)
                for peer in tunnel.peers
            ),
        )

    async def down(self) -> None:
        """Remove the interface, if there is one."""
        self.calls.append("down")
        self.standing = None

    def _begun_at(self, tunnel: Tunnel) -> float:
        """Return when the handshake began that has ended now."""
        return self.now - self.delays.get(str(tunnel.endpoints[0]), 0.001)

    def _begin(self, tunnel: Tunnel) -> None:
        self.standing = tunnel
        self.now += 1

    def _require(self) -> Tunnel:
        if self.standing is None:
            raise TunnelGone("there is no such interface", INTERFACE, errno.ENODEV)
        return self.standing


def _first(tunnel: Tunnel) -> str:
    """Return the first endpoint, empty without one."""
    return str(tunnel.endpoints[0]) if tunnel.peers else ""


def _device(tunnel: Tunnel) -> tuple[object, ...]:
    """Return what is the device's own and not its peers'."""
    return (tunnel.private_key, tunnel.listen_port, tunnel.fwmark)
