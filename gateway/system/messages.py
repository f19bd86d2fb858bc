"""The netlink messages of pyroute2, and no more of it.

The package imports its whole interface with the first of its modules: databases, drivers of other
systems, a simulation for tests. That takes 85 ms and 16 MiB, and the gateway uses only the classes
that encode and decode messages. So they are imported alone (`gateway.system.lean`).
"""

from functools import cache

from gateway.system import lean

with lean.pyroute2():
    from pyroute2.netlink import NLA_F_NESTED, ctrlmsg, nla, nlmsg
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = [
    "NLA_F_NESTED",
    "ctrlmsg",
    "fibmsg",
    "ifaddrmsg",
    "ifinfmsg",
    "nla",
    "nlmsg",
    "rtmsg",
    "wireguard_message",
]


@cache
def wireguard_message() -> type[nlmsg]:
    """Return the class of WireGuard's messages, which imports more than the others."""
    from pyroute2.netlink.generic.wireguard import wgmsg  # noqa: PLC0415 - see above

    message: type[nlmsg] = wgmsg
    return message
