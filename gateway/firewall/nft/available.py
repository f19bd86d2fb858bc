"""Whether the kernel has nftables at all, asked without the program nft."""

import errno
import socket
import struct

from gateway.errors import FirewallError, MissingError

TIMEOUT = 1.0
"""Seconds to wait for the kernel's answer, which comes at once."""

_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2
_REQUEST = 1
_GET_GENERATION = 10 << 8 | 16  # subsystem NFNL_SUBSYS_NFTABLES, message NFT_MSG_GETGEN


def kernel_has_nf_tables() -> bool:
    """Ask the kernel for the generation of its nftables rules, nft_get_gen in its uapi headers.

    Raises MissingError when it may not be asked, which takes CAP_NET_ADMIN, and FirewallError when
    it does not answer.
    """
    family = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
    request = struct.pack("=IHHII", 16 + len(family), _GET_GENERATION, _REQUEST, 0, 0) + family
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.settimeout(TIMEOUT)
            netlink.send(request)
            answer = netlink.recv(4096)
    except OSError as err:
        if err.errno in {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT}:
            return False
        raise FirewallError("asking for nftables", str(err), err.errno) from err
    if struct.unpack_from("=H", answer, 4)[0] != _NLMSG_ERROR:
        return True
    if -struct.unpack_from("=i", answer, 16)[0] in {errno.EPERM, errno.EACCES}:
        raise MissingError("the capability NET_ADMIN", "give the container `cap_add: [NET_ADMIN]`")
    return False
