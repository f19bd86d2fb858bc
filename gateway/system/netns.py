"""Network namespaces as arguments: which one an adapter acts on.

A socket, a file under /proc/net or /proc/sys/net, and a child process belong to the namespace that
the calling thread is in when it makes them (net_namespaces(7)), and stay there. So an adapter
enters another namespace only to open or to start something; it needs no entering to use it.

The gateway's own namespace is `OWN`. For it no system call is made.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from gateway.errors import NetworkError

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703
"""The ioctl that returns the kind of a namespace, as its CLONE_* flag (ioctl_nsfs(2))."""

SIOCGIFINDEX = 0x8933
REQUEST = struct.Struct("16si20x")
"""struct ifreq with ifr_ifindex (netdevice(7))."""
LONGEST_NAME = 15
"""Bytes of the name of a link: IFNAMSIZ of linux/if.h, less the final zero."""

RETURN_ATTEMPTS = 10
"""How often the way back is tried while the kernel has no memory for it."""


class Netns:
    """A network namespace; `name` is for messages.

    It is kept by a descriptor, so that it stays the same one when its path is removed or its
    process ends. Entering it takes CAP_SYS_ADMIN (setns(2)).
    """

    can_be_entered = True
    """Whether programs can be started in it."""

    def __init__(self, descriptor: int | None, name: str) -> None:
        """Use `at`, `of_process`, `of_descriptor` or `OWN`; None is the process's own namespace."""
        self._descriptor = descriptor
        self.name = name

    @classmethod
    def at(cls, path: Path | str) -> "Netns":
        """Return the namespace at `path`, such as /run/netns/NAME. Raises NetworkError."""
        try:
            return cls._checked(os.open(path, os.O_RDONLY | os.O_CLOEXEC), str(path))
        except OSError as err:
            raise NetworkError(f"open: {err.strerror}", f"namespace {path}", err.errno) from err

    @classmethod
    def of_process(cls, pid: int) -> "Netns":
        """Return the namespace that the process `pid` is in. Raises NetworkError."""
        return cls.at(f"/proc/{pid}/ns/net")

    @classmethod
    def of_descriptor(cls, descriptor: int, name: str) -> "Netns":
        """Return the namespace of an open `descriptor`, which stays the caller's to close.

        Raises NetworkError.
        """
        try:
            return cls._checked(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0), name)
        except OSError as err:
            raise NetworkError(f"open: {err.strerror}", f"namespace {name}", err.errno) from err

    @classmethod
    def _checked(cls, descriptor: int, name: str) -> "Netns":
        """Return the namespace of `descriptor`, or close it and raise OSError."""
        try:
            kind = fcntl.ioctl(descriptor, NS_GET_NSTYPE)
        except OSError as err:
            os.close(descriptor)
            raise OSError(err.errno, "it is not a namespace") from err
        if kind != CLONE_NEWNET:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is a namespace, but not a network namespace")
        return cls(descriptor, name)

    def descriptor(self) -> int:
        """Return a descriptor of the namespace, for the caller to close. Raises OSError."""
        if self._descriptor is not None:
            return os.dup(self._descriptor)
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def is_same(self, other: "Netns") -> bool:
        """Return whether `other` is this namespace. Raises OSError."""
        mine, its = self.descriptor(), other.descriptor()
        try:
            return os.path.sameopenfile(mine, its)
        finally:
            os.close(mine)
            os.close(its)

    def close(self) -> None:
        """Let go of the namespace; what was opened in it stays usable."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread in this namespace while the block runs. Raises OSError.

        Do not await in the block: other tasks of the loop would run in this namespace too. When the
        thread cannot go back, the process ends at once, because anything that it did next could be
        done to the wrong namespace. The rules stay in force then, as after SIGKILL (P1).
        """
        target = _thread.home if self._descriptor is None else self._descriptor
        if target is None:
            yield
            return
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        former_home = _thread.home
        try:
            _set(target, self.name)
            _thread.home = here if former_home is None else former_home
            try:
                yield
            finally:
                _go_back(here)
                _thread.home = former_home
        finally:
            os.close(here)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that belongs to this namespace, for use from any thread. OSError."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def read(self, path: Path | str) -> str:
        """Return the contents of a file of /proc as it is in this namespace. Raises OSError."""
        with self.entered():
            return Path(path).read_text("ascii")

    def write(self, path: Path | str, text: str) -> None:
        """Write `text` to a file of /proc as it is in this namespace. Raises OSError."""
        with self.entered():
            Path(path).write_text(text, "ascii")

    def is_writable(self, path: Path | str) -> bool:
        """Return whether a file of /proc can be written in this namespace. Raises OSError."""
        try:
            with self.entered(), Path(path).open("r+"):
                return True
        except OSError as err:
            if err.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise
            return False

    def links(self) -> dict[int, str]:
        """Return the names of all links by index. Raises OSError."""
        with self.entered():
            return dict(socket.if_nameindex())

    def index_of(self, link: str) -> int:
        """Return the index of the link `link`. Raises OSError: ENODEV when there is none.

        Not `socket.if_nametoindex`: in Python 3.11 its error has no number (socketmodule.c), and
        a shortage would look like a link that is not there.
        """
        name = os.fsencode(link)
        if len(name) > LONGEST_NAME:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        with self.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            answer = fcntl.ioctl(channel, SIOCGIFINDEX, REQUEST.pack(name, 0))
        index: int = REQUEST.unpack(answer)[1]
        return index

    def __repr__(self) -> str:
        return f"Netns({self.name})"


OWN = Netns(None, "own")
"""The namespace that the process was started in."""


class _Thread(threading.local):
    """What is known of the calling thread: the descriptor of its own namespace while it is away."""

    home: int | None = None


_thread = _Thread()


def _set(descriptor: int, name: str) -> None:
    """Move the calling thread into a namespace. Raises OSError."""
    if _libc().setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"enter the namespace {name}: {os.strerror(number)}")


def _go_back(descriptor: int) -> None:
    """Move the calling thread back, or end the process."""
    problem = ""
    for _ in range(RETURN_ATTEMPTS):
        try:
            _set(descriptor, "that it came from")
        except OSError as err:
            problem = str(err.strerror)
            if err.errno != errno.ENOMEM:
                break
        else:
            return
    _end(problem)


def _end(problem: str) -> NoReturn:
    """End the process without running anything else: handlers would act on the wrong namespace."""
    with suppress(OSError):
        os.set_blocking(2, False)
        os.write(2, f"gateway: {problem}; the rules stay as they are\n".encode())
    os._exit(1)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
