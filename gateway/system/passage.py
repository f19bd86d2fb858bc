"""The pair of links between the gateway's namespace and a vault, for the listed holes.

The gateway's namespace forwards what comes in on it and on the uplinks. For IPv4 that is a setting
of each link, which can be set over netlink (net/ipv4/devinet.c, inet_set_link_af); for IPv6 it is
one of the namespace, which takes a /proc/sys that can be written, or is set already.
"""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.errors import NetworkError, is_shortage
from gateway.model import Interface
from gateway.policy.facts import Uplink
from gateway.policy.passage import INSIDE, MAC, OUTER, OUTSIDE, inner_end
from gateway.system import applied
from gateway.system.link_alias import IFA_F_NODAD
from gateway.system.link_settings import (
    FORWARD,
    LINK_MESSAGE,
    UPLINK_SETTINGS,
    DeviceSetting,
    ipv6_usable,
)
from gateway.system.links import IFLA_NET_NS_FD, NUMBER, Links
from gateway.system.messages import ifaddrmsg
from gateway.system.netlink import (
    ATTRIBUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_NEWADDR,
    RTM_NEWLINK,
    Netlink,
    message,
)
from gateway.system.netns import Netns

IFF_NOARP = 0x80
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA = (
    1,
    3,
    4,
    18,
    1,
    2,
)
VETH_INFO_PEER = 1
"""Attributes of linux/if_link.h and linux/veth.h."""

IPV6 = 6
IPV6_FORWARDING = Path("/proc/sys/net/ipv6/conf/all/forwarding")


def lacks_forwarding(vault: Netns, own: Netns) -> bool:
    """Return whether `vault` and `own` have IPv6, and `own` cannot forward it. NetworkError."""
    return ipv6_usable(vault) and ipv6_usable(own) and not _can_forward_ipv6(own)


def end_between(vault: Netns, own: Netns) -> Uplink:
    """Return the end in `vault` of a pair that joins it to `own`. Raises NetworkError."""
    has_ipv6 = ipv6_usable(vault) and ipv6_usable(own) and _can_forward_ipv6(own)
    return inner_end((4, 6) if has_ipv6 else (4,))


def _can_forward_ipv6(netns: Netns) -> bool:
    try:
        return netns.read(IPV6_FORWARDING).strip() != "0" or netns.is_writable(IPV6_FORWARDING)
    except OSError as err:
        if is_shortage(err):
            raise NetworkError(f"read: {err.strerror}", str(IPV6_FORWARDING), err.errno) from err
        return False


def _forward_ipv6(netns: Netns) -> None:
    try:
        if netns.read(IPV6_FORWARDING).strip() == "0":
            netns.write(IPV6_FORWARDING, "1")
            applied.show(lambda: ["sysctl -w net.ipv6.conf.all.forwarding=1"])
    except OSError as err:
        raise NetworkError(f"forward IPv6: {err.strerror}", OUTSIDE, err.errno) from err


