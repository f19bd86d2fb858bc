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
from functools import cache

from gateway.errors import FirewallError
from gateway.firewall.xtables.render import EXTRA_HEADERS
from gateway.policy.rules import Family

_REVISION = struct.Struct("=29sB")
"""struct xt_get_revision (linux/netfilter/x_tables.h): the name of an extension, and a revision."""

_SOCKETS = {
    Family.IPV4: (socket.AF_INET, socket.IPPROTO_IP, 66),
    Family.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6, 68),
}
"""Family, level and IPT_SO_GET_REVISION_MATCH or IP6T_SO_GET_REVISION_MATCH."""

_ABSENT = {errno.ENOENT, errno.EPROTONOSUPPORT}

_getsockopt = ctypes.CDLL(None, use_errno=True)["getsockopt"]


@cache
def sees_extra_headers(family: Family) -> bool:
    """Return whether the kernel has the match for `Rule.extra_headers`. Raises FirewallError."""
    return has_match(family, EXTRA_HEADERS[family].name)


def has_match(family: Family, name: str) -> bool:
    """Return whether the kernel has the match `name`, in its first revision, for `family`.

    Raises FirewallError when it cannot be asked, for want of CAP_NET_ADMIN for one.
    """
    kind, level, option = _SOCKETS[family]
    wanted = ctypes.create_string_buffer(_REVISION.pack(name.encode(), 0), _REVISION.size)
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
