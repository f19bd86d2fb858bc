"""A provider in the lab: a name, a certificate, and a list of the lab's own servers over TLS."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.hosts import Services, dns
from tests.lab.process import Child
from tests.lab.server import Server
from tests.lab.topology import Lab

LIST_SERVER = str(Path(__file__).with_name("list_server.py"))
MULLVAD = "api.mullvad.net"
RESOLVER = "203.0.113.53"
PROVIDER = "203.0.113.80"


class ListHost:
    """The provider's host: its name resolves at RESOLVER, and it serves `body` at PROVIDER."""

    def __init__(
        self,
        lab: Lab,
        certificate: Path,
        body: bytes,
        *,
        manner: str = "well",
        resolver: str = RESOLVER,
        address: str = PROVIDER,
        **login: Any,
    ) -> None:
        """Serve in this manner (`list_server.MANNERS`) until `close`, with `login` if there is."""
        self._lab = lab
        self._login = login
        self._certificate = certificate
        self._body = lab.household.file("list.json")
        self._body.write_bytes(body)
        self._address = address
        for each in (resolver, address):
            length = "128" if ":" in each else "32"
            lab.internet_namespace.ip(f"addr replace {each}/{length} dev lo")
        self._resolver, self._kind = resolver, "AAAA" if ":" in address else "A"
        self._names: Services
        self.named(address)
        self._child: Child
        self.serve(manner)

    def named(self, address: str) -> None:
        """Let the resolver answer with this address."""
        if hasattr(self, "_names"):
            self._names.close()
        self._names = self._lab.internet.serve(dns(self._resolver, **{self._kind: address}))

    def serve(self, manner: str, certificate: Path | None = None) -> None:
        """Begin to serve in this manner, with another certificate if given."""
        wanted = {
            "address": self._address,
            "port": 443,
            "certificate": str(certificate or self._certificate),
            "body": str(self._body),
            "manner": manner,
            **self._login,
        }
        argv = [sys.executable, LIST_SERVER, json.dumps(wanted)]
        self._child = self._lab.household.start(self._lab.internet_namespace.command(argv), "lists")
        self._child.wait_for("ready")

    def offer(self, body: bytes) -> None:
        """Serve something else from now on."""
        self._body.write_bytes(body)

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
