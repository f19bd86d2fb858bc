"""Connection tracking: all flows are forgotten, so that none outlives a change of rules."""

import errno
import socket

from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from gateway.errors import MissingError, NetworkError
from gateway.system.netlink import Netlink, message

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8
GET = CTNETLINK | 1
DELETE = CTNETLINK | 2
"""Message types of linux/netfilter/nfnetlink_conntrack.h in the subsystem ctnetlink."""

ATTEMPTS = 3
NOT_THERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}
"""How kernels answer that lack nfnetlink (socket) or its conntrack part (nfnetlink_rcv_msg)."""


def flush() -> None:
    """Forget all flows of both families, and read back that none of them is left.

    Flows that begin meanwhile are new ones and stay. Raises MissingError when the kernel has no
    interface to its flows, NetworkError when they cannot be removed.
    """
    netlink = Netlink(NETLINK_NETFILTER)
    for _ in range(ATTEMPTS):
        before = _flows(netlink)
        if not before:
            return
        # Without a tuple, and with version 0, the kernel removes the flows of every family
        # (net/netfilter/nf_conntrack_netlink.c, ctnetlink_del_conntrack).
        everything = message(nfct_msg, {"nfgen_family": socket.AF_UNSPEC, "version": 0})
        netlink.change("flush connection tracking", "", everything, DELETE)
        if not before & _flows(netlink):
            return
    raise NetworkError("flush connection tracking: old flows are still there")


def _flows(netlink: Netlink) -> set[int]:
    everything = message(nfct_msg, {"nfgen_family": socket.AF_UNSPEC, "version": 0})
    try:
        flows = netlink.dump("read connection tracking", everything, GET)
    except NetworkError as err:
        if err.errno in NOT_THERE:
            raise MissingError(
                "the kernel's interface to connection tracking (nf_conntrack_netlink) is missing",
                "load that module on the host: modprobe nf_conntrack_netlink",
            ) from err
        raise
    return {flow.get_attr("CTA_ID") for flow in flows}
