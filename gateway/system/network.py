"""Links and addresses of the namespace over rtnetlink, and what they look like as facts.

Every change is read back: a keyword or attribute that the kernel does not know is ignored without
a word in more places than one.
"""

import errno
import socket
from collections.abc import Iterable, Mapping
from enum import IntEnum
from ipaddress import IPv6Address, ip_address, ip_interface
from pathlib import Path
from typing import Any

from pyroute2.netlink import NLA_F_NESTED, nla, nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from gateway.errors import NetworkError, is_shortage
from gateway.model import Address, Facts, Interface, Uplink
from gateway.policy.routing import Routing
from gateway.policy.rules import is_nameable
from gateway.system import applied, routes
from gateway.system.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, message

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
ARPHRD_NONE = 0xFFFE
"""The kind of link that has no addresses of its own: tunnels (linux/if_arp.h)."""
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40
IFA_F_NOPREFIXROUTE = 0x200
RT_SCOPE_LINK = 253
"""Addresses of this scope and narrower ones are link-local (or the host's own)."""

IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf")


class DeviceSetting(IntEnum):
    """The per-device IPv4 settings that the gateway sets: IPV4_DEVCONF_* of linux/ip.h."""

    ACCEPT_REDIRECTS = 4
    ARP_ANNOUNCE = 18
    ARP_IGNORE = 19
    SRC_VALID_MARK = 24


class _Devconf(nla):  # type: ignore[misc]  # pyroute2 has no types
    nla_flags = NLA_F_NESTED
    nla_map = tuple((s.value, s.name, "uint32") for s in DeviceSetting)


class _Inet(nla):  # type: ignore[misc]
    nla_flags = NLA_F_NESTED
    nla_map = ((1, "IFLA_INET_CONF", "devconf"),)
    devconf = _Devconf


class _Families(nla):  # type: ignore[misc]
    nla_flags = NLA_F_NESTED
    nla_map = ((socket.AF_INET.value, "AF_INET", "inet"),)
    inet = _Inet


class _SettingsMessage(nlmsg):  # type: ignore[misc]
    """The part of a link message that carries IPv4 settings; pyroute2 can only read it."""

    fields = ifinfmsg.fields
    nla_map = ((26, "IFLA_AF_SPEC", "families"),)
    families = _Families


