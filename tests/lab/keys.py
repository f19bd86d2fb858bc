"""Private Internet Access in the lab: a list, a login, and servers that have to be given a key."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.lab.process import Child
from tests.lab.server import INSIDE, Server
from tests.lab.topology import Lab

KEY_SERVER = str(Path(__file__).with_name("key_server.py"))
PORT_SIGNER = str(Path(__file__).with_name("port_signer.py"))
LIST = "serverlist.piaservers.net"
LOGIN = "www.privateinternetaccess.com"
PORT = 1337
SIGNING_PORT = 19999
SIGNED = 47047
DAY = 86_400
USER, PASSWORD, TOKEN = "p7654321", "pass word&=%ü", "abcdef0123456789" * 8
FORM = urlencode({"username": USER, "password": PASSWORD})
REGIONS = ("Netherlands", "Germany", "Sweden")
SIGNATURE = b"\n\nc2lnbmF0dXJl\n"


def name_of(server: Server) -> str:
    """Return the name of a server's certificate."""
    return f"{REGIONS[server.number - 1].lower()}40{server.number}"


def client_of(server: Server) -> str:
    """Return the address that a server gives to every key: another one for each server."""
    return f"10.64.{server.number}.7"


def listed(servers: Sequence[Server]) -> bytes:
    """Return the list of the lab's servers, one a region."""
    regions = [
        {
            "id": server.number,
            "name": REGIONS[server.number - 1],
            "country": "NL",
            "dns": f"{server.number}.privacy.example",
            "port_forward": server.number == 1,
            "offline": False,
            "servers": {"wg": [{"ip": server.endpoint.ipv4, "cn": name_of(server)}]},
        }
        for server in servers
    ]
    return json.dumps({"groups": {}, "regions": regions}).encode() + SIGNATURE


class KeyHost:
    """What takes keys for one WireGuard server, at the server's own address."""

    def __init__(self, lab: Lab, server: Server, certificate: Path) -> None:
        """Prepare for `serve`; the server has its exit for the address of `client_of` too."""
        self._lab = lab
        self._server = server
        self.certificate = certificate
        self._child: Child | None = None
        self._route()
        server.namespace.nft(
            f"""
            table inet given {{
                chain departure {{
                    type nat hook postrouting priority srcnat; policy accept;
                    oifname "eth0" ip saddr {client_of(server)} snat ip to {server.exit.ipv4}
                }}
            }}
            """
        )

    def _route(self) -> None:
        server = self._server
        server.namespace.ip(
            f"route replace {client_of(server)}/32 dev {server.interface} src {INSIDE.ipv4}"
        )

    def serve(self, manner: str = "well", **answer: Any) -> "KeyHost":
        """Begin to take keys in this manner; `answer` replaces what is answered."""
        server = self._server
        usual = {
            "status": "OK",
            "server_key": server.keys.public,
            "server_port": server.port,
            "server_ip": server.endpoint.ipv4,
            "server_vip": INSIDE.ipv4,
            "peer_ip": client_of(server),
            "dns_servers": [INSIDE.ipv4],
        }
        wanted = {
            "address": server.endpoint.ipv4,
            "port": PORT,
            "certificate": str(self.certificate),
            "token": TOKEN,
            "interface": server.interface,
            "client": client_of(server),
            "answer": usual | answer,
            "manner": manner,
        }
        argv = [sys.executable, KEY_SERVER, json.dumps(wanted)]
        self._child = self._lab.household.start(server.namespace.command(argv), "keys")
        self._child.wait_for("ready")
        return self

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far."""
        lines = self._child.output().splitlines() if self._child else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def forget(self) -> None:
        """Restart WireGuard, which knows none of the keys any more."""
        self._server.restart()
        self._route()

    def close(self) -> None:
        """Take no more keys."""
        if self._child:
            self._child.close()


class PortHost:
    """What signs ports in the tunnel of a WireGuard server, and forwards them to its exit."""

    def __init__(self, lab: Lab, server: Server, certificate: Path, **settings: Any) -> None:
        """Serve at the server's address in the tunnel; `settings` are those of `port_signer`."""
        self._settings: dict[str, Any] = {
            "token": TOKEN,
            "port": SIGNED,
            "expires": time.time() + 60 * DAY,
        }
        self._file = lab.household.file("signer.json")
        self.set(**settings)
        wanted = {
            "address": INSIDE.ipv4,
            "port": SIGNING_PORT,
            "certificate": str(certificate),
            "exit": server.exit.ipv4,
            "settings": str(self._file),
        }
        argv = [sys.executable, PORT_SIGNER, json.dumps(wanted)]
        self._child = lab.household.start(server.namespace.command(argv), "signer")
        self._child.wait_for("ready")

    def set(self, **settings: Any) -> None:
        """Answer otherwise from now on."""
        self._settings |= settings
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._settings), "ascii")
        new.rename(self._file)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far."""
        lines = self._child.output().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def paths(self) -> list[str]:
        """What was asked for so far."""
        return [str(it["path"]) for it in self.requests]