class VethPassage:
    """The pair: `OUTSIDE` is among the links `outside`, `INSIDE` among `inside`."""

    def __init__(self, outside: Links, inside: Links) -> None:
        self._outside, self._inside = outside, inside

    def make(self, end: Uplink, uplinks: Sequence[str]) -> None:
        """Make the pair if anything is missing of it, and have `uplinks` forward.

        `end` is the one in the vault, with its addresses; both have its largest packet. Raises
        NetworkError.
        """
        for name in uplinks:
            self._outside.set_device(name, FORWARD)
        if not any(self._faults(end)):
            return
        self.remove()
        if self._outside.index(OUTSIDE) is not None:
            taken = "another network has the name of the link to the vault; give it another one"
            raise NetworkError(taken, OUTSIDE, errno.EEXIST)
        if any(address.version == IPV6 for address in end.addresses):
            _forward_ipv6(self._outside.netns)
        self._add(end)
        for links, name, addresses in self._ends(end):
            links.set_device(name, UPLINK_SETTINGS)
            for address in addresses:
                _add_address(links, name, address)
            links.set_up(name)
        self._outside.set_device(OUTSIDE, FORWARD)
        if faults := tuple(self._faults(end)):
            raise NetworkError(f"join the vault: {'; '.join(faults)}", OUTSIDE)

    def remove(self) -> None:
        """Remove the pair, if there is one. Raises NetworkError."""
        self._outside.delete_passage(OUTSIDE)
        self._inside.delete_passage(INSIDE)

    def faults(self, end: Uplink, uplinks: Sequence[str]) -> tuple[str, ...]:
        """Return what is missing of the pair, or of its settings. Raises NetworkError."""
        forwarding = [
            f"{name} does not forward"
            for name in uplinks
            if not self._outside.device(name)[DeviceSetting.FORWARDING]
        ]
        return (*self._faults(end), *forwarding)

    def _ends(self, end: Uplink) -> tuple[tuple[Links, str, tuple[Interface, ...]], ...]:
        outer = tuple(OUTER[address.version] for address in end.addresses)
        return (self._outside, OUTSIDE, outer), (self._inside, INSIDE, end.addresses)

    def _faults(self, end: Uplink) -> Iterator[str]:
        for links, name, addresses in self._ends(end):
            if not links.is_up(name):
                yield f"{name} is not up"
                continue
            flags, mtu, mac = links.shape(name)
            if mtu != end.mtu:
                yield f"{name} has the mtu {mtu}, not {end.mtu}"
            if not flags & IFF_NOARP or mac != MAC:
                yield f"{name} resolves neighbours, or has another address"
            missing = {address.ip for address in addresses} - links.addresses_of(name)
            for address in sorted(map(str, missing)):
                yield f"{name} has lost {address}"
            found = links.device(name)
            wanted = UPLINK_SETTINGS if name == INSIDE else UPLINK_SETTINGS | FORWARD
            for setting, value in wanted.items():
                if found[setting] != value:
                    yield f"{name}: {setting.name.lower()} is {found[setting]}, not {value}"

    def _add(self, end: Uplink) -> None:
        """Add both ends in one request; they are down.

        The peer has the index that it is given only if the link itself is given one
        (drivers/net/veth.c, veth_newlink).
        """
        try:
            descriptor = self._inside.netns.descriptor()
        except OSError as err:
            raise NetworkError(f"find the vault: {err.strerror}", OUTSIDE, err.errno) from err
        try:
            mac = bytes.fromhex(MAC.replace(":", ""))
            alike = _attribute(IFLA_MTU, NUMBER.pack(end.mtu)) + _attribute(IFLA_ADDRESS, mac)
            peer = (
                _link_message(end.index)
                + _attribute(IFLA_IFNAME, INSIDE.encode() + b"\0")
                + alike
                + _attribute(IFLA_NET_NS_FD, NUMBER.pack(descriptor))
            )
            data = _attribute(IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, peer))
            info = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, b"veth\0") + data)
            name = _attribute(IFLA_IFNAME, OUTSIDE.encode() + b"\0")
            request = _link_message(end.index) + name + alike + info
            flags = NLM_F_CREATE | NLM_F_EXCL
            rtnl = Netlink(self._outside.netns, socket.NETLINK_ROUTE)
            rtnl.send("join the vault", OUTSIDE, request, RTM_NEWLINK, flags)
        finally:
            os.close(descriptor)
        applied.show(lambda: [f"ip link add {OUTSIDE} type veth peer name {INSIDE} netns vault"])


def _add_address(links: Links, name: str, address: Interface) -> None:
    request = message(
        ifaddrmsg,
        {
            "family": socket.AF_INET if address.version == 4 else socket.AF_INET6,  # noqa: PLR2004
            "prefixlen": address.network.prefixlen,
            "index": links.index(name),
        },
        [
            ("IFA_LOCAL", str(address.ip)),
            ("IFA_ADDRESS", str(address.ip)),
            ("IFA_FLAGS", IFA_F_NODAD),
        ],
    )
    flags = NLM_F_CREATE | NLM_F_EXCL
    links.rtnl.change(f"add address {address}", name, request, RTM_NEWADDR, flags)
    applied.show(lambda: [f"ip address add {address} dev {name}"])


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _link_message(index: int) -> bytes:
    return LINK_MESSAGE.pack(0, 0, index, IFF_NOARP, IFF_NOARP)
