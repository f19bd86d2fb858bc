"""Connection tracking: all flows are forgotten, so that none outlives a change of rules.

A workload can begin flows on loopback as fast as it likes. So nothing here takes longer, or more
memory, the more of them there are: the kernel forgets them all for one message, and says how many
are left for another one. Flows are compared one by one only where some are left, which is when new
ones have begun meanwhile, and no more than MOST_COMPARED of them.
"""

import errno
import struct
from itertools import islice

from gateway.errors import MissingError, NetworkError
from gateway.system import applied
from gateway.system.netlink import Netlink, attributes_in, undisturbed
from gateway.system.netns import OWN, Netns

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8
GET = CTNETLINK | 1
DELETE = CTNETLINK | 2
GET_STATS = CTNETLINK | 5
"""Message types of linux/netfilter/nfnetlink_conntrack.h in the subsystem ctnetlink."""

EVERY_FLOW = struct.pack("=BBH", 0, 0, 0)
"""struct nfgenmsg with the family AF_UNSPEC and version 0. Without a tuple, and with this version,
the kernel removes the flows of every family (nf_conntrack_netlink.c, ctnetlink_del_conntrack)."""

CTA_TUPLE_ORIG, CTA_ID = 1, 12
CTA_STATS_GLOBAL_ENTRIES = 1

ATTEMPTS = 3
MOST_COMPARED = 20_000
"""Flows of one list that are compared, some 10 us and 150 bytes each."""

NOT_THERE = {errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}
"""How kernels answer that lack nfnetlink (socket) or its conntrack part (nfnetlink_rcv_msg)."""


def flush(netns: Netns = OWN) -> None:
    """Forget all flows of both families in `netns`, and read back that none of them is left.

    Flows that begin meanwhile are new ones and stay. It takes a fraction of a second however many
    there are, and can be called on any thread. Raises MissingError when the kernel has no interface
    to its flows, NetworkError when it refuses, and when it cannot be seen that all are gone.
    """
    try:
        _flush(Netlink(netns, NETLINK_NETFILTER))
        applied.show(lambda: ["conntrack --flush"])
    except NetworkError as err:
        if err.errno in NOT_THERE:
            raise MissingError(
                "the kernel's interface to connection tracking (nf_conntrack_netlink) is missing",
                "load that module on the host: modprobe nf_conntrack_netlink",
            ) from err
        raise


def _flush(netlink: Netlink) -> None:
    netlink.send("flush connection tracking", "", EVERY_FLOW, DELETE)
    for _ in range(ATTEMPTS):
        if not _count(netlink):
            return
        before = _flows(netlink)
        netlink.send("flush connection tracking", "", EVERY_FLOW, DELETE)
        if not _count(netlink) or not before & _flows(netlink):
            return
    # The kernel forgot all, but a flow that begins again at once may get the same number.
    raise NetworkError("flush connection tracking: the kernel still lists flows like those before")


def _count(netlink: Netlink) -> int:
    """Return how many flows the namespace has."""
    for answer in netlink.send("count flows", "", EVERY_FLOW, GET_STATS):
        entries = attributes_in(answer, len(EVERY_FLOW)).get(CTA_STATS_GLOBAL_ENTRIES, b"")
        return int.from_bytes(entries, "big")
    raise NetworkError("count flows: no answer", "", errno.ENODATA)


def _flows(netlink: Netlink) -> frozenset[tuple[bytes, bytes]]:
    """Return what distinguishes the flows: the kernel's 32-bit number is not enough for many."""
    what = "read connection tracking"

    def read() -> frozenset[tuple[bytes, bytes]]:
        listed = netlink.bodies(what, EVERY_FLOW, GET)
        return frozenset(map(identity, islice(listed, MOST_COMPARED + 1)))

    found = undisturbed(read)
    if len(found) > MOST_COMPARED:
        problem = f"{what}: not compared, more than {MOST_COMPARED} flows began meanwhile"
        raise NetworkError(problem, "", errno.EOVERFLOW)
    return found


def identity(flow: bytes) -> tuple[bytes, bytes]:
    """Return the number of a listed flow and its addresses and ports, as the kernel wrote them."""
    found = attributes_in(flow, len(EVERY_FLOW))
    return found.get(CTA_ID, b""), found.get(CTA_TUPLE_ORIG, b"")
