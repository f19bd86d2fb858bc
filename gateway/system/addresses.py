"""Addresses of links over rtnetlink, added and read back."""

import socket
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address, ip_interface
from typing import Any

from gateway.errors import NetworkError
from gateway.model import Address, Interface
from gateway.system import applied
from gateway.system.link_alias import IFA_F_NODAD
from gateway.system.messages import ifaddrmsg
from gateway.system.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_GETADDR,
    RTM_NEWADDR,
    Netlink,
    message,
)

IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40
IFA_F_NOPREFIXROUTE = 0x200
RT_SCOPE_LINK = 253
"""Addresses of this scope and narrower ones are link-local, or the host's own."""


def listed(rtnl: Netlink) -> list[Any]:
    """Return the messages about all addresses of both families."""
    everything = message(ifaddrmsg, {"family": socket.AF_UNSPEC})
    entries = rtnl.dump("list addresses", everything, RTM_GETADDR)
    return [e for e in entries if e["family"] in {socket.AF_INET, socket.AF_INET6}]


def of_links(rtnl: Netlink, indexes: Collection[int]) -> dict[int, list[Interface]]:
    """Return the addresses of the links with these `indexes`, without link-local ones."""
    found: dict[int, list[Interface]] = {index: [] for index in indexes}
    for entry in listed(rtnl):
        if entry["index"] in found and entry["scope"] < RT_SCOPE_LINK:
            found[entry["index"]].append(local(entry))
    return found


def add(rtnl: Netlink, name: str, index: int, wanted: Collection[Address]) -> None:
    """Add host addresses to the link `name`: no prefix, no route, no duplicate detection.

    Raises NetworkError, also when one of them is not usable afterwards.
    """
    for address in wanted:
        _add(rtnl, name, index, address)
    usable = {
        local(entry).ip
        for entry in listed(rtnl)
        if entry["index"] == index and not _flags(entry) & (IFA_F_DADFAILED | IFA_F_TENTATIVE)
    }
    for address in wanted:
        if address not in usable:
            raise NetworkError(f"add address {address}: it is not usable", name)


def local(entry: Any) -> Interface:
    """Return the local address of `entry` with its prefix; on links to one peer they differ."""
    address = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
    return ip_interface(f"{ip_address(address)}/{entry['prefixlen']}")


def _add(rtnl: Netlink, name: str, index: int, address: Address) -> None:
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
    rtnl.change(f"add address {address}", name, request, RTM_NEWADDR, flags)
    host = f"{address}/{address.max_prefixlen} dev {name} noprefixroute"
    nodad = " nodad" if isinstance(address, IPv6Address) else ""
    applied.show(lambda: [f"ip address add {host}{nodad}"])


def _flags(entry: Any) -> int:
    flags: int = entry.get_attr("IFA_FLAGS")
    return entry["flags"] if flags is None else flags
