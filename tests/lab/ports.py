"""The server of forwarded ports in the lab, next to the WireGuard server, and a real one."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from tests.lab import port_server
from tests.lab.server import INSIDE
from tests.lab.topology import Lab

PORT = 5351


class PortServer:
    """`port_server` in the tunnel of the lab's server; `settings` are described there."""

    def __init__(self, lab: Lab, **settings: object) -> None:
        self._file = lab.household.file("ports.json")
        self.settings: dict[str, object] = {}
        self.set(**settings)
        program = (sys.executable, "-I", "-S", port_server.__file__)
        words = (INSIDE.ipv4, str(PORT), lab.server.exit.ipv4, str(self._file))
        self._child = lab.household.start(lab.server.namespace.command([*program, *words]), "ports")
        self._child.wait_for("ready")

    def set(self, **settings: object) -> None:
        """Change settings."""
        self.settings |= settings
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.settings), "utf-8")
        new.rename(self._file)

    def requests(self, **wanted: object) -> Sequence[dict[str, Any]]:
        """Return the requests so far that have these fields."""
        lines = map(json.loads, self._child.output().splitlines())
        return [it for it in lines if "at" in it and wanted.items() <= it.items()]


MINIUPNPD = """
ext_ifname=eth0
ext_ip={exit}
listening_ip={inside}/24
enable_natpmp=yes
enable_upnp=no
secure_mode=yes
system_uptime=yes
notify_interval=3600
uuid=00000000-0000-0000-0000-000000000000
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=forward
upnp_nat_chain=prerouting
upnp_nat_postrouting_chain=postrouting
allow 1024-65535 10.64.0.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
CHAINS = """
table inet miniupnpd {
    chain forward { type filter hook forward priority 0; policy accept; }
    chain prerouting { type nat hook prerouting priority dstnat - 1; policy accept; }
    chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
}
"""


REAL_EXIT = "11.0.0.1"
"""miniupnpd refuses to forward ports of an address that cannot be on the internet."""


def start_miniupnpd(lab: Lab) -> str:
    """Run a real miniupnpd at the server's address inside the tunnel; return its public address."""
    server = lab.server
    server.namespace.ip(f"addr add {REAL_EXIT}/32 dev eth0")
    lab.internet_namespace.ip(f"route add {REAL_EXIT}/32 via {server.endpoint.ipv4}")
    server.namespace.nft(CHAINS)
    config = lab.household.file("miniupnpd.conf")
    config.write_text(MINIUPNPD.format(exit=REAL_EXIT, inside=INSIDE.ipv4), "utf-8")
    log = lab.household.file("miniupnpd.log")
    pid = lab.household.file("miniupnpd.pid")
    argv = ["miniupnpd", "-d", "-f", str(config), "-P", str(pid)]
    lab.household.start(server.namespace.command(argv), "miniupnpd", log=log)
    return REAL_EXIT


def mapped_by(lab: Lab) -> set[tuple[str, int]]:
    """Return the transports and public ports that miniupnpd forwards."""
    listed = lab.server.namespace.run("nft", "list", "chain", "inet", "miniupnpd", "prerouting")
    found = re.findall(r"(tcp|udp|0x11|0x6)\b.* dport (\d+)", listed)
    names = {"0x6": "tcp", "0x11": "udp"}  # nft may not know what it compares
    return {(names.get(protocol, protocol), int(port)) for protocol, port in found}
