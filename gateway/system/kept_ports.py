"""Keeps ports of loopback for one program, which itself would share them, or lose them at its end.

A socket with SO_REUSEADDR shares its port with every other one that has it, whatever user it has,
and the one that was bound last gets all packets (net/ipv4/udp.c, udp_lib_lport_inuse and
udp4_lib_lookup2). unbound sets it for the sockets at which it is asked. So a second socket is bound
there that has it only while unbound begins: after that, the kernel refuses all others. A TCP port
is kept in the same way, by a socket that does not listen: else any program could have it while
unbound is away, for as long as it likes (net/ipv4/inet_connection_sock.c, inet_csk_bind_conflict).
"""

import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import product
from pathlib import Path

from gateway.model import Address
from gateway.system.netns import OWN, Netns

Probe = Callable[[], Awaitable[bool]]
Place = tuple[Address, int]

TCPMUX = 1
"""The port of the only sender whose packets the second socket gets (tcpmux, RFC 1078)."""


class KeptPorts:
    """Keeps ports in `netns`, while they are not shared."""

    def __init__(self, netns: Netns = OWN) -> None:
        self._netns = netns
        self._sockets: dict[tuple[Place, int], socket.socket] = {}

    def shared_until(self, places: Iterable[Place], sign: Path, ready: Probe) -> Probe:
        """Let a program with SO_REUSEADDR have `places`; return the question `ready` about it.

        To ask it also keeps them as soon as there is a file at `sign`, which the program makes
        after it has them. What fails is left to the program: it says why it cannot have one.
        """
        for place, kind in product(places, (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            with suppress(OSError):
                if (place, kind) not in self._sockets:
                    self._sockets[place, kind] = self._bound(place, kind)
                self._set(self._sockets[place, kind], shared=True)

        async def is_ready() -> bool:
            self._keep_after(sign)
            return await ready()

        return is_ready

    def keep(self) -> None:
        """Let no program have them, but for those that do."""
        for one in self._sockets.values():
            self._set(one, shared=False)

    def _keep_after(self, sign: Path) -> None:
        if sign.exists():
            self.keep()

    @staticmethod
    def _set(one: socket.socket, *, shared: bool) -> None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(shared))

    def _bound(self, place: Place, kind: int) -> socket.socket:
        """Return a socket; that of UDP is connected, so that it gets no packets. Raises OSError."""
        address, port = place
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004
        made = self._netns.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            self._set(made, shared=True)
            made.bind((str(address), port))
            if kind == socket.SOCK_DGRAM:
                made.connect((str(address), TCPMUX))
        except OSError:
            made.close()
            raise
        return made
