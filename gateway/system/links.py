"""Links of a namespace over rtnetlink: made, set, read back and removed.

Every change is read back: a keyword or attribute that the kernel does not know is ignored silently
in more places than one.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address
from typing import Any

from gateway.errors import NetworkError
from gateway.model import Address, Interface
from gateway.policy.passage import INDEX as PASSAGE_INDEX
from gateway.system import addresses, applied, link_settings
from gateway.system.link_down import IFF_LOOPBACK, IFF_UP
from gateway.system.link_settings import DeviceSetting
from gateway.system.messages import ifinfmsg
from gateway.system.netlink import (
    ATTRIBUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    Netlink,
    message,
)
from gateway.system.netns import OWN, Netns
from gateway.system.questions import Questions

MOST_REMEMBERED = 16
"""Links whose settings are not taken from the bytes again while those stay the same."""

IFLA_NET_NS_FD = 28
"""An attribute of linux/if_link.h: a descriptor of the namespace that a link is to be in."""
NUMBER = struct.Struct("=I")

ARPHRD_NONE = 0xFFFE
"""The kind of link that has no addresses of its own: tunnels (linux/if_arp.h)."""


class Links:
    """The links of `netns`; `tunnel` is the name of the tunnel's interface."""

    def __init__(self, tunnel: str, netns: Netns = OWN) -> None:
        self._tunnel = tunnel
        self._passage = ""
        self.netns = netns
        self.rtnl = Netlink(netns, socket.NETLINK_ROUTE)
        self._questions = Questions(netns, socket.NETLINK_ROUTE)
        self._devices: dict[str, tuple[bytes, dict[DeviceSetting, int]]] = {}

    def leave_out(self, passage: str) -> None:
        """Have the link `passage`, an end of a pair for a vault, not count as another one."""
        self._passage = passage

    def others(self) -> dict[int, Any]:
        """Return the messages about all links but loopback and the tunnel, by index."""
        listed = self.rtnl.dump("list links", message(ifinfmsg, {}), RTM_GETLINK)
        return {
            link["index"]: link
            for link in listed
            if not link["flags"] & IFF_LOOPBACK and not self._is_tunnel(link)
        }

    def is_tunnel(self, name: str) -> bool:
        """Return whether the link `name` is the tunnel's, or leads to the vault.

        Raises NetworkError without that link.
        """
        return name in {self._tunnel, self._passage} and self._is_tunnel(self._link(name))

    def is_up(self, name: str) -> bool:
        """Return whether there is a link `name` and it is set up."""
        return self.index(name) is not None and bool(self._link(name)["flags"] & IFF_UP)

    def shape(self, name: str) -> tuple[int, int, str]:
        """Return flags, largest packet and address of the link `name`. Raises NetworkError."""
        link = self._link(name)
        return link["flags"], link.get_attr("IFLA_MTU"), link.get_attr("IFLA_ADDRESS")

    def addresses_of(self, name: str) -> set[Address]:
        """Return the addresses of the link `name`; empty if the link does not exist."""
        index = self.index(name)
        listed = addresses.listed(self.rtnl)
        return {addresses.local(entry).ip for entry in listed if entry["index"] == index}

    def index(self, name: str) -> int | None:
        """Return the kernel's index of the link `name`, or None when there is none.

        Raises NetworkError when the kernel could not be asked.
        """
        try:
            return self.netns.index_of(name)
        except OSError as err:
            if err.errno != errno.ENODEV:
                raise NetworkError(f"look up a link: {err.strerror}", name, err.errno) from err
            return None

    def delete_link(self, name: str) -> None:
        """Remove the tunnel's link `name`; no error when there is none.

        Raises NetworkError for a link of another kind: it is another network.
        """
        index = self.index(name)
        if index is None:
            return
        try:
            self._require_tunnel(name)
            self.rtnl.change("delete link", name, message(ifinfmsg, {"index": index}), RTM_DELLINK)
        except NetworkError as err:
            if err.errno != errno.ENODEV:
                raise
        if self.index(name) == index:
            raise NetworkError("delete link: it is still there", name)
        applied.show(lambda: [f"ip link delete {name}"])

    def delete_passage(self, name: str) -> None:
        """Remove the link `name` if it is an end of a pair that leads to a vault."""
        index = self.index(name)
        if index is None:
            return
        try:
            if not _leads_to_vault(self._link(name)):
                return
            self.rtnl.change("delete link", name, message(ifinfmsg, {"index": index}), RTM_DELLINK)
        except NetworkError as err:
            if err.errno != errno.ENODEV:
                raise
        applied.show(lambda: [f"ip link delete {name}"])

    def add_link(self, name: str, kind: str) -> None:
        """Make a link of the rtnetlink `kind`, such as `wireguard`; it is down."""
        self.rtnl.change(
            f"add {kind} link",
            name,
            message(
                ifinfmsg,
                {},
                [
                    ("IFLA_IFNAME", name),
                    ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}),
                ],
            ),
            RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
        )
        applied.show(lambda: [f"ip link add {name} type {kind}"])

    def move(self, name: str, there: "Links") -> None:
        """Move the link `name` into another namespace; there it is down and has no address.

        Takes CAP_NET_ADMIN in both (net/core/rtnetlink.c, rtnl_link_get_net_capable). Raises
        NetworkError: EEXIST if there is a link of that name.
        """
        try:
            descriptor = there.netns.descriptor()
        except OSError as err:
            raise NetworkError(f"find its namespace: {err.strerror}", name, err.errno) from err
        try:
            body = link_settings.LINK_MESSAGE.pack(0, 0, self._index(name), 0, 0)
            target = ATTRIBUTE.pack(ATTRIBUTE.size + NUMBER.size, IFLA_NET_NS_FD)
            request = body + target + NUMBER.pack(descriptor)
            self.rtnl.send("move link", name, request, RTM_NEWLINK)
        finally:
            os.close(descriptor)
        if self.index(name) is not None or there.index(name) is None:
            raise NetworkError("move link: it is still here", name)
        applied.show(lambda: [f"ip link set {name} netns {there.netns.name}"])

    def set_up(self, name: str) -> None:
        """Set the link `name` up."""
        self._set_link("set link up", name, {"flags": IFF_UP, "change": IFF_UP})
        if not self._link(name)["flags"] & IFF_UP:
            raise NetworkError("set link up: it is still down", name)
        applied.show(lambda: [f"ip link set {name} up"])

    def set_mtu(self, name: str, mtu: int) -> None:
        """Set the largest packet of the link `name` to `mtu` bytes."""
        self._set_link(f"set mtu {mtu}", name, {}, [("IFLA_MTU", mtu)])
        found = self._link(name).get_attr("IFLA_MTU")
        if found != mtu:
            raise NetworkError(f"set mtu {mtu}: it is {found}", name)
        applied.show(lambda: [f"ip link set {name} mtu {mtu}"])

    def add_addresses(self, name: str, wanted: Iterable[Interface]) -> None:
        """Add the host addresses of `wanted` to the link `name`; see `addresses.add`."""
        hosts = tuple(dict.fromkeys(interface.ip for interface in wanted))
        index = self._link(name)["index"]
        if any(isinstance(address, IPv6Address) for address in hosts):
            link_settings.enable_ipv6(self.netns, name)
        addresses.add(self.rtnl, name, index, hosts)

    def set_device(self, name: str, settings: Mapping[DeviceSetting, int]) -> None:
        """Set IPv4 settings of the link `name` and read them back. Raises NetworkError.

        Where they are as wanted, nothing is set, and no other program has notice of a change.
        """
        if not link_settings.differences(self.device(name), settings):
            return
        link_settings.put(self.rtnl, name, self._link(name)["index"], settings)
        link_settings.require(name, self.device(name), settings)
        applied.show(
            lambda: [
                f"sysctl -w net.ipv4.conf.{name}.{setting.name.lower()}={value}"
                for setting, value in settings.items()
            ]
        )

    def device(self, name: str) -> dict[DeviceSetting, int]:
        """Return the IPv4 settings of the link `name`. Raises NetworkError."""
        answer = self._answer(name)
        known = self._devices.get(name)
        if known is not None and known[0] == answer:
            return known[1]
        found = link_settings.of_link(answer, name)
        if len(self._devices) >= MOST_REMEMBERED:
            self._devices.clear()
        self._devices[name] = answer, found
        return found

    def carried(self, name: str) -> bytes:
        """Return all that the kernel says of the link `name`, its packet counters among it.

        Raises NetworkError.
        """
        return self._answer(name)

    def _answer(self, name: str) -> bytes:
        request = link_settings.question(name)
        return self._questions.ask("read link", name, request, RTM_GETLINK)

    def _is_tunnel(self, link: Any) -> bool:
        """Return whether `link` is the tunnel's: of its kind too, any link may have the name."""
        name = link.get_attr("IFLA_IFNAME")
        is_tunnel = name == self._tunnel and link["ifi_type"] == ARPHRD_NONE
        return is_tunnel or (name == self._passage and _leads_to_vault(link))

    def _require_tunnel(self, name: str) -> None:
        if self._link(name)["ifi_type"] != ARPHRD_NONE:
            what = "a link that is not a tunnel has the tunnel's name; give it another one"
            raise NetworkError(what, name, errno.EEXIST)

    def _index(self, name: str) -> int:
        index = self.index(name)
        if index is None:
            raise NetworkError("there is no such link", name, errno.ENODEV)
        return index

    def _link(self, name: str) -> Any:
        request = message(ifinfmsg, {"index": self._index(name)})
        return self.rtnl.get("read link", name, request, RTM_GETLINK)

    def _set_link(
        self, what: str, name: str, fields: Mapping[str, int], attributes: Any = ()
    ) -> None:
        index = self._link(name)["index"]
        request = message(ifinfmsg, {"index": index, **fields}, attributes)
        self.rtnl.change(what, name, request, RTM_NEWLINK)


def _leads_to_vault(link: Any) -> bool:
    """Return whether `link` is one of the pair: no other has its index."""
    return bool(link["index"] == PASSAGE_INDEX)
