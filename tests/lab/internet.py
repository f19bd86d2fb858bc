"""The world around the gateway: router, internet hosts, LAN and the networks in between."""

from dataclasses import dataclass

from tests.lab.capture import Capture
from tests.lab.frames import Frame, is_neighbour_discovery
from tests.lab.hosts import Address, Services, dns, echo, http
from tests.lab.namespace import Namespace, connect
from tests.lab.process import Household

INTERNET = (
    Address("198.51.100.10", "2001:db8:100::10"),
    Address("203.0.113.10", "2001:db8:113::10"),
)
"""Hosts with echo (7), http (80) and dns (53)."""
OUTSIDER = Address("203.0.113.66", "2001:db8:113::66")
"""A client whose address is in no list; bind probes of `lab.internet` to it."""
LAN_HOST = Address("192.168.77.10", "fd77::10")
"""A host with echo (7), http (80) and dns (53 and 853)."""
LAN_SUBNETS = Address("192.168.77.0/24", "fd77::/64")
LAN_ROUTER = Address("192.168.77.1", "fd77::1")
OTHER_LAN_HOST = Address("192.168.78.10", "fd78::10")
"""A private host outside LAN_SUBNETS, reached through the LAN's router, with the same services."""
MOST_UPLINKS = 4


def router_on(number: int) -> Address:
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


def build_internet(internet: Namespace) -> None:
    """Make the router and its hosts, all of them addresses on its loopback."""
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
        internet.sysctl(name, value)
    hosts = (*INTERNET, OUTSIDER)
    internet.ip(
        *(f"addr add {host.ipv4}/32 dev lo" for host in hosts),
        *(f"addr add {host.ipv6}/128 dev lo nodad" for host in hosts),
    )


def build_lan(internet: Namespace, lan: Namespace) -> None:
    """Join the LAN to the router; its host has a second address outside the LAN's subnets."""
    connect(internet, "lan0", lan, "eth0")
    internet.ip(
        f"addr add {LAN_ROUTER.ipv4}/24 dev lan0",
        f"addr add {LAN_ROUTER.ipv6}/64 dev lan0 nodad",
        "link set lan0 up",
        f"route add {OTHER_LAN_HOST.ipv4}/32 via {LAN_HOST.ipv4}",
    )
    lan.ip(
        f"addr add {LAN_HOST.ipv4}/24 dev eth0",
        f"addr add {LAN_HOST.ipv6}/64 dev eth0 nodad",
        f"addr add {OTHER_LAN_HOST.ipv4}/32 dev lo",
        f"addr add {OTHER_LAN_HOST.ipv6}/128 dev lo nodad",
        "link set eth0 up",
        f"route add default via {LAN_ROUTER.ipv4}",
        f"route add default via {LAN_ROUTER.ipv6}",
    )
    internet.ip(f"route add {OTHER_LAN_HOST.ipv6}/128 via {LAN_HOST.ipv6}")


def serve(internet: Namespace, lan: Namespace, household: Household) -> dict[str, Services]:
    """Start the services of both places; wait for them before use."""
    hosts = [
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
        for number in range(MOST_UPLINKS)
        for address in router_on(number)
        for service in (
            echo(address),
            http(address),
            dns(address, A=INTERNET[1].ipv4, AAAA=INTERNET[1].ipv6),
        )
    ]
    home = [
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
    return {
        "internet": Services(internet, hosts + router, household),
        "lan": Services(lan, home, household),
    }


def build_uplink(
    internet: Namespace, inside: Namespace, number: int, household: Household
) -> Uplink:
    """Join the gateway's namespace to the router by one more network and record its far end."""
    name, far_end = f"eth{number}", f"up{number}"
    gateway = Address(f"172.{30 + number}.0.2", f"fd{30 + number}::2")
    router = router_on(number)
    connect(internet, far_end, inside, name)
    networks = (f"172.{30 + number}.0.0/24", f"fd{30 + number}::/64")

    def neighbours(frame: Frame) -> bool:
        return is_neighbour_discovery(frame, set(gateway), networks)

    internet.ip(
        f"link set {far_end} address 02:00:00:00:{number:02x}:01 up",
        f"addr add {router.ipv4}/24 dev {far_end}",
        f"addr add {router.ipv6}/64 dev {far_end} nodad",
    )
    capture = Capture(
        far_end,
        household,
        enter=internet.command,
        neighbours=neighbours,
    )
    inside.ip(
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
    return Uplink(
        name, number, gateway, router, networks,
        f"02:00:00:00:{number:02x}:02", f"02:00:00:00:{number:02x}:01", capture,
    )  # fmt: skip
