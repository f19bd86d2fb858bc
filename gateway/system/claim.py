"""One gateway for one network namespace."""

import errno
import socket
from contextlib import suppress
from pathlib import Path

from gateway.errors import MissingError, NetworkError
from gateway.system.features import missing_capabilities
from gateway.system.netns import OWN, Netns
from gateway.system.sockets import sockets_of

PROC = Path("/proc")

NAME = "\0portcullis"
"""An abstract address: it belongs to the network namespace and ends with its holder (unix(7))."""

FLAGS, INODE, PATH = 3, 6, 7
"""Columns of /proc/net/unix (net/unix/af_unix.c, unix_seq_show)."""
LISTENS = b"00010000"
"""The flag of a socket that others can connect to (__SO_ACCEPTCON)."""
SHOWN_NAME = NAME.replace("\0", "@").encode()


def claim(netns: Netns = OWN) -> socket.socket:
    """Take `netns` for this process, as long as the returned socket is open.

    Raises MissingError when another gateway of this container has it. A holder from elsewhere is a
    workload that wants to keep the gateway out, and is passed over: it has no process that this one
    can see. Where containers share their processes too, it is known by what it may not do.
    """
    mine = netns.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mine.bind(NAME)
        mine.listen(1)
    except OSError as err:
        if err.errno != errno.EADDRINUSE:
            mine.close()
            raise NetworkError(f"claim the namespace: {err.strerror}", "", err.errno) from err
        if pid := holder(netns):
            mine.close()
            raise MissingError(
                f"process {pid} is the gateway of this network namespace already",
                "ask it with `gateway status`; its rules are back within seconds",
            ) from err
    return mine


def could_be_a_gateway(process: Path) -> bool:
    """Return whether the process with the /proc directory `process` can change this namespace.

    It needs NET_ADMIN in our user namespace: in one of its own everybody can have it.
    """
    try:
        ours = (PROC / "self/ns/user").stat().st_ino == (process / "ns/user").stat().st_ino
    except OSError:  # it is gone, or not ours to look at
        return False
    return ours and not missing_capabilities("NET_ADMIN", status=process / "status")


def holder(netns: Netns = OWN) -> int:
    """Return the id of the process that is the gateway of `netns`, 0 where none can be seen.

    From the kernel's list and not by a connection: the gateway accepts none, and they stay in a
    queue that any workload can fill. A name may have a line feed in it and so forge a line of the
    list: where two sockets seem to have our name, it is not known who has it.
    """
    inodes = set()
    with netns.entered(), (PROC / "thread-self/net/unix").open("rb") as lines:
        for line in lines:
            columns = line.split()
            if columns[PATH:] == [SHOWN_NAME] and columns[FLAGS] == LISTENS:
                inodes.add(columns[INODE])
    if len(inodes) != 1 or not (inode := inodes.pop()).isdigit():
        return 0
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it is not ours to look at, so it is not ours
            if int(inode) in sockets_of(int(process.name)) and could_be_a_gateway(process):
                return int(process.name)
    return 0
