"""The lab: a gateway's namespace, an internet, servers and a LAN, built and removed as one."""

import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.capture import Capture
from tests.lab.frames import Frame, Judgement, is_neighbour_discovery, wireguard_to
from tests.lab.gateway import Gateway
from tests.lab.hosts import Address, Services, dns, echo, http
from tests.lab.namespace import NETNS_DIRECTORY, Namespace, connect
from tests.lab.process import Household
from tests.lab.server import PORT, Keys, Server, kernel_has_wireguard
from tests.lab.workload import Workload

INTERNET = (
    Address("198.51.100.10", "2001:db8:100::10"),
    Address("203.0.113.10", "2001:db8:113::10"),
)
"""Hosts with echo (7), http (80) and dns (53)."""
OUTSIDER = Address("203.0.113.66", "2001:db8:113::66")
"""A client whose address stands in no list; bind probes of `lab.internet` to it."""
LAN_HOST = Address("192.168.77.10", "fd77::10")
"""A host with echo (7), http (80) and dns (53 and 853)."""
LAN_SUBNETS = Address("192.168.77.0/24", "fd77::/64")
LAN_ROUTER = Address("192.168.77.1", "fd77::1")
OTHER_LAN_HOST = Address("192.168.78.10", "fd78::10")
"""A private host outside LAN_SUBNETS, reached through the LAN's router, with the same services."""

_PREFIX = "pcl"
_MOST_UPLINKS = 4
_numbers = itertools.count(1)


def router_address(number: int) -> Address:
    """Return the router's address on uplink `number`."""
    return Address(f"172.{30 + number}.0.1", f"fd{30 + number}::1")


@dataclass(frozen=True)
class Uplink:
    """One network that the gateway's namespace is attached to; the router is its .1."""

    name: str
    """Interface in the gateway's namespace."""
    number: int
    gateway: Address
    router: Address
    networks: tuple[str, str]
    gateway_mac: str
    router_mac: str
    capture: Capture

    @property
    def far_end(self) -> str:
        """Interface of the router's side of the link."""
        return f"up{self.number}"


