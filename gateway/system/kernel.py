"""What the kernel has at all, in any namespace; standard library only."""

import errno
import socket


def has_ipv6() -> bool:
    """Say whether the kernel speaks IPv6.

    Asked of the kernel itself and not of /proc, which may not be there: without IPv6 (not built,
    or ipv6.disable=1) nothing registers the address family (net/ipv6/af_inet6.c, inet6_init).
    Whatever else goes wrong counts as having it.
    """
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as err:
        return err.errno != errno.EAFNOSUPPORT
    return True
