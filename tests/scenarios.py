"""Configurations, namespaces and states that tests of the policy share, each with a name."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network

from gateway.model import (
    EVERYTHING,
    Config,
    Endpoint,
    HostPort,
    NamedEndpoint,
    Peer,
    PortRange,
    Protocol,
    Secret,
    ServerList,
    Tunnel,
)
from gateway.model.lease import Lease
from gateway.model.name_server import LocalZone, NameServer, Upstream
from gateway.model.proxies import HttpProxy, SocksProxy
from gateway.policy.evidence import Pulse
from gateway.policy.facts import Facts, Route, Uplink
from gateway.policy.marks import SHOWN
from gateway.policy.states import (
    Connected,
    Connecting,
    Fetching,
    Locked,
    Paused,
    Query,
    Reason,
    Resolving,
    State,
    Stopping,
    Transfer,
    Turn,
)

GUARD_MARK = 0x1234ABCD

FLOW_MARK = SHOWN | 0x51C3A7E
"""In place of the mark that a gateway draws: one bit is shown in `ip rule`, the rest is secret."""

CHOSEN_MARK = 0xCA6C
"""A mark as a user may choose it (FwMark), not secret; wg-quick(8) takes this one."""

SERVER4 = Endpoint(ip_address("198.51.100.10"), 51820)
SERVER6 = Endpoint(ip_address("2001:db8:100::10"), 443)

ETH0 = Uplink("eth0", 2, 1500, (ip_interface("172.18.0.2/16"), ip_interface("fd18::2/64")))
ETH1 = Uplink("eth1", 3, 1400, (ip_interface("172.19.0.2/16"),))
ROUTES0 = (
    Route(ip_network("0.0.0.0/0"), "eth0", ip_address("172.18.0.1")),
    Route(ip_network("172.18.0.0/16"), "eth0"),
    Route(ip_network("::/0"), "eth0", ip_address("fd18::1"), metric=1024),
    Route(ip_network("fd18::/64"), "eth0", metric=256),
)
ROUTES1 = (Route(ip_network("172.19.0.0/16"), "eth1"),)
ONE_UPLINK = Facts((ETH0,), ROUTES0)
TWO_UPLINKS = Facts((ETH0, ETH1), ROUTES0 + ROUTES1)
ROUTED0 = replace(ETH0, routers=(ip_address("fe80::1"), ip_address("fe80::2")))
ADVERTISED = Facts(
    (ROUTED0,),
    (*ROUTES0[:2], Route(ip_network("::/0"), "eth0", ip_address("fe80::1"), 1024), ROUTES0[3]),
)
"""Two routers have announced themselves, who share one route as far as the gateway can see."""
GUARDED = replace(ONE_UPLINK, guard_mark=GUARD_MARK)

RESOLVERS = (ip_address("10.2.0.1"), ip_address("192.168.1.53"))
PEER = Peer("cHVibGlj", SERVER4, EVERYTHING)
IPV4_ONLY = Tunnel(
    Secret("cHJpdmF0ZQ"), (ip_interface("10.2.0.2/32"),), (PEER,), dns=RESOLVERS, fwmark=FLOW_MARK
)
CHOSEN = replace(IPV4_ONLY, fwmark=CHOSEN_MARK)
DUAL = replace(
    IPV4_ONLY,
    addresses=(ip_interface("10.2.0.2/32"), ip_interface("fd02::2/128")),
    peers=(replace(PEER, endpoint=SERVER6),),
)
HOLES = Config(
    (IPV4_ONLY,),
    outbound_subnets=(ip_network("192.168.1.0/24"), ip_network("fd77::/64")),
    input_ports=(PortRange(Protocol.TCP, 8080, 8080),),
    vpn_input_ports=(
        PortRange(Protocol.TCP, 6881, 6889),
        PortRange(Protocol.UDP, 6881, 6889),
    ),
)

PUBLIC_SUBNETS = Config(
    (IPV4_ONLY,), public_subnets=(IPv4Network("172.50.0.0/16"), IPv4Network("203.0.113.0/24"))
)
"""The first is that of a network of the engine, the second is on the internet alone."""
ETH2 = Uplink("eth2", 4, 1500, (ip_interface("172.50.0.2/16"),))
ON_PUBLIC_RANGE = Facts((ETH0, ETH2), (*ROUTES0, Route(ip_network("172.50.0.0/16"), "eth2")))
CLOSED_WHILE_DOWN = replace(HOLES, input_ports_while_down=False)
UNNAMED = replace(IPV4_ONLY, dns=())
RESOLVING_HOLES = replace(
    HOLES,
    tunnels=(UNNAMED,),
    name_server=NameServer(
        (Upstream(ip_address("1.1.1.1"), 853, "a.test"), Upstream(ip_address("192.168.1.53"), 5353))
    ),
)
"""With a resolver of our own, which asks one in the tunnel and one in a listed subnet."""

LOCAL_ZONES = replace(
    HOLES,
    name_server=NameServer(
        local=(LocalZone("home.lan", (ip_address("192.168.1.1"), ip_address("fd77::1"))),)
    ),
)
"""With a resolver of our own, which asks two of the LAN for the names of one domain."""

PROXIES = replace(
    HOLES,
    input_ports=(PortRange(Protocol.TCP, 8888, 8888),),
    http_proxy=HttpProxy(HostPort("", 8888)),
    socks_proxy=SocksProxy(HostPort("", 1080)),
)
"""With both proxies, of which the one for SOCKS has clients in the namespace only."""

MANY_HOLES = Config(
    (IPV4_ONLY,),
    outbound_subnets=(
        *(ip_network(f"192.168.{number}.0/24") for number in range(1, 20, 2)),
        ip_network("192.168.4.0/22"),
        ip_network("172.20.0.7"),
        *(ip_network(f"fd77:{number}::/64") for number in (0, 1, 0x10)),
    ),
    input_ports=(
        *(PortRange(Protocol.TCP, port, port) for port in range(8001, 8037, 2)),
        PortRange(Protocol.TCP, 8050, 8059),
        PortRange(Protocol.TCP, 8060, 8061),
        PortRange(Protocol.UDP, 5000, 5001),
        PortRange(Protocol.UDP, 65534, 65534),
    ),
    vpn_input_ports=(
        PortRange(Protocol.TCP, 6881, 6889),
        PortRange(Protocol.TCP, 6891, 6891),
        PortRange(Protocol.UDP, 6881, 6889),
    ),
)
"""More networks and ports than one chain of iptables, or one `multiport` match, has room for."""


def connecting(tunnel: Tunnel) -> Connecting:
    """Return the state in which the interface of `tunnel` waits for its first handshake."""
    turn = Turn((tunnel,))
    return Connecting(turn, tunnel, Reason.NO_HANDSHAKE, since=0.0, retry_at=0.0, built=True)


def connected(tunnel: Tunnel) -> Connected:
    """Return the state in which `tunnel` carries traffic."""
    return Connected(Turn((tunnel,)), tunnel, since=0.0, pulse=Pulse())


LEASES = (Lease(40123, 51413, until=60.0), Lease(40124, 40124, until=60.0, version=6))
"""Ports that the server forwards, the first one to another port here."""


def resolving(resolver: str | None) -> Resolving:
    """Return the state in which `resolver` is asked for the endpoint's name, or none yet."""
    named = replace(IPV4_ONLY, peers=(replace(PEER, endpoint=NamedEndpoint("vpn.example", 51820)),))
    query = Query(ip_address(resolver), 40000, 0x5EC4E7) if resolver else None
    return Resolving(Turn((named,)), Reason.STARTING, since=0.0, retry_at=0.0, query=query)


