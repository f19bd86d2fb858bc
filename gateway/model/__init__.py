"""Frozen values that all packages share: the configuration. What is found: `policy.facts`.

Nothing here decides anything or touches the kernel. Times are seconds of CLOCK_BOOTTIME.
"""

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.model.errands import Errand as Errand
from gateway.model.forwarding import Forwarding
from gateway.model.frozen import frozen
from gateway.model.name_server import BlockFile, HostName, NameServer
from gateway.model.place import HostPort as HostPort
from gateway.model.port_client import PortClient
from gateway.model.proxies import HttpProxy, SocksProxy
from gateway.model.public_ip import PublicIp
from gateway.model.secret import Secret as Secret

if TYPE_CHECKING:
    from gateway.model.control import Control

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

INTERFACE = "wg0"
"""The name of the tunnel's interface."""
PASSAGE = tuple(map(ipaddress.ip_network, ("169.254.207.0/30", "fd70:6f72:7463:756c::/126")))
"""The networks of the link between the gateway's namespace and a vault."""


class Implementation(StrEnum):
    """Where WireGuard runs."""

    AUTO = "auto"
    KERNELSPACE = "kernelspace"
    USERSPACE = "userspace"


class Backend(StrEnum):
    """Which kernel firewall carries the rules."""

    AUTO = "auto"
    IPTABLES = "iptables"
    NFTABLES = "nftables"


class ProbeKind(StrEnum):
    """How the tunnel is probed from inside: `auto` queries its resolver, if it has one."""

    AUTO = "auto"
    DNS = "dns"
    ICMP = "icmp"
    OFF = "off"


@frozen
class HealthProbe:
    """How the tunnel is probed; `address` is the host to ping, None for the tunnel's resolver."""

    kind: ProbeKind = ProbeKind.AUTO
    address: Address | None = None


class Protocol(StrEnum):
    """The transport protocols that ports belong to."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, order=True)
class PortRange:
    """The ports `first` to `last`, both included, of one protocol."""

    protocol: Protocol
    first: int
    last: int

    def __str__(self) -> str:
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{ports}/{self.protocol}"


@frozen
class Endpoint:
    """Where a WireGuard server listens, UDP."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = (
            f"[{self.address}]" if isinstance(self.address, ipaddress.IPv6Address) else self.address
        )
        return f"{host}:{self.port}"


@frozen
class NamedEndpoint:
    """Where a WireGuard server listens, as a name that has not been looked up yet."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


@frozen
class CandidatePeer:
    """One WireGuard peer as configured, its server perhaps given by name.

    Keys are base64 of 32 bytes; the keepalive is in seconds, 0 for none.
    """

    public_key: str
    endpoint: Endpoint | NamedEndpoint
    allowed_ips: tuple[Network, ...]
    preshared_key: Secret | None = None
    persistent_keepalive: int = 25


@frozen
class Peer(CandidatePeer):
    """One WireGuard peer whose server has an address."""

    endpoint: Endpoint


@frozen
class ServerList(Errand):
    """Where a provider publishes its servers."""


@frozen
class Login(Errand):
    """Where a user of a provider gets a token."""

    user: Secret = field(kw_only=True)
    password: Secret = field(kw_only=True)


@frozen
class KeyRequest(Errand):
    """A server with a certificate for `host` that is given a key; the gateway's own is kept."""

    address: Address = field(kw_only=True)
    public_key: str = field(kw_only=True)
    private_key: Secret | None = field(default=None, kw_only=True)


@frozen
class Registration:
    """After `login` the first `servers` are given a key; `made` is when, seconds since 1970."""

    login: Login
    servers: tuple[KeyRequest, ...]
    made: int | None = None