class Network:
    """The namespace that the process is in; `tunnel` is the name of the tunnel's interface."""

    def __init__(self, tunnel: str) -> None:
        self._tunnel = tunnel
        self._rtnl = Netlink(socket.NETLINK_ROUTE)

    def facts(self) -> Facts:
        """Return the uplinks that are up, with their addresses, and the routes of the main table.

        A link that is down carries nothing, so it is no uplink; setting it up is an event.
        """
        found = {
            link["index"]: link
            for link in self._rtnl.dump("list links", message(ifinfmsg, {}), RTM_GETLINK)
            if not link["flags"] & IFF_LOOPBACK and not self._is_tunnel(link)
        }
        links = {index: link for index, link in found.items() if link["flags"] & IFF_UP}
        down = (found[index].get_attr("IFLA_IFNAME") for index in sorted(found.keys() - links))
        addresses: dict[int, list[Interface]] = {index: [] for index in links}
        for entry in self._addresses():
            if entry["index"] in addresses and entry["scope"] < RT_SCOPE_LINK:
                addresses[entry["index"]].append(_interface(entry))
        names = {index: link.get_attr("IFLA_IFNAME") for index, link in links.items()}
        table = routes.main_table(self._rtnl, names)
        uplinks = tuple(
            Uplink(
                names[index],
                index,
                link.get_attr("IFLA_MTU"),
                tuple(addresses[index]),
                table.routers.get(names[index], ()),
            )
            for index, link in sorted(links.items())
        )
        return Facts(
            uplinks,
            table.routes,
            all_routes=table.is_whole,
            down=tuple(name for name in down if is_nameable(name)),
        )

    def apply_routing(self, wanted: Routing) -> None:
        """Make the gateway's tables and its band of policy rules hold exactly `wanted`.

        What is missing is added before anything surplus goes. Raises NetworkError, and leaves what
        was added so far: the more of it stands, the stricter.
        """
        routes.apply(self._rtnl, wanted)

    def has_routing(self, wanted: Routing) -> bool:
        """Say whether all of `wanted` stands, whatever stands beside it."""
        return routes.stands(self._rtnl, wanted)

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Return what the kernel has otherwise than `wanted`, in the words of ip(8)."""
        return routes.drift(self._rtnl, wanted)

    def is_tunnel(self, name: str) -> bool:
        """Say whether the link `name` is the tunnel's. Raises NetworkError when there is none."""
        return name == self._tunnel and self._is_tunnel(self._link(name))

    def is_up(self, name: str) -> bool:
        """Say whether there is a link `name` and it is set up."""
        return self.index(name) is not None and bool(self._link(name)["flags"] & IFF_UP)

    def addresses_of(self, name: str) -> set[Address]:
        """Return the addresses of the link `name`; none when there is no such link."""
        index = self.index(name)
        return {_interface(entry).ip for entry in self._addresses() if entry["index"] == index}

    def index(self, name: str) -> int | None:
        """Return the kernel's index of the link `name`, or None when there is none.

        Raises NetworkError when the kernel could not be asked.
        """
        try:
            return socket.if_nametoindex(name)
        except OSError as err:
            if is_shortage(err):
                raise NetworkError(f"look up a link: {err.strerror}", name, err.errno) from err
            return None

    def delete_link(self, name: str) -> None:
        """Remove the tunnel's link `name`; no error when there is none.

        Raises NetworkError for a link of another kind: it is somebody's network.
        """
        index = self.index(name)
        if index is None:
            return
        try:
            self._require_tunnel(name)
            self._rtnl.change("delete link", name, message(ifinfmsg, {"index": index}), RTM_DELLINK)
        except NetworkError as err:
            if err.errno != errno.ENODEV:
                raise
        if self.index(name) == index:
            raise NetworkError("delete link: it is still there", name)
        applied.show(lambda: [f"ip link delete {name}"])

    def add_link(self, name: str, kind: str) -> None:
        """Make a link of the rtnetlink `kind`, such as `wireguard`; it is down."""
        self._rtnl.change(
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

    def add_addresses(self, name: str, addresses: Iterable[Interface]) -> None:
        """Add host addresses to the link `name`: no prefix, no route, no duplicate detection."""
        wanted = tuple(dict.fromkeys(interface.ip for interface in addresses))
        index = self._link(name)["index"]
        if any(isinstance(address, IPv6Address) for address in wanted):
            self._enable_ipv6(name)
        for address in wanted:
            self._add_address(name, index, address)
        usable = {
            _interface(entry).ip
            for entry in self._addresses()
            if entry["index"] == index and not _flags(entry) & (IFA_F_DADFAILED | IFA_F_TENTATIVE)
        }
        for address in wanted:
            if address not in usable:
                raise NetworkError(f"add address {address}: it is not usable", name)

    def set_device(self, name: str, settings: Mapping[DeviceSetting, int]) -> None:
        """Set IPv4 settings of the link `name` over netlink, which needs no writable /proc/sys."""
        devconf = {"attrs": [(setting.name, value) for setting, value in settings.items()]}
        families = {"attrs": [("AF_INET", {"attrs": [("IFLA_INET_CONF", devconf)]})]}
        index = self._link(name)["index"]
        request = message(_SettingsMessage, {"index": index}, [("IFLA_AF_SPEC", families)])
        self._rtnl.change("set IPv4 settings", name, request, RTM_SETLINK)
        wrong = [
            f"{setting.name.lower()} is {found}, not {settings[setting]}"
            for setting, found in self.device(name).items()
            if setting in settings and found != settings[setting]
        ]
        if wrong:
            raise NetworkError(f"set IPv4 settings: {', '.join(wrong)}", name)
        applied.show(
            lambda: [
                f"sysctl -w net.ipv4.conf.{name}.{setting.name.lower()}={value}"
                for setting, value in settings.items()
            ]
        )

    def device(self, name: str) -> dict[DeviceSetting, int]:
        """Return the IPv4 settings of the link `name`."""
        families = self._link(name).get_attr("IFLA_AF_SPEC")
        inet = families and families.get_attr("AF_INET")
        if not inet:
            raise NetworkError("read IPv4 settings: the link has none", name)
        # pyroute2 reads the whole attribute as numbers, its header first, so that the number at
        # position n is the setting with index n.
        values = [inet[field] for field, _ in inet.fields]
        return {setting: values[setting] for setting in DeviceSetting}

    def _is_tunnel(self, link: Any) -> bool:
        """Say whether `link` is the tunnel's: by its kind too, any link may bear the name."""
        return bool(
            link.get_attr("IFLA_IFNAME") == self._tunnel and link["ifi_type"] == ARPHRD_NONE
        )

    def _require_tunnel(self, name: str) -> None:
        if self._link(name)["ifi_type"] != ARPHRD_NONE:
            what = "a link that is no tunnel has the tunnel's name, give it another one"
            raise NetworkError(what, name, errno.EEXIST)

    def _link(self, name: str) -> Any:
        index = self.index(name)
        if index is None:
            raise NetworkError("there is no such link", name, errno.ENODEV)
        return self._rtnl.get("read link", name, message(ifinfmsg, {"index": index}), RTM_GETLINK)

    def _set_link(
        self, what: str, name: str, fields: Mapping[str, int], attributes: Any = ()
    ) -> None:
        index = self._link(name)["index"]
        request = message(ifinfmsg, {"index": index, **fields}, attributes)
        self._rtnl.change(what, name, request, RTM_NEWLINK)

    def _addresses(self) -> list[Any]:
        entries = self._rtnl.dump(
            "list addresses", message(ifaddrmsg, {"family": socket.AF_UNSPEC}), RTM_GETADDR
        )
        return [e for e in entries if e["family"] in {socket.AF_INET, socket.AF_INET6}]

    def _add_address(self, name: str, index: int, address: Address) -> None:
        request = message(
            ifaddrmsg,
            {
                "family": socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET,
                "prefixlen": address.max_prefixlen,
                "index": index,
            },
            [
                ("IFA_LOCAL", str(address)),
                ("IFA_ADDRESS", str(address)),
                ("IFA_FLAGS", IFA_F_NODAD | IFA_F_NOPREFIXROUTE),
            ],
        )
        flags = NLM_F_CREATE | NLM_F_EXCL
        self._rtnl.change(f"add address {address}", name, request, RTM_NEWADDR, flags)
        host = f"{address}/{address.max_prefixlen} dev {name} noprefixroute"
        nodad = " nodad" if isinstance(address, IPv6Address) else ""
        applied.show(lambda: [f"ip address add {host}{nodad}"])

    @staticmethod
    def _enable_ipv6(name: str) -> None:
        """Switch IPv6 on for a link that inherited it off, where /proc/sys can be written."""
        setting = IPV6_SETTINGS / name / "disable_ipv6"
        try:
            if setting.read_text("ascii").strip() != "0":
                setting.write_text("0", "ascii")
                applied.show(lambda: [f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0"])
        except OSError as err:
            raise NetworkError(
                "IPv6 is switched off here (sysctl net.ipv6.conf.all.disable_ipv6)", name, err.errno
            ) from err


def ipv6_usable() -> bool:
    """Say whether a new link can have IPv6 addresses.

    Docker switches IPv6 off in namespaces without an IPv6 network and makes /proc/sys read-only;
    `sysctls: net.ipv6.conf.all.disable_ipv6: 0` on the container is the remedy. Raises
    NetworkError when the setting could not be read for now.
    """
    setting = IPV6_SETTINGS / "default" / "disable_ipv6"
    try:
        if setting.read_text("ascii").strip() == "0":
            return True
        with setting.open("r+"):
            return True
    except OSError as err:
        if is_shortage(err):
            raise NetworkError(f"read: {err.strerror}", str(setting), err.errno) from err
        return False


def _interface(entry: Any) -> Interface:
    """Return the local address of `entry` with its prefix; on links to one peer they differ."""
    local = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
    return ip_interface(f"{ip_address(local)}/{entry['prefixlen']}")


def _flags(entry: Any) -> int:
    flags: int = entry.get_attr("IFA_FLAGS")
    return entry["flags"] if flags is None else flags
