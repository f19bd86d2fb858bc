"""Looks at a torrent client, gives it the port, and finds out whether it listens there.

What the client says of its port is compared with the kernel's sockets, because most of them accept
a port that another program has. Standard library only.
"""

import socket
import time
from typing import Protocol

from gateway.model import Address
from gateway.model.frozen import frozen
from gateway.policy.port_client import GOOD, Look, Outcome
from gateway.system.listeners import TCP, UDP, Listener, listeners

SETTLES_WITHIN = 4.0
"""Seconds in which a client listens after it was given a port; all of them take less than one."""
TAKEN_WITHIN = 1.0
"""The same where another program has the port."""
POLL = 0.1
LOWEST = 1024
"""The first port that needs no capability."""
MOST_QUOTED = 3


@frozen
class Setting:
    """The port that a client is set to; `fixed` says that nothing else of it chooses another.

    `by_udp`: it takes no connections of TCP. `has` is the port at which it says that it listens, 0
    for none, None where it says nothing about that.
    """

    port: int
    fixed: bool
    by_udp: bool = False
    has: int | None = None

    @property
    def protocol(self) -> int:
        """The protocol of the sockets that are looked for."""
        return UDP if self.by_udp else TCP


class Client(Protocol):
    """A torrent client's interface; it logs in by itself where that is necessary."""

    def read(self) -> Setting:
        """Return its setting. Raises Trouble."""

    def write(self, port: int) -> None:
        """Have it listen at `port` alone, and ask no router for it. Raises Trouble."""


@frozen
class Place:
    """Where packets for the port arrive: the tunnel's addresses and the index of its device.

    `web` is the port of the client's web interface if it is on loopback, else 0.
    """

    addresses: tuple[Address, ...]
    device: int
    web: int


class Sockets:
    """The sockets of the client's namespace, and which of them are known to be the client's.

    What was there before the client got its port belongs to another program, and what came after
    it is the client's. Of others it is not known: they are the client's if they have the user and
    the container of its web interface.
    """

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._place = Place((), 0, 0)
        self._own: set[int] = set()
        self._foreign: set[int] = set()

    def use(self, channel: socket.socket, place: Place) -> None:
        """Ask the kernel through `channel` from now on."""
        if self._channel is not None:
            self._channel.close()
        self._channel, self._place = channel, place

    def at(self, port: int, protocol: int = TCP) -> tuple[Listener, ...] | None:
        """Return what waits at `port`; None where the kernel cannot say."""
        if self._channel is None:
            return None
        try:
            return listeners(self._channel, port, protocol)
        except OSError:
            return None

    def web(self) -> tuple[Listener, ...]:
        """Return the sockets of the client's web interface, none where they are not known."""
        return (self.at(self._place.web) or ()) if self._place.web else ()

    def are_foreign(self, found: tuple[Listener, ...] | None) -> None:
        """Take it that the sockets `found` belong to another program."""
        self._own, self._foreign = set(), {it.inode for it in found or ()}

    def are_own(self, found: tuple[Listener, ...] | None) -> None:
        """Take it that the sockets `found` are the client's, except for those known as foreign."""
        self._own = {it.inode for it in found or ()} - self._foreign

    def of_client(self, found: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """Return those of `found` that are the client's."""
        owners = {it.owner for it in self.web()}
        return tuple(
            it
            for it in found
            if it.inode in self._own
            or (it.inode not in self._foreign and (not owners or it.owner in owners))
        )

    def usable(self, found: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """Return those of `found` that packets from the tunnel reach."""
        place = self._place
        return tuple(
            it
            for it in found
            if any(it.takes(address, place.device) for address in place.addresses)
        )


def look(client: Client, sockets: Sockets, port: int) -> Look:
    """Have `client` listen at `port`, and return what came of it. Raises Trouble."""
    setting = client.read()
    found = sockets.at(port, setting.protocol)
    if is_other := setting.port != port:
        sockets.are_foreign(found)
    elif setting.fixed:
        outcome, detail = judged(sockets, setting, found)
        if outcome not in {Outcome.SILENT, Outcome.ELSEWHERE}:
            return Look(outcome, port, detail)
        # It was refused the port when it asked for it, and asks again only for another one.
        client.write(port - 1 if port > LOWEST else port + 1)
        time.sleep(POLL)
        client.read()
    client.write(port)
    began = time.monotonic()
    while True:
        time.sleep(POLL)
        setting = client.read()
        found = sockets.at(port, setting.protocol)
        if is_other:
            sockets.are_own(found)
        outcome, detail = judged(sockets, setting, found)
        if setting.port != port or not setting.fixed:
            others = "it may choose another" if setting.port == port else f"it says {setting.port}"
            outcome, detail = Outcome.NOT_SET, others
        patience = TAKEN_WITHIN if outcome is Outcome.TAKEN else SETTLES_WITHIN
        if outcome in GOOD or time.monotonic() > began + patience:
            return Look(outcome, port, detail, changed=True)


def judged(
    sockets: Sockets, setting: Setting, found: tuple[Listener, ...] | None
) -> tuple[Outcome, str]:
    """Return what the sockets `found` at the port say about a client with this `setting`."""
    if found is None:
        return Outcome.NOT_SEEN, ""
    if setting.has is not None:
        own = found if setting.has == setting.port else ()
    else:
        own = sockets.of_client(found)
    if sockets.usable(own):
        return Outcome.LISTENING, ""
    if own and not sockets.usable(found):
        return Outcome.ELSEWHERE, ", ".join(str(it.address) for it in own[:MOST_QUOTED])
    return (Outcome.TAKEN if found else Outcome.SILENT), ""
