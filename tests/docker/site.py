"""The place where the containers run: a machine with Docker, its networks, and what is around it.

    LAN host --- machine ---(uplink)--- gateway, server, an ordinary container
    (a namespace) (dockerd's namespace)
                    |-------(beyond)--- server's exit, a host of the internet

The server and the gateway are neighbours on one Docker network, because Docker lets no packet from
one of its networks into another; to the gateway's rules the server is as far as any other address.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.engine import Engine
from tests.docker.hosts import names
from tests.docker.images import LAB, ROOT
from tests.lab.capture import Capture
from tests.lab.errors import LabError
from tests.lab.frames import Frame, Judgement, is_neighbour_discovery, leaks, wireguard_to
from tests.lab.hosts import Address, Services, dns, echo
from tests.lab.namespace import NETNS_DIRECTORY, Namespace, connect
from tests.lab.process import Household
from tests.lab.server import Keys
from tests.lab.workload import Workload

UPLINK, UPLINK_NETWORKS = "uplink", ("172.31.10.0/24", "fd31:10::/64")
UPLINK_ROUTER = "172.31.10.1"
BEYOND, BEYOND_NETWORKS = "beyond", ("198.18.20.0/24", "2001:db8:20::/64")
SERVER = Address("172.31.10.2", "fd31:10::2")
EXIT = Address("198.18.20.2", "2001:db8:20::2")
HOST = Address("198.18.20.80", "2001:db8:20::80")
INSIDE = Address("10.64.0.1", "fd64::1")
LAN_HOST, LAN_MACHINE, LAN = "192.168.77.10", "192.168.77.1", "192.168.77.0/24"
DOCKER_RESOLVER = "198.51.100.53"
"""Where Docker's embedded resolver sends what it cannot answer: an address of the machine."""
PORT = 51820
_PREFIX = "pcd"
_TEMPORARY = Path(tempfile.gettempdir())


def gateway_address(number: int) -> Address:
    """Return the address of gateway `number` on the uplink."""
    return Address(f"172.31.10.{10 + number}", f"fd31:10::{10 + number}")


def gateway_mac(number: int) -> str:
    """Return the hardware address of gateway `number` on the uplink, known before it starts."""
    return f"02:42:ac:1f:0a:{10 + number:02x}"


def tunnel_address(number: int) -> Address:
    """Return the address of gateway `number` inside the tunnel."""
    return Address(f"10.64.0.{10 + number}", f"fd64::{10 + number}")


