"""The MTU of the tunnel's interface: chosen when it is made, lowered where large packets vanish.

A device on the way that drops large packets without a word leaves handshakes and small packets
intact. Connections that begin after the MTU was lowered have a TCP maximum segment size that
follows from it, because the interface is where they begin and end.
"""

from gateway.daemon.ports import Parts
from gateway.errors import KERNEL, is_shortage
from gateway.model import INTERFACE, Tunnel
from gateway.policy.actions import Measure, Work
from gateway.policy.events import Event, Measured, Troubled
from gateway.policy.facts import Facts
from gateway.policy.mtu import LEAST, Way, fitting, steps, way_of


class Sizing:
    """Remembers which MTU the interface has, and the way that it is for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._way: Way | None = None
        self._mtu: int

    def begin(self, tunnel: Tunnel, facts: Facts, *, again: bool = False) -> int:
        """Return the MTU in bytes for a new interface; `again` for one to the same servers."""
        if again and self._way == way_of(tunnel, facts):
            return self._mtu
        self._way = way_of(tunnel, facts)
        self._mtu = self._way[1]
        return self._mtu

    def continued(self, tunnel: Tunnel, facts: Facts) -> int:
        """Return the MTU of an interface that stays; another way begins like a new interface.

        Raises NetworkError.
        """
        if self._way != way_of(tunnel, facts):
            self._parts.around_tunnel.set_mtu(INTERFACE, self.begin(tunnel, facts))
        return self._mtu

    async def measure(self, wanted: Measure) -> Event:
        """Find out which packets arrive, and lower the MTU to them unless it was chosen."""
        mtu = wanted.mtu
        try:
            path = await self._path(wanted)
            if path is not None and not wanted.is_chosen and fitting(mtu, path) != mtu:
                self._parts.around_tunnel.set_mtu(INTERFACE, fitting(mtu, path))
                self._mtu = mtu = fitting(mtu, path)
        except KERNEL as err:
            # Without the interface, which its next sample notices, nothing is known.
            return Troubled(Work.MEASURE, err) if is_shortage(err) else Measured(mtu, None)
        return Measured(mtu, path)

    async def _path(self, wanted: Measure) -> int | None:
        """Return the largest packet that is answered, in bytes; None if that says nothing."""
        for echo in wanted.echoes:
            arrived = await self._parts.echo(echo, (LEAST, wanted.mtu))
            if arrived == wanted.mtu:
                return arrived
            # A host that answers nothing this time has gone: large packets have not vanished.
            if arrived is not None and (largest := await self._parts.echo(echo, steps(wanted.mtu))):
                return largest
        return None
