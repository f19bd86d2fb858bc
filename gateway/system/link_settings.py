"""Settings of links: those of IPv4 for each device over rtnetlink, and whether they have IPv6.

Netlink needs no writable /proc/sys, which containers do not have. What is set is read back: an
attribute that the kernel does not know is ignored silently.
"""

import os
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

from gateway.errors import NetworkError, is_shortage
from gateway.system import applied
from gateway.system.messages import NLA_F_NESTED, ifinfmsg, nla, nlmsg
from gateway.system.netlink import ATTRIBUTE, RTM_SETLINK, Netlink, attributes_in, message
from gateway.system.netns import OWN, Netns

LINK_MESSAGE = struct.Struct("=BxHiII")
"""struct ifinfomsg of linux/rtnetlink.h: what a message about a link begins with."""
NUMBER = struct.Struct("=I")
IFLA_IFNAME, IFLA_AF_SPEC, IFLA_EXT_MASK = 3, 26, 29
IFLA_INET_CONF = 1
"""Attributes of linux/if_link.h."""
RTEXT_FILTER_SKIP_STATS = 1 << 3
"""Leaves out what IPv6 counts (net/ipv6/addrconf.c, inet6_fill_ifla6_attrs), but not the packets of
the link."""

IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf")


class DeviceSetting(IntEnum):
    """The per-device IPv4 settings that the gateway sets: IPV4_DEVCONF_* of linux/ip.h."""

    FORWARDING = 1
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


UPLINK_SETTINGS = {
    DeviceSetting.SRC_VALID_MARK: 1,
    DeviceSetting.ARP_IGNORE: 1,
    DeviceSetting.ARP_ANNOUNCE: 2,
    DeviceSetting.ACCEPT_REDIRECTS: 0,
}
"""What the promises need of an uplink (kernel documentation, networking/ip-sysctl).

The mark counts in reverse-path filtering, so that marked packets pass it where it is strict. ARP
neither answers for the tunnel's address nor asks in its name. Redirects are not welcome, though
only the firewall keeps them out where the setting of all links allows them.
"""


FORWARD = {DeviceSetting.FORWARDING: 1}
"""What comes in on the link may be forwarded, if the rules accept it."""


def put(rtnl: Netlink, name: str, index: int, settings: Mapping[DeviceSetting, int]) -> None:
    """Set IPv4 settings of the link `name`, which has this `index`. Raises NetworkError."""
    devconf = {"attrs": [(setting.name, value) for setting, value in settings.items()]}
    families = {"attrs": [("AF_INET", {"attrs": [("IFLA_INET_CONF", devconf)]})]}
    request = message(_SettingsMessage, {"index": index}, [("IFLA_AF_SPEC", families)])
    rtnl.change("set IPv4 settings", name, request, RTM_SETLINK)


def require(
    name: str, found: Mapping[DeviceSetting, int], wanted: Mapping[DeviceSetting, int]
) -> None:
    """Raise NetworkError if the settings `found` on the link `name` are not those `wanted`."""
    if wrong := differences(found, wanted):
        raise NetworkError(f"set IPv4 settings: {', '.join(wrong)}", name)


def differences(
    found: Mapping[DeviceSetting, int], wanted: Mapping[DeviceSetting, int]
) -> tuple[str, ...]:
    """Return a line for each setting that is not as `wanted`."""
    return tuple(
        f"{setting.name.lower()} is {found[setting]}, not {value}"
        for setting, value in wanted.items()
        if found[setting] != value
    )


def question(name: str) -> bytes:
    """Return the request RTM_GETLINK for the link `name`, without the counters of IPv6."""
    text = os.fsencode(name) + b"\0"
    named = ATTRIBUTE.pack(ATTRIBUTE.size + len(text), IFLA_IFNAME) + text + bytes(-len(text) % 4)
    mask = NUMBER.pack(RTEXT_FILTER_SKIP_STATS)
    masked = ATTRIBUTE.pack(ATTRIBUTE.size + len(mask), IFLA_EXT_MASK) + mask
    return LINK_MESSAGE.pack(0, 0, 0, 0, 0) + named + masked


def of_link(body: bytes, name: str) -> dict[DeviceSetting, int]:
    """Return the IPv4 settings in `body`, the message about the link `name`. Raises NetworkError.

    They are read every few seconds, so their numbers are taken from the bytes. The setting with the
    index n is the n-th number, from 1 (net/ipv4/devinet.c, inet_fill_link_af).
    """
    families = attributes_in(body, LINK_MESSAGE.size).get(IFLA_AF_SPEC, b"")
    inet = attributes_in(families, 0).get(socket.AF_INET.value, b"")
    numbers = attributes_in(inet, 0).get(IFLA_INET_CONF, b"")
    if len(numbers) < NUMBER.size * max(DeviceSetting):
        raise NetworkError("read IPv4 settings: the link has none", name)
    return {
        setting: NUMBER.unpack_from(numbers, NUMBER.size * (setting - 1))[0]
        for setting in DeviceSetting
    }


def enable_ipv6(netns: Netns, name: str) -> None:
    """Switch IPv6 on for a link that inherited it off, where /proc/sys can be written.

    Raises NetworkError where it cannot.
    """
    setting = IPV6_SETTINGS / name / "disable_ipv6"
    try:
        if netns.read(setting).strip() != "0":
            netns.write(setting, "0")
            applied.show(lambda: [f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0"])
    except OSError as err:
        raise NetworkError(
            "IPv6 is switched off here (sysctl net.ipv6.conf.all.disable_ipv6)", name, err.errno
        ) from err


def ipv6_usable(netns: Netns = OWN) -> bool:
    """Return whether a new link of `netns` can have IPv6 addresses.

    Docker switches IPv6 off in namespaces without an IPv6 network and makes /proc/sys read-only;
    `sysctls: net.ipv6.conf.all.disable_ipv6: 0` on the container is the remedy. Raises
    NetworkError when the setting could not be read for now.
    """
    setting = IPV6_SETTINGS / "default" / "disable_ipv6"
    try:
        return netns.read(setting).strip() == "0" or netns.is_writable(setting)
    except OSError as err:
        if is_shortage(err):
            raise NetworkError(f"read: {err.strerror}", str(setting), err.errno) from err
        return False