class Site:
    """Everything around the gateways; a context manager that leaves nothing behind."""

    def __init__(self, engine: Engine, gateways: int = 3) -> None:
        """Describe a site whose server knows this many gateways."""
        self.engine = engine
        self.household = Household(f"{_PREFIX}{os.getpid()}")
        self.machine_namespace = Namespace(f"{_PREFIX}{os.getpid()}-machine")
        self.lan_namespace = Namespace(f"{_PREFIX}{os.getpid()}-lan")
        self.server_keys = Keys.generate()
        self.gateway_keys = [Keys.generate() for _ in range(gateways)]
        self.server = Box(engine, "server")
        self.host = Box(engine, "host")

    def __enter__(self) -> Self:
        """Start the engine's second run and everything around the gateways."""
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
        """Stop the engine, remove the namespaces."""
        try:
            self.household.close()
            self.engine.stop()
        finally:
            self.lan_namespace.delete()
            self.machine_namespace.delete()

    @property
    def machine(self) -> Workload:
        """A place to ask from: the machine that Docker runs on."""
        return Workload(self.machine_namespace, self.household, capabilities=None)

    @property
    def lan(self) -> Workload:
        """A place to ask from: a host of the LAN that the machine is on."""
        return Workload(self.lan_namespace, self.household, capabilities=None)

    def run(self, name: str, *options: str, image: str = LAB, command: Sequence[str] = ()) -> Box:
        """Start a container in the background, in place of one of that name; see `docker run`."""
        self.engine.docker("rm", "-f", name, check=False)
        self.engine.docker("run", "-d", "-i", "--name", name, *options, image, *command)
        return Box(self.engine, name)

    def capture(self, link: str, neighbours: Judgement | None = None) -> Capture:
        """Record what `link` of the machine receives; `neighbours` is what belongs there."""
        enter = self.machine_namespace.command
        return Capture(link, self.household, enter=enter, neighbours=neighbours)

    def capture_network(self, network: str) -> Capture:
        """Record every frame on one of Docker's networks, also between two containers."""
        bridge = self.bridge(network)
        # Only then the bridge hands itself what it forwards from port to port.
        self.machine_namespace.ip(f"link set {bridge} promisc on")
        return self.capture(bridge)

    def capture_of(self, box: Box, number: int, link: str = "eth0") -> Capture:
        """Record what the machine receives from gateway `number` at the far end of its link."""
        return self.capture(self.link_name(box.far_end(link)), neighbour(number))

    def leaks(self, capture: Capture) -> list[Frame]:
        """Return what a gateway's own link carried besides the encrypted flow.

        Raises LabError when not even that was seen: the capture would prove nothing.
        """
        seen_encrypted(capture.frames())
        return capture.leaks(encrypted())

    def control(self, capture: Capture) -> None:
        """Make sure that a capture of the uplink's bridge sees what a container sends there."""
        self.server.probe("udp", host=UPLINK_ROUTER, marker="control", timeout=0.2)
        if not capture.containing("control"):
            raise LabError(f"the capture of {capture.link} does not see the control")

    def link_name(self, index: int) -> str:
        """Return the name of an interface of the machine by its index."""
        for line in self.machine_namespace.run("ip", "-o", "link").splitlines():
            number, name, *_ = line.split(":")
            if int(number) == index:
                return name.strip().partition("@")[0]
        raise LookupError(index)

    def bridge(self, network: str) -> str:
        """Return the machine's interface of one of Docker's networks."""
        identity = self.engine.docker("network", "inspect", "--format", "{{.Id}}", network)
        return f"br-{identity[:12]}"

    def cut(self) -> None:
        """Drop the encrypted flow silently in both directions."""
        self.server.exec(
            *("nft", "add table inet fault; add chain inet fault in"),
            "{ type filter hook input priority -10; }; add rule inet fault in udp dport 51820 drop",
        )

    def restore(self) -> None:
        """End `cut`."""
        self.server.exec("nft", "add table inet fault; delete table inet fault")

    def _build(self) -> None:
        for namespace in (self.machine_namespace, self.lan_namespace):
            namespace.create()
        self.machine_namespace.ip(f"addr add {DOCKER_RESOLVER}/32 dev lo")
        connect(self.machine_namespace, "lan0", self.lan_namespace, "eth0")
        self.machine_namespace.ip(f"addr add {LAN_MACHINE}/24 dev lan0", "link set lan0 up")
        self.lan_namespace.ip(
            f"addr add {LAN_HOST}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {LAN_MACHINE}",
        )
        self.engine.start(self.machine_namespace, f"--dns={DOCKER_RESOLVER}")
        for name, (ipv4, ipv6) in (
            (UPLINK, UPLINK_NETWORKS),
            (BEYOND, BEYOND_NETWORKS),
        ):
            self.engine.docker(
                "network", "create", "--ipv6", f"--subnet={ipv4}", f"--subnet={ipv6}", name
            )
        self.resolver = self._serve(
            self.machine_namespace,
            dns(
                DOCKER_RESOLVER,
                names={name: {"A": address} for name, address in names(SERVER.ipv4).items()},
                A=HOST.ipv4,
                AAAA=HOST.ipv6,
            ),
        )
        self.lan_services = self._serve(self.lan_namespace, echo("0.0.0.0"))
        self._start_server()
        listed = [echo(address) for address in HOST]
        self.run(
            *("host", "-v", LAB_VOLUME, "--network", BEYOND),
            *("--ip", HOST.ipv4, "--ip6", HOST.ipv6),
            command=[*PYTHON, "/lab/services.py", json.dumps(listed)],
        )

    def _start_server(self) -> None:
        peers = [
            {"public": keys.public, "addresses": list(tunnel_address(number))}
            for number, keys in enumerate(self.gateway_keys)
        ]
        services = [dns(address, A=HOST.ipv4, AAAA=HOST.ipv6) for address in INSIDE]
        given = {
            "private": self.server_keys.private,
            "peers": peers,
            "addresses": [f"{INSIDE.ipv4}/32", f"{INSIDE.ipv6}/128"],
            "services": services,
        }
        self.engine.docker(
            *("create", "-i", "--name", "server", "-v", LAB_VOLUME),
            *("-v", f"{ROOT}/tests/docker/server.py:/server.py:ro"),
            *("--network", UPLINK, "--ip", SERVER.ipv4, "--ip6", SERVER.ipv6),
            *("--cap-add", "NET_ADMIN", "--device", "/dev/net/tun"),
            *("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "net.ipv6.conf.all.forwarding=1"),
            *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0"),  # Docker disables it for new links
            *(LAB, *PYTHON, "/server.py", json.dumps(given)),
        )
        self.engine.docker(
            "network", "connect", "--ip", EXIT.ipv4, "--ip6", EXIT.ipv6, BEYOND, "server"
        )
        self.engine.docker("start", "server")

    def _serve(self, namespace: Namespace, *listed: dict[str, object]) -> Services:
        return Services(namespace, listed, self.household).wait()


def sweep() -> None:
    """Remove the namespaces and directories of sites whose test run was killed."""
    for path in (*NETNS_DIRECTORY.glob(f"{_PREFIX}*"), *_TEMPORARY.glob(f"{_PREFIX}*")):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if Path("/proc", owner).exists():
            continue
        if path.parent == NETNS_DIRECTORY:
            Namespace(path.name).delete()
        else:
            shutil.rmtree(path, ignore_errors=True)


def leaks_of(
    capture: Capture, number: int, since: float = 0.0, allowed: Sequence[Judgement] = ()
) -> list[Frame]:
    """Return what a shared link carried from gateway `number` besides the encrypted flow.

    For a capture that began before the gateway did: it sees its link come up. Raises LabError when
    not even the encrypted flow was seen.
    """
    mac = gateway_mac(number)
    own = [frame for frame in capture.frames(since) if frame.source_mac == mac]
    seen_encrypted(own)
    return leaks(own, [*encrypted(), neighbour(number), is_link_setup, *allowed])


def seen_encrypted(frames: Sequence[Frame]) -> None:
    """Raise LabError unless the encrypted flow is among the frames."""
    if not any(judge(frame) for frame in frames for judge in encrypted()):
        raise LabError("the capture did not even see the encrypted flow: it proves nothing")


def neighbour(number: int) -> Judgement:
    """Return the judgement that allows neighbour discovery of gateway `number` on the uplink."""
    addresses = set(gateway_address(number))
    return lambda frame: is_neighbour_discovery(frame, addresses, UPLINK_NETWORKS)


def is_link_setup(frame: Frame) -> bool:
    """Return whether a frame is what the kernel says by itself when an IPv6 link comes up.

    Docker brings the link up before the container's first process runs: multicast listener
    reports, router solicitations and the search for a duplicate of its own address.
    """
    return frame.icmp_type in {143, 133} or (frame.icmp_type == 135 and frame.source == "::")


def encrypted() -> list[Judgement]:
    """Return the judgements that allow the encrypted flow to the server, both families."""
    return [wireguard_to(address, PORT) for address in SERVER]


def temporary(directory: Path, name: str, text: str) -> Path:
    """Write a file that only its owner may read, and return its path."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path
