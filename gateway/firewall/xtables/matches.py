"""Which match extensions the legacy tables of this kernel have.

A table that is committed with a match that the kernel lacks is refused as a whole, so the kernel is
asked before. It looks the module up and loads it, as for a commit (net/netfilter/x_tables.c,
xt_find_revision).
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from gateway.errors import FirewallError
from gateway.firewall.xtables.packing import MULTIPORT
from gateway.firewall.xtables.render import EXTRA_HEADERS, Kernel
from gateway.model.name_server import RESOLVER_USER
from gateway.model.proxies import PROXY_USER
from gateway.policy.rules import Family
from gateway.system.features import knows_users, lacks_id
from gateway.system.netns import Netns

OWNER = ("owner", 1)
"""The match for the user of a socket, and its revision."""

_REVISION = struct.Struct("=29sB")
"""struct xt_get_revision (linux/netfilter/x_tables.h): the name of an extension, and a revision."""

_SOCKETS = {
    Family.IPV4: (socket.AF_INET, socket.IPPROTO_IP, 66),
    Family.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6, 68),
}
"""Family, level and IPT_SO_GET_REVISION_MATCH or IP6T_SO_GET_REVISION_MATCH."""

_ABSENT = {errno.ENOENT, errno.EPROTONOSUPPORT}

_getsockopt = ctypes.CDLL(None, use_errno=True)["getsockopt"]


def kernel_in(netns: Netns) -> Callable[[Family], Kernel]:
    """Return the answer to what the kernel can match in rules of `netns`, for each family.

    It refuses the match for users in a network that another user namespace than ours owns, however
    it has that, and for ids that ours lacks (net/netfilter/xt_owner.c, owner_check). Raises
    FirewallError.
    """
    try:
        if not knows_users(netns):
            return lambda family: replace(kernel_of(family), owner=False, has_our_users=False)
    except OSError as err:
        what = "asking the kernel who owns the network"
        raise FirewallError(what, str(err.strerror), err.errno) from err
    if any(map(lacks_id, (RESOLVER_USER, PROXY_USER))):
        return lambda family: replace(kernel_of(family), owner=False, has_ids=False)
    return kernel_of


@cache
def kernel_of(family: Family) -> Kernel:
    """Return what the kernel can match in rules of `family`. Raises FirewallError."""
    return Kernel(
        extra_headers=has_match(family, EXTRA_HEADERS[family].name),
        owner=has_match(family, *OWNER),
        multiport=has_match(family, *MULTIPORT),
    )


def has_match(family: Family, name: str, revision: int = 0) -> bool:
    """Return whether the kernel has this `revision` of the match `name` for `family`.

    Raises FirewallError when it cannot be asked, for want of CAP_NET_ADMIN for one.
    """
    kind, level, option = _SOCKETS[family]
    wanted = ctypes.create_string_buffer(_REVISION.pack(name.encode(), revision), _REVISION.size)
    size = ctypes.c_uint32(_REVISION.size)
    what = f"asking the kernel for the match {name}"
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as channel:
            if _getsockopt(channel.fileno(), level, option, wanted, ctypes.byref(size)) == 0:
                return True
            number = ctypes.get_errno()
    except OSError as err:
        raise FirewallError(what, str(err.strerror), err.errno) from err
    if number in _ABSENT:
        return False
    raise FirewallError(what, os.strerror(number), number)
