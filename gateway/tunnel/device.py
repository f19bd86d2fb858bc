"""A WireGuard device as it was read back, and how it differs from the tunnel that is wanted."""

import base64

from gateway.errors import TunnelError
from gateway.model import INTERFACE, Endpoint, Network, Peer, Secret, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.facts import PeerStatus, TunnelStatus
from gateway.system.applied import HIDDEN

KEY_LENGTH = 32

FIRST_KEEPALIVE = 3600
"""Seconds; what a peer without a keepalive has until its first handshake is under way."""


@frozen
class DevicePeer:
    """One peer of a device: what was set, and what has happened since."""

    public_key: str
    endpoint: Endpoint | None = None
    allowed_ips: frozenset[Network] = frozenset()
    preshared_key: Secret | None = None
    persistent_keepalive: int = 0
    handshake: float | None = None
    received: int = 0
    sent: int = 0


@frozen
class Device:
    """A device: its private key (None when it has none), its socket, its peers."""

    private_key: Secret | None = None
    listen_port: int = 0
    fwmark: int = 0
    peers: tuple[DevicePeer, ...] = ()

    @property
    def status(self) -> TunnelStatus:
        """What the supervisor wants to know; no secret in it."""
        return TunnelStatus(
            self.listen_port,
            self.fwmark,
            tuple(
                PeerStatus(p.public_key, p.endpoint, p.handshake, p.received, p.sent)
                for p in self.peers
            ),
        )

    def differences(self, tunnel: Tunnel) -> tuple[str, ...]:
        """Return how the device differs from `tunnel`, without naming a secret.

        The keepalive is left out: it is switched on for the first moment in any case.
        """
        found = []
        if self.private_key is None or clamped(self.private_key) != clamped(tunnel.private_key):
            found.append("private key")
        if self.listen_port != tunnel.listen_port:
            found.append(f"listen port {self.listen_port}")
        if self.fwmark != tunnel.fwmark:
            found.append(f"mark {self.fwmark:#x}")
        return (*found, *self._peer_differences(tunnel))

    def _peer_differences(self, tunnel: Tunnel) -> tuple[str, ...]:
        found = {peer.public_key: peer for peer in self.peers}
        if found.keys() != {peer.public_key for peer in tunnel.peers}:
            return ("the set of peers",)
        return tuple(
            f"{what} of peer {peer.public_key}"
            for peer in tunnel.peers
            for what in _peer_differences(found[peer.public_key], peer)
        )


def require_none(differences: tuple[str, ...]) -> None:
    """Raise TunnelError if there are `differences` between what was set and what was read back."""
    if differences:
        raise TunnelError(f"not as set: {', '.join(differences)}", INTERFACE)


def wg_set(tunnel: Tunnel, *, peers_only: bool = False) -> list[str]:
    """Return the commands of wg(8) that set the device to `tunnel`, without its secret keys."""
    settings = f"listen-port {tunnel.listen_port} fwmark {tunnel.fwmark:#x}"
    device = [] if peers_only else [f"wg set {INTERFACE} private-key {HIDDEN} {settings}"]
    return device + [
        f"wg set {INTERFACE} peer {peer.public_key}"
        f"{f' preshared-key {HIDDEN}' if peer.preshared_key else ''} endpoint {endpoint_of(peer)}"
        f" persistent-keepalive {start_keepalive(peer)}"
        f" allowed-ips {','.join(map(str, peer.allowed_ips))}"
        for peer in tunnel.peers
    ]


def wg_keepalive(peers: tuple[Peer, ...]) -> list[str]:
    """Return the commands of wg(8) that set the keepalive of existing `peers`."""
    return [
        f"wg set {INTERFACE} peer {peer.public_key}"
        f" persistent-keepalive {peer.persistent_keepalive}"
        for peer in peers
    ]


def clamped(key: Secret) -> bytes:
    """Return the private key as every implementation keeps it (RFC 7748, section 5)."""
    raw = bytearray(base64.b64decode(key.reveal()))
    raw[0] &= 0xF8
    raw[-1] = raw[-1] & 0x7F | 0x40
    return bytes(raw)


def endpoint_of(peer: Peer) -> Endpoint:
    """Return the endpoint of `peer`; a name that has not been looked up is a TunnelError."""
    if not isinstance(peer.endpoint, Endpoint):
        raise TunnelError(f"the endpoint {peer.endpoint} has no address yet", INTERFACE)
    return peer.endpoint


def start_keepalive(peer: Peer) -> int:
    """Return the keepalive in seconds that makes `peer` start a handshake at once.

    Without a keepalive WireGuard waits for a packet to send, and the firewall lets none into the
    tunnel before there was a handshake. A keepalive that is switched on, or that is on when the
    link goes up, is sent at once, and a handshake with it (drivers/net/wireguard/netlink.c set_peer
    and device.c wg_open; wireguard-go device/uapi.go handlePostConfig and device.go upLocked). Once
    begun, the handshake is tried every 5 s for 90 s, whatever the keepalive is by then.
    """
    return peer.persistent_keepalive or FIRST_KEEPALIVE


def without_keepalive(tunnel: Tunnel) -> tuple[Peer, ...]:
    """Return the peers of `tunnel` whose first keepalive is to be taken back."""
    return tuple(peer for peer in tunnel.peers if not peer.persistent_keepalive)


def _peer_differences(found: DevicePeer, wanted: Peer) -> list[str]:
    differences = []
    if found.endpoint != wanted.endpoint:
        differences.append(f"endpoint {found.endpoint}")
    if found.allowed_ips != frozenset(wanted.allowed_ips):
        differences.append("allowed IPs")
    if found.preshared_key != wanted.preshared_key:
        differences.append("preshared key")
    return differences
