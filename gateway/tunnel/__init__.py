"""The WireGuard interface, as the protocol of its implementations."""

from typing import Protocol

from gateway.model import Tunnel
from gateway.policy.facts import TunnelStatus


class TunnelBackend(Protocol):
    """An implementation of WireGuard that can carry one interface."""

    @property
    def name(self) -> str:
        """The implementation's name as the user writes it: `kernelspace` or `userspace`."""

    async def up(self, tunnel: Tunnel, mtu: int) -> None:
        """Make a new interface from `tunnel` with `mtu` bytes and set it up; no routes.

        A former interface of that name is removed first, also one of another program. Key, mark,
        listen port and peers are set and read back before the link goes up, because `up` sends
        staged packets. Addresses are added as host addresses (/32, /128, without duplicate address
        detection), so that no route comes with them. Raises TunnelError (errno EADDRINUSE: the
        listen port is taken), after removing what it has made.
        """

    async def configure(self, tunnel: Tunnel) -> float:
        """Replace the peers of the interface with those of `tunnel`, and read everything back.

        Starts the handshake with the new peers, and returns when that was, in seconds since the
        epoch by the wall clock, as WireGuard reports when it has ended. Raises TunnelGone, or
        TunnelError where something differs from `tunnel`: key, mark and port are not set again.
        """

    async def status(self) -> TunnelStatus:
        """Return what WireGuard knows now. Raises TunnelGone when there is no interface."""

    async def down(self) -> None:
        """Remove the interface, and the key with it; no error when there is none."""
