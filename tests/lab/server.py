"""A WireGuard server with an exit of its own, and the ways in which a server fails."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import delay
from tests.lab.errors import LabError
from tests.lab.hosts import Address, Services, dns, echo, http
from tests.lab.namespace import Namespace
from tests.lab.process import Child, Household, eventually, run

PORT = 51820
CLIENT = Address("10.64.0.2", "fd64::2")
"""The gateway's addresses inside every server's tunnel."""
INSIDE = Address("10.64.0.1", "fd64::1")
"""The server's addresses inside the tunnel; its resolver listens there."""
RESOLVED = Address("198.51.100.10", "2001:db8:100::10")
"""What the resolver inside the tunnel answers: an internet host."""


@dataclass(frozen=True)
class Keys:
    """A WireGuard key pair in base64."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> "Keys":
        """Make a new pair with the `wg` tool."""
        private = run(["wg", "genkey"]).strip()
        return cls(private, run(["wg", "pubkey"], stdin=private).strip())


def kernel_has_wireguard(namespace: Namespace) -> bool:
    """Return whether a link of type wireguard can be made."""
    namespace.run("ip", "link", "add", "wgprobe", "type", "wireguard", check=False)
    made = "wgprobe" in namespace.run("ip", "-o", "link", "show", "type", "wireguard", check=False)
    namespace.run("ip", "link", "del", "wgprobe", check=False)
    return made


def wait_for_socket(interface: str) -> None:
    """Wait until the wireguard-go of `interface` takes connections.

    That its socket exists is not enough: a `wg` that comes before the daemon listens takes the
    socket for a leftover and removes it (wireguard-tools, ipc-uapi-unix.h).
    """
    path = f"/var/run/wireguard/{interface}.sock"

    def listening() -> bool:
        with socket.socket(socket.AF_UNIX) as outlet:
            return outlet.connect_ex(path) == 0

    eventually(listening, timeout=5, what=path, interval=0.003)


class Server:
    """One server in its own namespace: endpoint, exit and resolver.

    The exit has addresses of its own, so that an echo shows whether a packet left there, from the
    endpoint or from the gateway.
    """

    def __init__(
        self, namespace: Namespace, number: int, household: Household, interface: str, client: Keys
    ) -> None:
        """Describe server `number`; `up` starts it.

        `interface` must be unique on the machine: the socket of wireguard-go has its name.
        """
        self.namespace = namespace
        self.number = number
        self.interface = interface
        self._household = household
        self.client = client
        self.keys = Keys.generate()
        self.preshared_key = run(["wg", "genpsk"]).strip()
        base = (number - 1) * 32
        self.router = Address(f"192.0.2.{base + 1}", f"2001:db8:{number + 1}::1")
        self.endpoint = Address(f"192.0.2.{base + 10}", f"2001:db8:{number + 1}::10")
        self.exit = Address(f"192.0.2.{base + 20}", f"2001:db8:{number + 1}::20")
        self.port = PORT
        self.implementation = "userspace"
        self._daemon: Child | None = None
        self._services: Services | None = None

    def up(self, implementation: str) -> None:
        """Configure the namespace (its eth0 exists), and start WireGuard and the resolver."""
        self.implementation = implementation
        for name in (
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/conf/all/promote_secondaries",  # `move` takes the first address away
        ):
            self.namespace.sysctl(name, 1)
        for name in ("ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"):
            self.namespace.sysctl(name, 0)
        self.namespace.ip(
            "link set eth0 up",
            *(f"addr add {a}/27 dev eth0" for a in (self.endpoint.ipv4, self.exit.ipv4)),
            *(f"addr add {a}/64 dev eth0 nodad" for a in (self.endpoint.ipv6, self.exit.ipv6)),
            # On loopback, so that the resolver outlives the tunnel's interface.
            f"addr add {INSIDE.ipv4}/32 dev lo",
            f"addr add {INSIDE.ipv6}/128 dev lo nodad",
            f"route add default via {self.router.ipv4} src {self.endpoint.ipv4}",
            f"route add default via {self.router.ipv6} src {self.endpoint.ipv6}",
        )
        self._services = Services(
            self.namespace,
            [
                service
                for address in INSIDE
                for service in (
                    dns(address, A=RESOLVED.ipv4, AAAA=RESOLVED.ipv6),
                    echo(address),
                    http(address),
                )
            ],
            self._household,
        )
        self._load_rules()
        self.start()
        self._services.wait()

    def start(self) -> None:
        """Start WireGuard, at first or again, with the same keys."""
        if self.implementation == "kernelspace":
            self.namespace.ip(f"link add {self.interface} type wireguard")
        else:
            self._start_daemon()
        self.namespace.run(
            "wg", "setconf", self.interface, "/dev/stdin",
            stdin=(
                f"[Interface]\nPrivateKey = {self.keys.private}\nListenPort = {self.port}\n"
                f"[Peer]\nPublicKey = {self.client.public}\nPresharedKey = {self.preshared_key}\n"
                f"AllowedIPs = {CLIENT.ipv4}/32, {CLIENT.ipv6}/128\n"
            ),
        )  # fmt: skip
        self.namespace.ip(
            f"link set {self.interface} mtu 1420 up",
            f"route replace {CLIENT.ipv4}/32 dev {self.interface} src {INSIDE.ipv4}",
            f"route replace {CLIENT.ipv6}/128 dev {self.interface} src {INSIDE.ipv6}",
        )

    def kill(self) -> None:
        """End WireGuard at once, as a crash does; the host itself stays reachable."""
        if self._daemon is not None:
            self._daemon.signal(9)
            self._daemon.wait()
            self._daemon.close()
            self._daemon = None
            Path(f"/var/run/wireguard/{self.interface}.sock").unlink(missing_ok=True)
        else:
            self.namespace.ip(f"link del {self.interface}")

    def restart(self) -> None:
        """Crash and start again: the sessions are gone, the keys are the same."""
        self.kill()
        self.start()

    def cut(self, direction: str = "both") -> None:
        """Drop the encrypted flow silently: `both` ways, only towards it (in) or from it (out)."""
        self._fault({"both": ("in", "out")}.get(direction, (direction,)), "drop")

    def lossy(self, percent: int) -> None:
        """Drop this share of the encrypted packets in each direction, at random."""
        self._fault(("in", "out"), f"numgen random mod 100 < {percent} drop")

    def restore(self) -> None:
        """End `cut` and `lossy`."""
        self._fault((), "")

    def delay(self, seconds: float) -> None:
        """Let packets to the IPv4 endpoint take this much longer, until the lab is closed."""
        hidden = self.port + 1
        self.namespace.ip("link set lo up")
        self.namespace.run("wg", "set", self.interface, "listen-port", str(hidden))
        way = (self.endpoint.ipv4, str(self.port), str(hidden), str(seconds))
        argv = [sys.executable, "-I", "-S", delay.__file__, *way]
        self._household.start(self.namespace.command(argv), f"delay{self.number}").wait_for("ready")

    def cut_exit(self) -> None:
        """Drop what leaves or enters the tunnel while handshakes go on: a server without exit."""
        self.namespace.nft(
            f"""
            add table inet exit_fault
            delete table inet exit_fault
            table inet exit_fault {{
                chain arrival {{
                    type filter hook prerouting priority -300;
                    iifname "{self.interface}" drop
                }}
            }}
            """
        )

    def restore_exit(self) -> None:
        """End `cut_exit`."""
        self.namespace.nft("add table inet exit_fault\ndelete table inet exit_fault\n")

    def move(self, host: int) -> Address:
        """Give the endpoint another last number (below 32) and return the new addresses."""
        base = (self.number - 1) * 32
        new = Address(f"192.0.2.{base + host}", f"2001:db8:{self.number + 1}::{host}")
        self.namespace.ip(
            f"addr add {new.ipv4}/27 dev eth0",
            f"addr add {new.ipv6}/64 dev eth0 nodad",
            f"route replace default via {self.router.ipv4} src {new.ipv4}",
            f"route replace default via {self.router.ipv6} src {new.ipv6}",
            f"addr del {self.endpoint.ipv4}/27 dev eth0",
            f"addr del {self.endpoint.ipv6}/64 dev eth0",
        )
        self.endpoint = new
        return new

    def forward_port(self, port: int) -> None:
        """Forward TCP and UDP `port` of the exit's addresses to the client in the tunnel."""
        self._load_rules(port)

    def queries(self, **wanted: object) -> list[dict[str, object]]:
        """Return the DNS queries that came through the tunnel (see Services.events)."""
        if self._services is None:
            return []
        return [e for e in self._services.events(kind="dns", **wanted) if "name" in e]

    def peer(self) -> dict[str, object]:
        """Return the peer's `endpoint`, `handshake` (wall clock), `received` and `sent`."""
        dump = self.namespace.run("wg", "show", self.interface, "dump").splitlines()
        if len(dump) != 2:
            raise LabError(f"unexpected: {dump[1:]}")
        _, _, endpoint, _, handshake, received, sent, _ = dump[1].split("\t")
        return {
            "endpoint": endpoint,
            "handshake": int(handshake),
            "received": int(received),
            "sent": int(sent),
        }

    def close(self) -> None:
        """Stop WireGuard; wireguard-go then takes its socket away."""
        if self._daemon is not None:
            self._daemon.close()

    def _start_daemon(self) -> None:
        self._daemon = self._household.start(
            self.namespace.command(["wireguard-go", "-f", self.interface]),
            f"wireguard{self.number}",
            env={"PATH": os.environ["PATH"], "LOG_LEVEL": "error"},
        )
        wait_for_socket(self.interface)

    def _load_rules(self, forwarded_port: int | None = None) -> None:
        forward = ""
        if forwarded_port is not None:
            port = f"meta l4proto {{ tcp, udp }} th dport {forwarded_port}"
            forward = (
                f"ip daddr {self.exit.ipv4} {port} dnat ip to {CLIENT.ipv4}; "
                f"ip6 daddr {self.exit.ipv6} {port} dnat ip6 to {CLIENT.ipv6};"
            )
        self.namespace.nft(
            f"""
            add table inet exit
            delete table inet exit
            table inet exit {{
                chain arrival {{
                    type nat hook prerouting priority dstnat; policy accept; {forward}
                }}
                chain departure {{
                    type nat hook postrouting priority srcnat; policy accept;
                    oifname "eth0" ip saddr {CLIENT.ipv4} snat ip to {self.exit.ipv4}
                    oifname "eth0" ip6 saddr {CLIENT.ipv6} snat ip6 to {self.exit.ipv6}
                }}
            }}
            """
        )

    def _fault(self, directions: Sequence[str], action: str) -> None:
        chains = {
            "in": "chain in { type filter hook input priority -10; "
            f"udp dport {self.port} {action}; }}",
            "out": "chain out { type filter hook output priority -10; "
            f"udp sport {self.port} {action}; }}",
        }
        body = "\n".join(chains[direction] for direction in directions)
        self.namespace.nft(
            f"add table inet fault\ndelete table inet fault\ntable inet fault {{\n{body}\n}}\n"
        )
