"""The network namespace of a vault, as an argument like any other.

A vault is a container (`gateway vault`) whose network namespace has the workloads and the tunnel,
but no uplink. Entering it takes CAP_SYS_ADMIN, which a gateway does not have. So process 1 of the
vault opens in there what an adapter needs, and passes the descriptor on: a socket and a file of
/proc stay those of the namespace that they were opened in, no matter who uses them.
"""

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from gateway.errors import MissingError, NetworkError, is_shortage
from gateway.system.netns import Netns
from gateway.system.vault_process import (
    CLAIM,
    INT,
    NAMESPACE,
    OPEN_FILE,
    OPEN_SOCKET,
    RESOLVER,
)

ROOT = Path("/proc/1/root")
"""The file system of the vault, whose process 1 is also ours (`pid: service:vault`)."""
PLACE = Path("/run/portcullis/vault.sock")
"""Where the vault listens, in its own file system."""
NAMES = PLACE.parent / "names"
"""Where the vault's resolver makes its socket, in the same file system."""
RESOLVER_FILE = ROOT / "etc/resolv.conf"
"""The resolver file of the vault, which workloads share."""
PROCESS = Path("/proc/1/cmdline")
CLOSING, CLOSED = b"\0gateway\0vault\0", b"/vault_process.py\0"
"""What the command line of a vault contains, before and after it is closed."""

ANSWER_TIME = 1.0
"""Seconds that the vault may take to answer; it takes some 50 us."""
SILENT_FOR = 2.0
"""Seconds for which a vault that did not answer is not asked: the loop would wait each time."""
REQUEST = struct.Struct("4i")
NUMBER = struct.Struct("i")

Socket = socket.socket
"""For signatures next to the method `socket`."""


class VaultNetns(Netns):
    """The namespace of the vault that listens at `place`; usable from any thread."""

    def __init__(self, place: Path) -> None:
        """Connect. Raises OSError."""
        super().__init__(None, "vault")
        self.directory = place.parent
        """The directory of the vault's sockets, as we reach it."""
        self._lock = threading.Lock()
        self._place = place
        self._ask_again_at = 0.0
        self._channel: Socket | None = self._connected()

    can_be_entered = False

    def entered(self) -> NoReturn:
        """Raise PermissionError."""
        raise PermissionError(errno.EPERM, "the namespace of a vault cannot be entered")

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that the vault has opened; see `Netns.socket`."""
        return socket.socket(fileno=self._opened(OPEN_SOCKET, family, kind, protocol))

    def read(self, path: Path | str) -> str:
        """Return the contents of a file of /proc; see `Netns.read`."""
        with open(self._file(path, os.O_RDONLY), encoding="ascii") as file:  # noqa: PTH123
            return file.read()

    def write(self, path: Path | str, text: str) -> None:
        """Write `text` to a file of /proc; see `Netns.write`."""
        with open(self._file(path, os.O_WRONLY), "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text)

    def is_writable(self, path: Path | str) -> bool:
        """Return whether a file of /proc can be written; see `Netns.is_writable`."""
        try:
            os.close(self._file(path, os.O_RDWR))
        except OSError as err:
            if err.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise
            return False
        return True

    def links(self) -> dict[int, str]:
        """Return the names of all links by index; see `Netns.links`."""
        lines = self.read("/proc/self/net/dev").splitlines()[2:]
        names = [line.partition(":")[0].strip() for line in lines]
        found: dict[int, str] = {}
        for name in names:
            try:
                found[self.index_of(name)] = name
            except OSError as err:
                if err.errno != errno.ENODEV:  # it has gone meanwhile
                    raise
        return found

    def descriptor(self) -> int:
        """Return a descriptor of the namespace; see `Netns.descriptor`."""
        return self._opened(NAMESPACE)

    def can_resolve(self, user: int) -> None:
        """Raise OSError unless the vault can run a resolver as `user`.

        ENOENT: it has no such program; EPERM: it cannot run as this user; EINVAL: it is older than
        this request.
        """
        self._answer(RESOLVER, user)

    def resolver(self, user: int, descriptors: Mapping[int, int]) -> Socket:
        """Start the vault's resolver as `user`, and return the socket of its keeper.

        `descriptors` maps its descriptor numbers to ours. See `vault_keeper`. Raises OSError.
        """
        numbers, given = bytes(descriptors), tuple(descriptors.values())
        return socket.socket(fileno=self._opened(RESOLVER, user, words=numbers, given=given))

    def claim(self) -> Socket:
        """Take the vault for this process, as long as the returned socket is open.

        When it is closed, the vault removes the tunnel's link and closes its rules. Raises OSError:
        EBUSY where another gateway has it, EAGAIN while the vault is not closed yet.
        """
        channel = self._connected()
        try:
            _answered(_exchange(channel, REQUEST.pack(CLAIM, 0, 0, 0)))
        except BaseException:
            channel.close()
            raise
        return channel

    def close(self) -> None:
        """Hang up, until the next request; what was opened stays usable."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> Socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel.settimeout(ANSWER_TIME)
            channel.connect(str(self._place))
        except TimeoutError as err:
            channel.close()
            raise _no_answer() from err
        except BaseException:
            channel.close()
            raise
        return channel

    def _file(self, path: Path | str, flags: int) -> int:
        return self._opened(OPEN_FILE, flags, words=os.fsencode(path))

    def _opened(
        self, operation: int, *numbers: int, words: bytes = b"", given: tuple[int, ...] = ()
    ) -> int:
        """Return the descriptor that the vault opens for a request. Raises OSError."""
        return self._answer(operation, *numbers, words=words, given=given)[0]

    def _answer(
        self, operation: int, *numbers: int, words: bytes = b"", given: tuple[int, ...] = ()
    ) -> list[int]:
        """Return the descriptors in the answer to a request with those `given`. Raises OSError.

        An answer that is late would be taken for that to the next request, so the next one is made
        on another connection. A vault that does not answer, or hangs up, is a shortage.
        """
        request = REQUEST.pack(operation, *numbers, *[0] * (3 - len(numbers))) + words
        with self._lock:
            if time.monotonic() < self._ask_again_at:
                raise _no_answer()
            try:
                self._channel = self._channel or self._connected()
                answer = _exchange(self._channel, request, given)
            except OSError as err:
                self.close()
                if isinstance(err, TimeoutError):
                    self._ask_again_at = time.monotonic() + SILENT_FOR
                raise
        return _answered(answer)


