"""A provider in the lab: a name, a certificate, and a list of the lab's own servers over TLS."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import list_server
from tests.lab.hosts import dns
from tests.lab.process import Child
from tests.lab.server import Server
from tests.lab.topology import Lab

MULLVAD = "api.mullvad.net"
RESOLVER = "203.0.113.53"
PROVIDER = "203.0.113.80"


class ListHost:
    """The provider's host: its name resolves at RESOLVER, and it serves `body` at PROVIDER."""

    def __init__(self, lab: Lab, certificate: Path, body: bytes, *, manner: str = "well") -> None:
        """Serve in this manner (`list_server.MANNERS`) until `close`."""
        self._lab = lab
        self._certificate = certificate
        self._body = lab.household.file("list.json")
        self._body.write_bytes(body)
        for address in (RESOLVER, PROVIDER):
            lab.internet_namespace.ip(f"addr replace {address}/32 dev lo")
        self._names = lab.internet.serve(dns(RESOLVER, A=PROVIDER))
        self._child: Child
        self.serve(manner)

    def serve(self, manner: str) -> None:
        """Begin to serve in this manner."""
        wanted = {
            "address": PROVIDER,
            "port": 443,
            "certificate": str(self._certificate),
            "body": str(self._body),
            "manner": manner,
        }
        argv = [sys.executable, list_server.__file__, json.dumps(wanted)]
        self._child = self._lab.household.start(self._lab.internet_namespace.command(argv), "lists")
        self._child.wait_for("ready")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far."""
        lines = self._child.output().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        """Stop serving lists; the name still resolves."""
        self._child.close()


def mullvad(servers: Sequence[Server]) -> bytes:
    """Return Mullvad's list of the lab's servers: Amsterdam, Berlin, Malmö."""
    return mullvad_of([(*server.endpoint, server.keys.public) for server in servers])


def mullvad_of(servers: Sequence[tuple[str, str, str]]) -> bytes:
    """Return Mullvad's list of servers by IPv4 and IPv6 address and public key."""
    places = [("Netherlands", "Amsterdam"), ("Germany", "Berlin"), ("Sweden", "Malmö")]
    return json.dumps(
        [
            {
                "hostname": f"server{number}",
                "country_name": country,
                "city_name": city,
                "active": True,
                "owned": False,
                "provider": "lab",
                "ipv4_addr_in": ipv4,
                "ipv6_addr_in": ipv6,
                "type": "wireguard",
                "pubkey": public,
            }
            for number, ((ipv4, ipv6, public), (country, city)) in enumerate(
                zip(servers, places, strict=False), 1
            )
        ]
    ).encode()