LISTED = replace(IPV4_ONLY, peers=(), listed=ServerList("mullvad", "api.example", "/relays/"))
"""What is wanted of a provider whose list has not been fetched."""


def fetching(server: str | None) -> Fetching:
    """Return the state in which the list of LISTED is fetched from `server`, or is to be."""
    transfer = Transfer(ip_address(server), 443, 40001, 0x5EC4E8) if server else None
    turn = Turn((LISTED,))
    return Fetching(turn, Reason.STARTING, since=0.0, retry_at=0.0, transfer=transfer)


SCENARIOS: dict[str, tuple[State, Config, Facts]] = {
    "locked": (Locked(), HOLES, ONE_UPLINK),
    "stopping": (Stopping(), HOLES, GUARDED),
    "paused": (Paused(0.0), HOLES, GUARDED),
    "paused-ports-closed": (Paused(0.0), CLOSED_WHILE_DOWN, ONE_UPLINK),
    "resolving": (resolving("192.168.1.53"), HOLES, GUARDED),
    "resolving-by-docker": (resolving("127.0.0.11"), HOLES, ONE_UPLINK),
    "resolving-ipv6": (resolving("fd18::53"), HOLES, ONE_UPLINK),
    "resolving-not-yet": (resolving(None), HOLES, ONE_UPLINK),
    "fetching": (fetching("203.0.113.5"), HOLES, GUARDED),
    "fetching-ipv6": (fetching("2001:db8:200::5"), HOLES, ONE_UPLINK),
    "fetching-not-yet": (fetching(None), HOLES, ONE_UPLINK),
    "fetching-ports-closed": (fetching("203.0.113.5"), CLOSED_WHILE_DOWN, ONE_UPLINK),
    "connecting": (connecting(IPV4_ONLY), HOLES, ONE_UPLINK),
    "connecting-guarded": (connecting(DUAL), HOLES, replace(TWO_UPLINKS, guard_mark=GUARD_MARK)),
    "connecting-ports-closed": (connecting(IPV4_ONLY), CLOSED_WHILE_DOWN, ONE_UPLINK),
    "connecting-ipv6-endpoint": (connecting(DUAL), Config((DUAL,)), ONE_UPLINK),
    "connecting-no-uplink": (connecting(IPV4_ONLY), HOLES, Facts()),
    "connected-forwarded-ports": (
        replace(connected(DUAL), leases=LEASES),
        Config((DUAL,)),
        ONE_UPLINK,
    ),
    "connected": (connected(IPV4_ONLY), Config((IPV4_ONLY,)), ONE_UPLINK),
    "connected-ipv6-endpoint": (connected(DUAL), Config((DUAL,)), ONE_UPLINK),
    "connected-ipv6-routers": (connected(DUAL), Config((DUAL,)), ADVERTISED),
    "connected-holes": (connected(IPV4_ONLY), HOLES, ONE_UPLINK),
    "connected-holes-two-uplinks": (connected(DUAL), HOLES, TWO_UPLINKS),
    "connected-many-holes": (connected(IPV4_ONLY), MANY_HOLES, ONE_UPLINK),
    "connected-public-subnets": (connected(IPV4_ONLY), PUBLIC_SUBNETS, ON_PUBLIC_RANGE),
    "connected-chosen-mark": (connected(CHOSEN), Config((CHOSEN,)), ONE_UPLINK),
    "connected-resolver": (connected(UNNAMED), RESOLVING_HOLES, ONE_UPLINK),
    "connected-local-zones": (connected(IPV4_ONLY), LOCAL_ZONES, ONE_UPLINK),
    "connecting-proxies": (connecting(IPV4_ONLY), PROXIES, ONE_UPLINK),
    "connected-proxies": (connected(IPV4_ONLY), PROXIES, GUARDED),
    "connected-guarded": (connected(IPV4_ONLY), HOLES, GUARDED),
}
