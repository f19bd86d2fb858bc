"""The lab: a gateway's namespace, an internet, servers and a LAN, built and removed as one."""

import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.capture import Capture
from tests.lab.frames import Frame, Judgement, wireguard_to
from tests.lab.gateway import Gateway
from tests.lab.hosts import Address, Services, dns
from tests.lab.internet import Uplink, build_internet, build_lan, build_uplink, serve
from tests.lab.namespace import NETNS_DIRECTORY, Namespace, connect
from tests.lab.process import Household
from tests.lab.server import PORT, Keys, Server, kernel_has_wireguard
from tests.lab.workload import Workload

DOCKER_ANSWERS = {"A": "198.51.100.10", "AAAA": "2001:db8:100::10"}
VAULT = (sys.executable, "-m", "gateway", "vault")
_PREFIX = "pcl"
_numbers = itertools.count(1)


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
        other_users: bool = False,
    ) -> None:
        """Describe a lab; entering it as a context manager builds it.

        `implementation` is the servers': auto (the kernel's WireGuard where there is one),
        kernelspace or userspace. With `other_users`, another user namespace than ours owns the
        gateway's network.
        """
        self._stack = ExitStack()
        self.prefix = f"{_PREFIX}{os.getpid()}x{next(_numbers)}"
        self.household = Household(self.prefix)
        self._stack.callback(self.household.close)
        self.gateway_namespace = Namespace(f"{self.prefix}-gateway")
        self.gateway_namespace.is_others = other_users
        self.internet_namespace = Namespace(f"{self.prefix}-internet")
        self.lan_namespace = Namespace(f"{self.prefix}-lan")
        self.vault_namespace = Namespace(f"{self.prefix}-vault")
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
    def vault_workload(self) -> Workload:
        """A workload in the vault's namespace with Docker's default capabilities."""
        return Workload(self.vault_namespace, self.household)

    @property
    def operator(self) -> Workload:
        """A process in the gateway's namespace with all capabilities: another program."""
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

    def vault(self, **options: Any) -> Gateway:
        """Return a container that runs `gateway vault`, in a namespace without uplinks."""
        options = {"argv": VAULT, "pid_namespace": True} | options
        made = Gateway(self.vault_namespace, self.household, self.server, self.client, **options)
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
        made = build_uplink(
            self.internet_namespace, self.gateway_namespace, len(self.uplinks), self.household
        )
        self.uplinks.append(made)
        return made

    def detach_uplink(self, uplink: Uplink) -> None:
        """Take a network away, as `docker network disconnect` does."""
        self.internet_namespace.ip(f"link del {uplink.far_end}")

    def docker_resolver(self, **answers: str) -> Services:
        """Stand in for Docker's embedded resolver: 127.0.0.11 in the gateway's namespace.

        `answers` gives the addresses for A and for AAAA, by default those of an internet host.

        As Docker does it: the resolver listens on a high port, and an `ip nat` table of the
        namespace leads port 53 there, so that a filter sees the high port.
        """
        port = 43211
        services = Services(
            self.gateway_namespace,
            [dns("127.0.0.11", port, **(answers or DOCKER_ANSWERS))],
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
            self.vault_namespace,
            *(server.namespace for server in self.servers),
        ]

    def _build(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Namespace.create, self._namespaces()))
        self.gateway_namespace.sysctl("ipv4/ping_group_range", "0 2147483647")  # as Docker does
        self.vault_namespace.sysctl("ipv4/ping_group_range", "0 2147483647")
        build_internet(self.internet_namespace)
        build_lan(self.internet_namespace, self.lan_namespace)
        self._services = serve(self.internet_namespace, self.lan_namespace, self.household)
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


def sweep() -> list[str]:
    """Remove what labs of processes that are gone have left behind; return their namespaces."""
    places = [NETNS_DIRECTORY, Path(tempfile.gettempdir()), Path("/var/run/wireguard")]
    removed = []
    for path in [path for place in places for path in place.glob(f"{_PREFIX}*")]:
        found = re.match(rf"{_PREFIX}(\d+)x\d+", path.name)
        if not found or Path("/proc", found[1]).exists():
            continue
        if path.parent == NETNS_DIRECTORY:
            Namespace(path.name).delete()
            removed.append(path.name)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return removed
