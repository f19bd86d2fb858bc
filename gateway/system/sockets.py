"""Who has a UDP port: the namespace's sockets as proc(5) lists them."""

from pathlib import Path

from gateway.system.netns import OWN, Netns

PROC = Path("/proc")
LOCAL_ADDRESS = 1
INODE = 9
"""Columns of /proc/net/udp (net/ipv4/udp.c, udp4_format_sock)."""


def udp_sockets(port: int, proc: Path = PROC, netns: Netns = OWN) -> frozenset[int]:
    """Return the inodes of the sockets of `netns` with the local UDP `port`, both families."""
    inodes = set()
    for table in ("udp", "udp6"):
        try:
            lines = netns.read(proc / "thread-self/net" / table).splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            columns = line.split()
            if int(columns[LOCAL_ADDRESS].rpartition(":")[2], 16) == port:
                inodes.add(int(columns[INODE]))
    return frozenset(inodes)


def sockets_of(pid: int, proc: Path = PROC) -> frozenset[int]:
    """Return the inodes of the sockets that process `pid` has open; none when it has gone."""
    inodes = set()
    try:
        for descriptor in (proc / str(pid) / "fd").iterdir():
            kind, _, number = str(descriptor.readlink()).partition(":")
            if kind == "socket":
                inodes.add(int(number.strip("[]")))
    except FileNotFoundError:  # the process, or the descriptor meanwhile
        pass
    return frozenset(inodes)
