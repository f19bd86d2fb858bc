"""AF_XDP sockets on every queue of a link, so that no other program sends through the queues.

An AF_XDP socket hands frames to the driver below every hook of a network namespace, and to open one
that sends takes only CAP_NET_RAW: in copy mode it needs no BPF program. But a queue has one owner.
The kernel refuses a second socket with EBUSY (net/xdp/xsk_buff_pool.c, xp_assign_dev) unless it
shares the owner's buffers, for which it needs the owner's descriptor. Ownership ends when the owner
closes its socket or the link leaves the namespace, and not before. So a queue that was bound once
needs no further check than whether the link has left and come back.

Our sockets only receive, and without a BPF program there is nothing to receive: they attach nothing
to the link and change no packet's way. The buffers of the first one, which is bound to the loopback
interface, serve all others: one locked page in all (XDP_SHARED_UMEM across links, Linux 5.10).
"""

import ctypes
import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterable

from gateway.errors import SHORTAGES, MissingError, NetworkError
from gateway.policy.limits import DROP_NET_RAW
from gateway.system.features import AF_XDP
from gateway.system.netns import OWN, Netns

SOL_XDP = 283
XDP_RX_RING = 2
XDP_UMEM_REG = 4
XDP_UMEM_FILL_RING = 5
XDP_UMEM_COMPLETION_RING = 6
XDP_SHARED_UMEM = 0x1
XDP_COPY = 0x2
"""Options and flags of linux/if_xdp.h."""

UMEM = struct.Struct("=QQII")
"""struct xdp_umem_reg of Linux 4.18: address, length, chunk size, headroom."""
ADDRESS = struct.Struct("=HHIII")
"""struct sockaddr_xdp: family, flags, interface index, queue, descriptor that shares its memory."""

MOST_QUEUES = 256
"""Queues of one link that are bound; a link that has more is not usable."""

LOOPBACK = "lo"
PAGE = mmap.PAGESIZE

_LIBC = ctypes.CDLL(None, use_errno=True)


class Queues:
    """The sockets in `netns`, by the index of their link."""

    def __init__(self, netns: Netns = OWN) -> None:
        """Find out whether this process can have such sockets; binds nothing yet.

        Raises MissingError without CAP_NET_RAW, and where the kernel knows no AF_XDP.
        """
        self.netns = netns
        self._memory = mmap.mmap(-1, PAGE)
        self._held: dict[int, list[socket.socket]] = {}
        self._whole: set[int] = set()
        self._lender: socket.socket | None = None
        self._spare: socket.socket | None = None
        try:
            netns.socket(AF_XDP, socket.SOCK_RAW).close()
        except OSError as err:
            if err.errno in {errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES}:
                missing = "the gateway cannot hold the queues of a link without CAP_NET_RAW"
                remedy = f"add NET_RAW to cap_add of the gateway, or {DROP_NET_RAW}"
                raise MissingError(missing, remedy) from err
            # Any other error may pass; `claim` reports it if it does not.

    def claim(self, index: int) -> None:
        """Hold every queue of the link `index`; raises NetworkError where one cannot be held.

        Its errno is EBUSY where another socket has the queue. Queues that are held stay held. What
        was bound is read back: a second socket has to be refused. A link that has gone holds none.
        """
        held = self._held.setdefault(index, [])
        if held and not _is_bound(held[0]):
            _close(held)  # the link left the namespace, which unbinds all its sockets
            self._whole.discard(index)
        try:
            self._claim(index, held)
            self._whole.add(index)
        except OSError as err:
            if index in self._whole and err.errno in SHORTAGES:
                return  # all that there were are held: only a new one could not be looked for
            what = f"hold queue {len(held)}: {err.strerror}"
            raise NetworkError(what, "", err.errno) from err

    def forget_all_but(self, indexes: Iterable[int]) -> None:
        """Close the sockets of links that are not among `indexes`."""
        for index in self._held.keys() - set(indexes):
            _close(self._held.pop(index))
            self._whole.discard(index)

    def close(self) -> None:
        """Give every queue back."""
        self.forget_all_but(())
        _close([s for s in (self._spare, self._lender) if s])
        self._spare = self._lender = None

    def _claim(self, index: int, held: list[socket.socket]) -> None:
        """Bind a socket to each queue that none of `held` has, and add it. Raises OSError."""
        self._lender = self._lender or self._lend()
        while len(held) <= MOST_QUEUES:
            address = (AF_XDP, XDP_SHARED_UMEM, index, len(held), self._lender.fileno())
            number = _bind(self._unbound(), address)
            if number == errno.ENODEV or (number == errno.EINVAL and held):
                return  # there are no more queues
            if number:
                raise OSError(number, os.strerror(number))
            held.append(self._unbound())
            self._spare = None
            if _bind(self._unbound(), address) != errno.EBUSY:
                _close([self._unbound()])
                self._spare = None
                raise OSError(errno.EIO, "another socket can have it too")
        raise OSError(errno.E2BIG, f"the link has more than {MOST_QUEUES}")

    def _lend(self) -> socket.socket:
        """Return a socket whose memory all others share, on a link that never goes away."""
        try:
            return bound(self.netns.index_of(LOOPBACK), 0, self._memory, self.netns)
        except OSError as err:
            raise OSError(err.errno, f"{err.strerror} ({LOOPBACK})") from err

    def _unbound(self) -> socket.socket:
        """Return the socket that the next queue gets."""
        self._spare = self._spare or _with_rings(self.netns.socket(AF_XDP, socket.SOCK_RAW))
        return self._spare


def bound(index: int, queue: int, memory: mmap.mmap, netns: Netns = OWN) -> socket.socket:
    """Return a socket with buffers in a page of `memory`, in copy mode, on a queue of a link.

    The link is the one with this `index` in `netns`.

    Raises OSError: EBUSY where another socket has the queue.
    """
    channel = _with_rings(netns.socket(AF_XDP, socket.SOCK_RAW))
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    try:
        channel.setsockopt(SOL_XDP, XDP_UMEM_REG, UMEM.pack(start, PAGE, PAGE, 0))
        number = _bind(channel, (AF_XDP, XDP_COPY, index, queue, 0))
        if number:
            raise OSError(number, os.strerror(number))  # noqa: TRY301 - closes it, like the rest
    except OSError:
        channel.close()
        raise
    return channel


def _bind(channel: socket.socket, address: tuple[int, int, int, int, int]) -> int:
    """Bind, which the socket module does not know for this family; return errno, or 0."""
    failed = _LIBC.bind(channel.fileno(), ADDRESS.pack(*address), ADDRESS.size)
    return ctypes.get_errno() if failed else 0


def _is_bound(channel: socket.socket) -> bool:
    """Return whether a socket still owns its queue.

    One that was unbound is refused with ENXIO, before anything else is looked at (net/xdp/xsk.c,
    xsk_sendmsg). Ours have nothing to send by in any case.
    """
    try:
        channel.send(b"", socket.MSG_DONTWAIT)
    except OSError as err:
        return err.errno != errno.ENXIO
    return True


def _close(sockets: list[socket.socket]) -> None:
    while sockets:
        sockets.pop().close()


def _with_rings(channel: socket.socket) -> socket.socket:
    """Give a socket the rings without which it cannot be bound, as small as they come."""
    try:
        for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
            channel.setsockopt(SOL_XDP, ring, 1)
    except OSError:
        channel.close()
        raise
    return channel