class Lab:
    """All namespaces of one test; a context manager that leaves nothing behind.

    Several labs stand side by side: names of namespaces begin with a prefix of this process
    and number, names of links are private to their namespace.
    """

    def __init__(
        self,
        *,
        uplinks: int = 1,
        servers: int = 1,
        implementation: str = "auto",
    ) -> None:
        """Describe a lab; entering it as a context manager builds it.

        `implementation` is the servers': auto (the kernel's WireGuard where there is one),
        kernelspace or userspace.
        """
        self._stack = ExitStack()
        self.prefix = f"{_PREFIX}{os.getpid()}x{next(_numbers)}"
        self.household = Household(self.prefix)
        self._stack.callback(self.household.close)
        self.gateway_namespace = Namespace(f"{self.prefix}-gateway")
        self.internet_namespace = Namespace(f"{self.prefix}-internet")
        self.lan_namespace = Namespace(f"{self.prefix}-lan")
        self.client = Keys.generate()
        self.servers = [
            Server(
                Namespace(f"{self.prefix}-server{number}"),
                number,
                self.household,
                f"{self.prefix}s{number}",
                self.client,
            )
            for number in range(1, servers + 1)
        ]
        self.uplinks: list[Uplink] = []
        self._wanted_uplinks = uplinks
        self._implementation = implementation
        self._services: dict[str, Services] = {}

    def __enter__(self) -> Self:
        """Build everything; what was built is removed again when a step fails."""
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything."""
        self.close()

    def close(self) -> None:
        """End every process, then remove namespaces and files."""
        try:
            self._stack.close()
        finally:
            for namespace in self._namespaces():
                namespace.delete()

    @property
    def server(self) -> Server:
        """The first server."""
        return self.servers[0]

    @property
    def uplink(self) -> Uplink:
        """The first uplink, eth0, which has the default routes."""
        return self.uplinks[0]

    @property
    def capture(self) -> Capture:
        """The capture at the far end of eth0, recording from before the link came up."""
        return self.uplink.capture

    @property
    def workload(self) -> Workload:
        """A workload in the gateway's namespace with Docker's default capabilities."""
        return Workload(self.gateway_namespace, self.household)

    @property
    def operator(self) -> Workload:
        """A process in the gateway's namespace with all capabilities: foreign hands."""
        return Workload(self.gateway_namespace, self.household, capabilities=None)

    @property
    def internet(self) -> Workload:
        """A place to ask from: the internet, the router and the uplinks' neighbour."""
        return Workload(self.internet_namespace, self.household, capabilities=None)

    @property
    def lan(self) -> Workload:
        """A place to ask from: the LAN host."""
        return Workload(self.lan_namespace, self.household, capabilities=None)

    def gateway(self, **options: Any) -> Gateway:
        """Return a gateway to start in the gateway's namespace; options as in Gateway."""
        made = Gateway(self.gateway_namespace, self.household, self.server, self.client, **options)
        self._stack.callback(made.close)
        return made

    def arrivals(self, place: str = "internet", **wanted: object) -> list[dict[str, object]]:
        """Return what the services of `internet` or `lan` have received (see Services.events)."""
        return self._services[place].events(**wanted)

    def leaks(
        self,
        since: float = 0.0,
        *,
        endpoints: Sequence[Address] | None = None,
        allowed: Sequence[Judgement] = (),
    ) -> list[Frame]:
        """Return the frames on any uplink that are neither encrypted nor `allowed`.

        `endpoints` are the servers that may be spoken to, by default all of the lab's.
        """
        if endpoints is None:
            endpoints = [server.endpoint for server in self.servers]
        flows = [wireguard_to(ip, PORT) for endpoint in endpoints for ip in endpoint]
        return [
            frame
            for uplink in self.uplinks
            for frame in uplink.capture.leaks([*flows, *allowed], since)
        ]

    def attach_uplink(self) -> Uplink:
        """Attach the gateway's namespace to one more network, as `docker network connect` does.

        The capture records before the new link is up. Only the first network gives default routes.
        """
        number = len(self.uplinks)
        name, far_end = f"eth{number}", f"up{number}"
        gateway = Address(f"172.{30 + number}.0.2", f"fd{30 + number}::2")
        router = router_address(number)
        connect(self.internet_namespace, far_end, self.gateway_namespace, name)
        networks = (f"172.{30 + number}.0.0/24", f"fd{30 + number}::/64")

        def neighbours(frame: Frame) -> bool:
            return is_neighbour_discovery(frame, set(gateway), networks)

        self.internet_namespace.ip(
            f"link set {far_end} address 02:00:00:00:{number:02x}:01 up",
            f"addr add {router.ipv4}/24 dev {far_end}",
            f"addr add {router.ipv6}/64 dev {far_end} nodad",
        )
        capture = Capture(
            far_end,
            self.household,
            enter=self.internet_namespace.command,
            neighbours=neighbours,
        )
        self.gateway_namespace.ip(
            f"link set {name} address 02:00:00:00:{number:02x}:02",
            f"addr add {gateway.ipv4}/24 brd + dev {name}",
            f"link set {name} up",
            f"addr add {gateway.ipv6}/64 dev {name} nodad",
            *(
                [f"route add default via {router.ipv4}", f"route add default via {router.ipv6}"]
                if number == 0
                else []
            ),
        )
        uplink = Uplink(
            name, number, gateway, router, networks,
            f"02:00:00:00:{number:02x}:02", f"02:00:00:00:{number:02x}:01", capture,
        )  # fmt: skip
        self.uplinks.append(uplink)
        return uplink

    def detach_uplink(self, uplink: Uplink) -> None:
        """Take a network away, as `docker network disconnect` does."""
        self.internet_namespace.ip(f"link del {uplink.far_end}")

    def docker_resolver(self) -> Services:
        """Stand in for Docker's embedded resolver: 127.0.0.11 in the gateway's namespace.

        As Docker does it: the resolver listens on a high port, and an `ip nat` table of the
        namespace leads port 53 there, so that a filter sees the high port.
        """
        port = 43211
        services = Services(
            self.gateway_namespace,
            [dns("127.0.0.11", port, A="198.51.100.10", AAAA="2001:db8:100::10")],
            self.household,
        )
        self.gateway_namespace.nft(
            f"""
            table ip nat {{
                chain OUTPUT {{
                    type nat hook output priority -100; policy accept;
                    ip daddr 127.0.0.11 meta l4proto {{ tcp, udp }} th dport 53 \
                        dnat to 127.0.0.11:{port}
                }}
                chain POSTROUTING {{
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr 127.0.0.11 tcp sport {port} snat to :53
                    ip saddr 127.0.0.11 udp sport {port} snat to :53
                }}
            }}
            """
        )
        return services.wait()

    def _namespaces(self) -> list[Namespace]:
        return [
            self.gateway_namespace,
            self.internet_namespace,
            self.lan_namespace,
            *(server.namespace for server in self.servers),
        ]

    def _build(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Namespace.create, self._namespaces()))
        self.gateway_namespace.sysctl("ipv4/ping_group_range", "0 2147483647")  # as Docker does
        self._build_internet()
        self._build_lan()
        self._serve()
        if self._implementation == "auto":
            available = kernel_has_wireguard(self.internet_namespace)
            self._implementation = "kernelspace" if available else "userspace"
        for server in self.servers:
            self._stack.callback(server.close)
            connect(self.internet_namespace, f"srv{server.number}", server.namespace, "eth0")
            self.internet_namespace.ip(
                f"addr add {server.router.ipv4}/27 dev srv{server.number}",
                f"addr add {server.router.ipv6}/64 dev srv{server.number} nodad",
                f"link set srv{server.number} up",
            )
        for _ in range(self._wanted_uplinks):
            self.attach_uplink()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.up(self._implementation), self.servers))
        for services in self._services.values():
            services.wait()

    def _build_internet(self) -> None:
        for name, value in {
            "ipv4/ip_forward": 1,
            "ipv6/conf/all/forwarding": 1,
            "ipv4/conf/all/rp_filter": 0,
            "ipv4/conf/default/rp_filter": 0,
            "ipv4/conf/all/send_redirects": 0,
            "ipv4/conf/default/send_redirects": 0,
            "ipv4/icmp_ratelimit": 0,
            # Services listen on the router's addresses before their links exist.
            "ipv4/ip_nonlocal_bind": 1,
            "ipv6/ip_nonlocal_bind": 1,
        }.items():
            self.internet_namespace.sysctl(name, value)
        hosts = (*INTERNET, OUTSIDER)
        self.internet_namespace.ip(
            *(f"addr add {host.ipv4}/32 dev lo" for host in hosts),
            *(f"addr add {host.ipv6}/128 dev lo nodad" for host in hosts),
        )

    def _build_lan(self) -> None:
        connect(self.internet_namespace, "lan0", self.lan_namespace, "eth0")
        self.internet_namespace.ip(
            f"addr add {LAN_ROUTER.ipv4}/24 dev lan0",
            f"addr add {LAN_ROUTER.ipv6}/64 dev lan0 nodad",
            "link set lan0 up",
            f"route add {OTHER_LAN_HOST.ipv4}/32 via {LAN_HOST.ipv4}",
        )
        self.lan_namespace.ip(
            f"addr add {LAN_HOST.ipv4}/24 dev eth0",
            f"addr add {LAN_HOST.ipv6}/64 dev eth0 nodad",
            f"addr add {OTHER_LAN_HOST.ipv4}/32 dev lo",
            f"addr add {OTHER_LAN_HOST.ipv6}/128 dev lo nodad",
            "link set eth0 up",
            f"route add default via {LAN_ROUTER.ipv4}",
            f"route add default via {LAN_ROUTER.ipv6}",
        )
        self.internet_namespace.ip(f"route add {OTHER_LAN_HOST.ipv6}/128 via {LAN_HOST.ipv6}")

    def _serve(self) -> None:
        internet = [
            service
            for host in INTERNET
            for address in host
            for service in (
                echo(address),
                http(address),
                dns(address, A=INTERNET[0].ipv4, AAAA=INTERNET[0].ipv6),
            )
        ]
        # The router's own: a neighbour on each uplink, with a resolver.
        router = [
            service
            for number in range(_MOST_UPLINKS)
            for address in router_address(number)
            for service in (
                echo(address),
                http(address),
                dns(address, A=INTERNET[1].ipv4, AAAA=INTERNET[1].ipv6),
            )
        ]
        lan = [
            service
            for host in (LAN_HOST, OTHER_LAN_HOST)
            for address in host
            for service in (
                echo(address),
                http(address),
                dns(address, A=LAN_HOST.ipv4, AAAA=LAN_HOST.ipv6),
                dns(address, 853, A=LAN_HOST.ipv4, AAAA=LAN_HOST.ipv6),
            )
        ]
        for name, namespace, listed in (
            ("internet", self.internet_namespace, internet + router),
            ("lan", self.lan_namespace, lan),
        ):
            self._services[name] = Services(namespace, listed, self.household)


def sweep() -> list[str]:
    """Remove what labs of processes that are gone have left behind, and return its names."""
    removed = []
    directory = NETNS_DIRECTORY
    for path in directory.glob(f"{_PREFIX}*") if directory.exists() else ():
        found = re.match(rf"{_PREFIX}(\d+)x\d+-", path.name)
        if found and not Path("/proc", found[1]).exists():
            Namespace(path.name).delete()
            removed.append(path.name)
    return removed
