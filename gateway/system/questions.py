"""Short questions to the kernel that are asked every few seconds, over a socket that stays open.

`netlink` makes a socket for each exchange, so that an error leaves nothing behind. That costs six
system calls, which is most of such a question. Here the socket is closed after an error instead.
"""

import errno
import os
import socket
import struct
import threading

from gateway.errors import KernelError, NetworkError
from gateway.system.netlink import (
    ANSWER_TIME,
    HEADER,
    LARGEST_DATAGRAM,
    NLM_F_REQUEST,
    NLMSG_ERROR,
)
from gateway.system.netns import Netns

TIMEVAL = struct.Struct("@ll")
MOST_STRAY = 8
"""Datagrams that answer no question of ours, or an earlier one, before the socket is given up."""


class Questions:
    """Asks one netlink protocol of `netns`; failures are raised as `error`. From any thread."""

    def __init__(
        self, netns: Netns, protocol: int, error: type[KernelError] = NetworkError
    ) -> None:
        self._netns = netns
        self._protocol = protocol
        self._error = error
        self._channel: socket.socket | None = None
        self._number = 0
        self._turn = threading.Lock()

    def ask(self, what: str, subject: str, body: bytes, kind: int) -> bytes:
        """Send `body` as message type `kind`, and return the body of the one answer.

        `what` and `subject` are for the error, which keeps the kernel's errno; it is ETIMEDOUT
        where no answer came.
        """
        with self._turn:
            try:
                return self._asked(body, kind)
            except OSError as err:
                self.close()
                number = err.errno if err.errno not in {None, errno.EAGAIN} else errno.ETIMEDOUT
                raise self._error(f"{what}: {os.strerror(number)}", subject, number) from err

    def close(self) -> None:
        """Close the socket; the next question opens another one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __del__(self) -> None:
        """Close the socket, which lasts as long as who asks."""
        self.close()

    def _asked(self, body: bytes, kind: int) -> bytes:
        channel = self._channel = self._channel or self._opened()
        self._number = self._number + 1 & 0xFFFFFFFF
        channel.send(
            HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST, self._number, 0) + body
        )
        for _ in range(MOST_STRAY):
            data, (sender, _group) = channel.recvfrom(LARGEST_DATAGRAM)
            if sender == 0 and len(data) >= HEADER.size:  # only the kernel has port 0
                length, answer, _flags, number, _port = HEADER.unpack_from(data)
                if number == self._number:
                    return _body(data[HEADER.size : length], answer)
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))

    def _opened(self) -> socket.socket:
        """Return a socket on which each question waits for ANSWER_TIME at most. Raises OSError."""
        channel = self._netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
        try:
            patience = TIMEVAL.pack(int(ANSWER_TIME), 0)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            channel.bind((0, 0))
        except OSError:
            channel.close()
            raise
        return channel


def _body(body: bytes, kind: int) -> bytes:
    """Return what an answer has after its header. Raises OSError where it is an error."""
    if kind != NLMSG_ERROR:
        return body
    number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else errno.EBADMSG  # noqa: PLR2004
    raise OSError(number or errno.ENODATA, os.strerror(number or errno.ENODATA))
