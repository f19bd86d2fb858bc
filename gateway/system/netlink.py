"""Netlink requests: encoded by pyroute2, sent and answered inside one system call.

The kernel handles a netlink request in the context of the sender: when `send` returns, the work is
done and the answer is queued (net/netlink/af_netlink.c, netlink_unicast_kernel). There is nothing
to await. pyroute2's own transport, an asyncio one, was considered and left out for that reason and
for three more: tasks and cancellation could come between two requests that belong together, it
cannot be used before there is a loop, and at level DEBUG it logs every answer whole, private keys
included. A socket of its own for each exchange leaves no state behind that an error could spoil.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.errors import KernelError, NetworkError

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
"""Options of netlink(7): answer errors without repeating the request, and with a text."""

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP_INTR = 0x10
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1

HEADER = struct.Struct("=IHHII")
LARGEST_DATAGRAM = 1 << 16
ANSWER_TIME = 5.0
"""Seconds after which an answer that the kernel should have queued counts as lost."""
DUMP_ATTEMPTS = 10

Attributes = Sequence[tuple[str, Any]]


def message(kind: Any, fields: Mapping[str, Any], attributes: Attributes = ()) -> Any:
    """Return a message of the pyroute2 class `kind`; names that the class does not know raise.

    pyroute2 leaves unknown fields and attributes out without a word; here they are a KeyError.
    """
    unknown = set(fields) - {name for name, _ in kind.fields}
    unknown |= {name for name, _ in attributes} - {entry[-2] for entry in kind.nla_map}
    if unknown:
        raise KeyError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    result = kind()
    for name, value in fields.items():
        result[name] = value
    result["attrs"] = [list(pair) for pair in attributes]
    return result


class Netlink:
    """One netlink protocol, such as NETLINK_ROUTE; failures are raised as `error`."""

    def __init__(self, protocol: int, error: type[KernelError] = NetworkError) -> None:
        self._protocol = protocol
        self._error = error

    def change(self, what: str, subject: str, request: Any, kind: int, flags: int = 0) -> None:
        """Send `request` as message type `kind` and wait for the kernel's yes.

        `what` is done to `subject`: both are for the error, which keeps the kernel's errno.
        """
        list(self._exchange(what, subject, request, (kind, NLM_F_ACK | flags)))

    def repeat(self, what: str, subject: str, answer: Any, kind: int) -> None:
        """Send an answer of the kernel back to it, byte for byte, as message type `kind`.

        So that what was listed is deleted exactly, whatever else it has that pyroute2 cannot read.
        """
        start, length = answer.offset, answer["header"]["length"]
        body = bytes(answer.data[start + HEADER.size : start + length])
        list(self._send(what, subject, body, (kind, NLM_F_ACK), type(answer)))

    def get(self, what: str, subject: str, request: Any, kind: int) -> Any:
        """Return the kernel's answer to `request`, decoded like the request."""
        answers = list(self._exchange(what, subject, request, (kind, NLM_F_ACK)))
        if not answers:
            raise self._error(f"{what}: no answer", subject, errno.ENODATA)
        return answers[0]

    def dump(self, what: str, request: Any, kind: int) -> list[Any]:
        """Return all that the kernel lists for `request`, as it was at one moment."""
        for _ in range(DUMP_ATTEMPTS):
            answers = list(self._exchange(what, "", request, (kind, NLM_F_DUMP)))
            if not any(a["header"]["flags"] & NLM_F_DUMP_INTR for a in answers):
                return answers
        raise self._error(f"{what}: it changes faster than it can be read", "", errno.EINTR)

    def _exchange(
        self, what: str, subject: str, request: Any, how: tuple[int, int]
    ) -> Iterator[Any]:
        request.reset()
        request.encode()
        return self._send(what, subject, bytes(request.data[HEADER.size :]), how, type(request))

    def _send(
        self, what: str, subject: str, body: bytes, how: tuple[int, int], answers: Any
    ) -> Iterator[Any]:
        """Send a message with `how` as its type and flags; yield what comes before the end mark."""
        kind, flags = how
        header = HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0)
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol) as channel:
                for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                    self._prefer(channel, option)
                channel.settimeout(ANSWER_TIME)
                channel.bind((0, 0))
                channel.send(header + body)
                yield from _answers(channel, answers)
        except OSError as err:
            number = err.errno or errno.ETIMEDOUT
            reason = err.strerror or os.strerror(number)
            raise self._error(f"{what}: {reason}", subject, number) from err

    @staticmethod
    def _prefer(channel: socket.socket, option: int) -> None:
        try:
            channel.setsockopt(SOL_NETLINK, option, 1)
        except OSError as err:
            if err.errno != errno.ENOPROTOOPT:  # kernels before 4.12 answer without the text
                raise


def _answers(channel: socket.socket, kind: Any) -> Iterator[Any]:
    while True:
        data, (sender, _) = channel.recvfrom(LARGEST_DATAGRAM)
        if sender != 0:  # only the kernel has port 0
            continue
        offset = 0
        while offset + HEADER.size <= len(data):
            length, message_type, flags, _, _ = HEADER.unpack_from(data, offset)
            if message_type in {NLMSG_ERROR, NLMSG_DONE}:
                _raise_unless_zero(data[offset : offset + length], flags)
                return
            answer = kind(data, offset=offset)
            answer.decode()
            yield answer
            offset += length + -length % 4


def _raise_unless_zero(data: bytes, flags: int) -> None:
    """Raise OSError for the error number in NLMSG_ERROR or NLMSG_DONE, with the kernel's text."""
    (number,) = struct.unpack_from("=i", data, HEADER.size) if len(data) > HEADER.size else (0,)
    if number == 0:
        return
    text = os.strerror(-number)
    offset = HEADER.size + 4 + HEADER.size
    while flags & NLM_F_ACK_TLVS and offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if kind == NLMSGERR_ATTR_MSG:
            text = f"{text} ({data[offset + 4 : offset + length].rstrip(bytes(1)).decode()})"
        offset += max(length, 4) + -length % 4
    raise OSError(-number, text)
