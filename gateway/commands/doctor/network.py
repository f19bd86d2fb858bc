"""What the report says of a network namespace: links, routes, rules, counters, WireGuard."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby

from gateway.firewall.nft.program import Nft
from gateway.firewall.xtables import legacy
from gateway.model import INTERFACE
from gateway.policy.marks import shown
from gateway.system import addresses, routes
from gateway.system.link_down import IFF_UP
from gateway.system.links import Links
from gateway.system.messages import ifinfmsg
from gateway.system.netlink import RTM_GETLINK, Netlink, message
from gateway.system.netns import Netns
from gateway.system.resolv import ResolverFile
from gateway.system.route_messages import RTN_UNICAST, RTN_UNREACHABLE
from gateway.tunnel import reading

SETTINGS = {
    "ipv4": ("forwarding", "rp_filter", "src_valid_mark", "arp_ignore", "accept_redirects"),
    "ipv6": ("forwarding", "disable_ipv6", "accept_ra"),
}
"""Settings of every link under /proc/sys/net/FAMILY/conf that decide about the gateway."""

COUNTERS = ("Udp:", "Tcp:", "Icmp:")
"""The lines of /proc/net/snmp that are shown, without those of each ICMP type."""
CONNTRACK = ("nf_conntrack_count", "nf_conntrack_max")


def links(netns: Netns) -> Iterator[str]:
    """Yield each link with its addresses and settings."""
    rtnl = Netlink(netns, socket.NETLINK_ROUTE)
    listed = rtnl.dump("list links", message(ifinfmsg, {}), RTM_GETLINK)
    found = addresses.listed(rtnl)
    for link in listed:
        name, index = link.get_attr("IFLA_IFNAME"), link["index"]
        info = link.get_attr("IFLA_LINKINFO")
        kind = (info and info.get_attr("IFLA_INFO_KIND")) or "no kind"
        up = "up" if link["flags"] & IFF_UP else "down"
        state = link.get_attr("IFLA_OPERSTATE")
        yield f"{index}: {name} ({kind}) {up}, {state}, mtu {link.get_attr('IFLA_MTU')}"
        own = [str(addresses.local(it)) for it in found if it["index"] == index]
        yield f"    addresses: {', '.join(own) or 'none'}"
        yield f"    settings: {_settings(netns, name)}"


def _settings(netns: Netns, link: str) -> str:
    values = []
    for family, names in SETTINGS.items():
        for name in names:
            with suppress(OSError):
                value = netns.read(f"/proc/sys/net/{family}/conf/{link}/{name}").strip()
                values.append(f"{family}.{name}={value}")
    return " ".join(values) or "none can be read"


def policy_rules(netns: Netns) -> Iterator[str]:
    """Yield the policy rules in their order."""
    yield from map(str, routes.all_rules(Netlink(netns, socket.NETLINK_ROUTE)))


def routing(netns: Netns) -> Iterator[str]:
    """Yield the routes of all tables but the local one."""
    for route in routes.all_routes(Netlink(netns, socket.NETLINK_ROUTE)):
        kind = "" if route.kind in {RTN_UNICAST, RTN_UNREACHABLE} else f" (kind {route.kind})"
        yield f"{route}{kind}"


def tables(netns: Netns) -> Iterator[str]:
    """Yield the tables of nftables, with their counters."""
    yield Nft(netns=netns).ruleset().strip() or "none"


def legacy_tables(netns: Netns) -> Iterator[str]:
    """Yield the legacy tables that are in use, with their counters."""
    found = False
    for line in legacy.saved(netns):
        found = True
        if not line.startswith(("# Generated", "# Completed")):
            yield line
    if not found:
        yield "none is in use"


def counters(netns: Netns) -> Iterator[str]:
    """Yield what the kernel has counted: packets of each link, and errors."""
    yield from netns.read("/proc/self/net/dev").splitlines()
    lines = netns.read("/proc/self/net/snmp").splitlines()
    chosen = [line for line in lines if line.startswith(COUNTERS)]
    for name, pair in groupby(chosen, key=lambda line: line.split()[0]):
        names, values = (line.split()[1:] for line in pair)
        counted = [f"{a}={b}" for a, b in zip(names, values, strict=False) if b != "0"]
        yield f"{name} {' '.join(counted)}"
    for name in CONNTRACK:
        with suppress(OSError):
            value = netns.read(f"/proc/sys/net/netfilter/{name}").strip()
            yield f"{name}: {value}"


def wireguard(netns: Netns) -> Iterator[str]:
    """Yield the state of the tunnel's device, without its private and preshared keys."""
    kind, device = reading.device(Links(INTERFACE, netns))
    yield f"{INTERFACE} ({kind}), listen port {device.listen_port}, mark {shown(device.fwmark):#x}"
    yield f"private key: {'set' if device.private_key else 'not set'}"
    for peer in device.peers:
        age = "never" if peer.handshake is None else f"{time.time() - peer.handshake:.0f} s ago"
        yield f"peer {peer.public_key}"
        yield f"    endpoint {peer.endpoint}, last handshake {age}"
        yield f"    received {peer.received} bytes, sent {peer.sent} bytes"
        preshared = "set" if peer.preshared_key else "not set"
        yield f"    keepalive {peer.persistent_keepalive} s, preshared key {preshared}"
        yield f"    allowed IPs: {', '.join(sorted(map(str, peer.allowed_ips)))}"


def resolver() -> Iterator[str]:
    """Yield the resolver file of this container."""
    yield ResolverFile().read().strip() or "empty"
