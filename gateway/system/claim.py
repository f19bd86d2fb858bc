"""One gateway for one network namespace."""

import errno
import socket
import struct
from pathlib import Path

from gateway.errors import MissingError, NetworkError
from gateway.system.features import missing_capabilities
from gateway.system.netns import OWN, Netns

PROC = Path("/proc")

NAME = "\0portcullis"
"""An abstract address: it belongs to the network namespace and ends with its holder (unix(7))."""

CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


def claim(netns: Netns = OWN) -> socket.socket:
    """Take `netns` for this process, as long as the returned socket is open.

    Raises MissingError when another gateway of this container has it. A holder from elsewhere is a
    workload that wants to keep the gateway out, and is passed over: the kernel shows the process
    id of a peer only within one process namespace, 0 otherwise (SO_PEERCRED). Where containers
    share that too, it is known by what it may not do.
    """
    mine = netns.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mine.bind(NAME)
        mine.listen(1)
    except OSError as err:
        if err.errno != errno.EADDRINUSE:
            mine.close()
            raise NetworkError(f"claim the namespace: {err.strerror}", "", err.errno) from err
        holder = _holder(netns)
        if holder and could_be_a_gateway(PROC / str(holder)):
            mine.close()
            raise MissingError(
                f"process {holder} is the gateway of this network namespace already",
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


def _holder(netns: Netns) -> int:
    """Return the id of the process that has the name, 0 where we cannot see it."""
    with netns.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(NAME)
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        except OSError:
            return 0
    pid: int = CREDENTIALS.unpack(peer)[0]
    return pid