def _exchange(
    channel: socket.socket, request: bytes, given: tuple[int, ...] = ()
) -> tuple[int, list[int]]:
    """Return the error number and the descriptors in the answer to `request` with those `given`.

    Raises OSError: ETIMEDOUT or EAGAIN where there is no answer.
    """
    try:
        socket.send_fds(channel, [request], given)
        answer, descriptors, _, _ = socket.recv_fds(channel, INT, 1, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as err:
        raise _no_answer() from err
    except ConnectionError as err:
        raise BlockingIOError(errno.EAGAIN, "the vault has hung up") from err
    if not answer:
        raise BlockingIOError(errno.EAGAIN, "the vault has hung up")
    return NUMBER.unpack(answer)[0], descriptors


def _answered(answer: tuple[int, list[int]]) -> list[int]:
    """Return the descriptors of an answer without an error number. Raises OSError."""
    number, descriptors = answer
    if number:
        raise OSError(number, f"in the vault: {os.strerror(number)}")
    return descriptors


def _not_yet() -> NetworkError:
    return NetworkError("the vault does not listen yet", str(PLACE), errno.EAGAIN)


def _no_answer() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, "the vault does not answer")


def _command(process: Path) -> bytes:
    """Return the command line of a process, empty if it may not be read. Raises NetworkError."""
    try:
        return process.read_bytes()
    except OSError as err:
        if is_shortage(err):
            raise NetworkError(f"read: {err.strerror}", str(process), err.errno) from err
        return b""


def find(process: Path = PROCESS, root: Path = ROOT) -> VaultNetns | None:
    """Return the vault whose process namespace this process shares, None if there is none.

    It is known by the command line of process 1. Raises NetworkError while it does not listen yet
    (EAGAIN), and MissingError if this process may not reach it.
    """
    command = _command(process)
    if os.getpid() == 1 or not (CLOSING in command or CLOSED in command):
        return None
    try:
        return VaultNetns(root / PLACE.relative_to("/"))
    except (FileNotFoundError, ConnectionRefusedError) as err:
        raise _not_yet() from err
    except PermissionError as err:
        if CLOSED not in _command(process):  # it has more capabilities until then
            raise _not_yet() from err
        raise MissingError(
            f"the vault cannot be reached ({err.strerror})",
            "give the gateway at least the capabilities of the vault: `cap_add: [NET_ADMIN]`",
        ) from err
    except OSError as err:
        raise NetworkError(f"reach the vault: {err.strerror}", str(PLACE), err.errno) from err
