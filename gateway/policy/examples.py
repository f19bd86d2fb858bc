"""One state of each kind for a configuration, to show what it would allow."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from gateway.model import Config, Endpoint, NamedEndpoint, Tunnel
from gateway.policy.pulse import Pulse
from gateway.policy.states import Connected, Connecting, Locked, Reason, State, Turn

NOT_YET_KNOWN = ip_address("192.0.2.1")
"""Stands for the address of an endpoint that is given by name (RFC 5737)."""


def each_state(config: Config) -> Iterator[tuple[str, State]]:
    """Yield a title and a state: closed, and each candidate connecting and connected."""
    yield "Locked, and stopping", Locked()
    for number, tunnel in enumerate(map(_with_addresses, config.tunnels), 1):
        turn = Turn((tunnel,))
        which = f" with tunnel {number}" if len(config.tunnels) > 1 else ""
        yield (
            f"Connecting{which}",
            Connecting(turn, tunnel, Reason.NO_HANDSHAKE, since=0.0, retry_at=0.0, built=True),
        )
        yield f"Connected{which}", Connected(turn, tunnel, since=0.0, pulse=Pulse())


def _with_addresses(tunnel: Tunnel) -> Tunnel:
    peers = tuple(
        replace(peer, endpoint=Endpoint(NOT_YET_KNOWN, peer.endpoint.port))
        if isinstance(peer.endpoint, NamedEndpoint)
        else peer
        for peer in tunnel.peers
    )
    return replace(tunnel, peers=peers)
