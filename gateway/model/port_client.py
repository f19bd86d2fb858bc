"""Frozen values for the torrent client that gets the forwarded port (`gateway.model`)."""

from dataclasses import field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from gateway.model.frozen import frozen
from gateway.model.secret import Secret


class ClientKind(StrEnum):
    """The programs that can be given a port."""

    QBITTORRENT = "qbittorrent"
    TRANSMISSION = "transmission"
    DELUGE = "deluge"


@frozen
class ClientUrl:
    """Where a client is asked: `path` has neither a first nor a last slash, and may be empty."""

    address: IPv4Address | IPv6Address
    port: int
    path: str = ""
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.address}]" if isinstance(self.address, IPv6Address) else str(self.address)
        path = f"/{self.path}" if self.path else ""
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"


@frozen
class PortClient:
    """A torrent client, and how to log in to it; `user` and `password` may be empty.

    `listed` is the port that it gets where no server leases one, because the user has listed it.
    """

    kind: ClientKind
    url: ClientUrl
    user: str = field(repr=False)
    password: Secret
    listed: int | None = None