@frozen
class Candidate:
    """One complete WireGuard configuration as the user gave it.

    With `listed` it has no peers: they follow from that list, which has to be fetched first. With
    `registration` it has peers once the key is registered, and again when no server answers.

    `addresses` are the interface's; `mtu` is None when it follows from the uplink. `listen_port`
    and `fwmark` identify the encrypted flow; without a chosen `fwmark`, `policy.marks` fills in a
    secret one. `dns` are the workloads' resolvers, in order. `name` is the server's, or a file's.
    """

    private_key: Secret
    addresses: tuple[Interface, ...]
    peers: tuple[CandidatePeer, ...]
    listen_port: int = 51820
    fwmark: int | None = None
    mtu: int | None = None
    dns: tuple[Address, ...] = ()
    listed: ServerList | None = None
    registration: Registration | None = None
    name: str = field(default="", compare=False)

    @property
    def errands(self) -> tuple[Errand, ...]:
        """What has to be requested before there are peers, in order."""
        if self.registration and not self.peers:
            return (self.registration.login, *self.registration.servers)
        return (self.listed,) if self.listed else ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints of all peers that are addresses, in order, each once."""
        given = (it.endpoint for it in self.peers if isinstance(it.endpoint, Endpoint))
        return tuple(dict.fromkeys(given))

    @property
    def names(self) -> tuple[str, ...]:
        """The names to look up before the tunnel can be used, in order."""
        names = (it.endpoint.name for it in self.peers if isinstance(it.endpoint, NamedEndpoint))
        return (self.errands[0].host,) if self.errands else tuple(dict.fromkeys(names))

    @property
    def endpoint_text(self) -> str:
        """The endpoints of all peers for people, each once; they may be names."""
        return ", ".join(dict.fromkeys(str(peer.endpoint) for peer in self.peers))

    def has_family(self, version: int) -> bool:
        """Whether the tunnel carries IP `version` (4 or 6), that is, has an address of it."""
        return any(address.version == version for address in self.addresses)


@frozen
class Tunnel(Candidate):
    """A candidate to connect with: its servers have addresses, and its flow has a mark."""

    peers: tuple[Peer, ...]
    fwmark: int = field(kw_only=True)


Times = tuple[tuple[str, float], ...]
"""How long handshakes took, in seconds, each with the `endpoint_text` of its candidate."""


@frozen
class Latency:
    """Candidates are tried in the order of their handshakes' times; `times` were kept earlier."""

    times: Times = field(default=(), compare=False)


@frozen
class Config:
    """The whole configuration, checked; see docs/configuration.md for each variable.

    `tunnels` are the candidates, at least one, in order of preference. `endpoint_resolver` looks up
    the endpoint's name, None for the container's resolver. The commands are argument lists, empty
    for none; an argument may be a secret. `server_list` is the provider's list that the candidates
    come from, if any; it is fetched again every `list_period` seconds. Without `latency` the
    candidates are tried as they are listed. No port is asked for without `forwarding`.
    `public_subnets` are disjoint IPv4 networks on public
    ranges; they are outside the tunnel where an uplink is in them. `name_server` is None where
    workloads ask the resolvers of the tunnel themselves, `public_ip` where no service is asked for
    the public address. The control API listens at `control_server`, None for none, and
    `control` says who may use it.
    """

    tunnels: tuple[Candidate, ...]
    outbound_subnets: tuple[Network, ...] = ()
    public_subnets: tuple[ipaddress.IPv4Network, ...] = ()
    input_ports: tuple[PortRange, ...] = ()
    input_ports_while_down: bool = True
    vpn_input_ports: tuple[PortRange, ...] = ()
    health_server: HostPort = field(default_factory=lambda: HostPort("127.0.0.1", 9999))
    implementation: Implementation = Implementation.AUTO
    firewall: Backend = Backend.AUTO
    health_probe: HealthProbe = field(default_factory=HealthProbe)
    endpoint_resolver: Address | None = None
    up_command: tuple[str, ...] = field(default=(), repr=False)
    down_command: tuple[str, ...] = field(default=(), repr=False)
    server_list: ServerList | None = None
    list_period: int | None = None
    latency: Latency | None = None
    name_server: NameServer | None = None
    host_names: tuple[HostName, ...] = ()
    block_files: tuple[BlockFile, ...] = ()
    public_ip: PublicIp | None = None
    http_proxy: HttpProxy | None = None
    socks_proxy: SocksProxy | None = None
    port_client: PortClient | None = None
    control_server: HostPort | None = None
    control: "Control | None" = None
    forwarding: Forwarding | None = None


EVERYTHING: tuple[Network, ...] = tuple(map(ipaddress.ip_network, ("0.0.0.0/0", "::/0")))
"""The allowed IPs of a tunnel that carries all traffic."""
