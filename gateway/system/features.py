"""What the kernel has at all, in any namespace, and which capabilities the process has.

Standard library only.
"""

import ctypes
import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from gateway.errors import is_shortage
from gateway.system.netns import OWN, Netns

PROC = Path("/proc")

AF_XDP = 44
"""For which the socket module has no name before Python 3.15."""

NS_GET_USERNS = 0xB701
"""The request for the user namespace that owns another one (ioctl_nsfs(2))."""

MEMBARRIER = {"x86_64": 324, "aarch64": 283, "armv7l": 389}
"""The number of the system call, for which libc has no name, by machine."""

MEMBARRIER_GLOBAL = 1

SETTLING_TIME = 0.05
"""Seconds to wait where the kernel cannot say; a packet passes all rules in microseconds."""

CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
}
"""The capabilities that the gateway asks about, by their number in linux/capability.h."""


def has_ipv6() -> bool:
    """Return whether the kernel speaks IPv6; its module may be loaded at any time.

    Without IPv6 (not built, or ipv6.disable=1) nothing registers the address family
    (net/ipv6/af_inet6.c, inet6_init), and nothing of it is in /proc. Both are asked: a filter of
    system calls refuses the family in the same words, and /proc may not be there. Any other
    error counts as having it.
    """
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as err:
        return err.errno != errno.EAFNOSUPPORT or not lacks_ipv6(PROC)
    return True


def lacks_ipv6(proc: Path) -> bool:
    """Return whether `proc` can be read and shows nothing of IPv6."""
    try:
        (proc / "self/net/dev").read_bytes()
    except OSError:
        return False
    for trace in ("self/net/if_inet6", "sys/net/ipv6"):
        try:
            (proc / trace).stat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return False
    return True


def has_xdp() -> bool:
    """Return whether the kernel knows AF_XDP sockets, though we may not have one."""
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
    except OSError as err:
        return err.errno not in {errno.EAFNOSUPPORT, errno.ENOENT}
    return True


def wait_for_packets_in_flight() -> None:
    """Return when every packet that was on its way through the rules has left them.

    A packet passes one table after the other, so one that was marked by a former table can meet a
    new one. It does so in one read-side section of RCU (net/netfilter/core.c, nf_hook), and
    membarrier(2) waits until all sections end that had begun: some 15 ms.
    """
    number = MEMBARRIER.get(os.uname().machine)
    libc = ctypes.CDLL(None)
    if number is None or os.cpu_count() == 1 or libc.syscall(number, MEMBARRIER_GLOBAL, 0, 0):
        time.sleep(SETTLING_TIME)


def missing_capabilities(*wanted: str, status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Return those of the `wanted` capabilities (names without CAP_) that are not effective.

    Source: `CapEff` of proc(5). Without a readable `status` all of them count as missing; none
    does while it cannot be read only for now, because nothing is known then.
    """
    try:
        lines = status.read_text("ascii").splitlines()
    except OSError as err:
        return () if is_shortage(err) else wanted
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return tuple(name for name in wanted if not effective >> CAPABILITIES[name] & 1)


def lacks_id(number: int, folder: Path = Path("/proc/self")) -> bool:
    """Return whether our user namespace has no user or no group of that `number`.

    No process can become that user then. Source: `uid_map` of user_namespaces(7). What cannot be
    read says nothing.
    """
    try:
        maps = [(folder / name).read_text("ascii") for name in ("uid_map", "gid_map")]
    except OSError:
        return False
    return not all(_has(number, text) for text in maps)


def _has(number: int, text: str) -> bool:
    lines = (map(int, line.split()) for line in text.splitlines() if line.strip())
    return any(first <= number < first + count for first, _outside, count in lines)


def gains_no_privileges(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether no program that this process becomes gets a capability (PR_SET_NO_NEW_PRIVS).

    So it is where that cannot be read, too.
    """
    try:
        return "NoNewPrivs:\t0" not in status.read_text("ascii").splitlines()
    except OSError:
        return True


def knows_users(netns: Netns = OWN) -> bool:
    """Return whether rules of `netns` know users by the ids that they have here.

    nftables compares ids as the user namespace sees them that owns the network namespace
    (net/netfilter/nft_meta.c, nft_meta_get_eval_skugid), and the legacy tables refuse such rules of
    any other (net/netfilter/xt_owner.c, owner_check). What cannot be asked counts as no. Raises
    OSError for a shortage.
    """
    try:
        network = netns.descriptor()
        try:
            owner = fcntl.ioctl(network, NS_GET_USERNS)
        finally:
            os.close(network)
        try:
            return os.path.samestat(os.fstat(owner), (PROC / "self/ns/user").stat())
        finally:
            os.close(owner)
    except OSError as err:
        if is_shortage(err):
            raise
        return False
