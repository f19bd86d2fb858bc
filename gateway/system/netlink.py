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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from gateway.errors import KernelError, NetworkError
from gateway.system.netns import Netns

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
"""Options of netlink(7): answer errors without repeating the request, and with a text."""
NETLINK_GET_STRICT_CHK = 12
"""Option of netlink(7), Linux 4.20: a dump is filtered by what its request says.

An older kernel refuses the option and lists everything, so the reader has to filter too.
"""

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

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
"""Message types of linux/rtnetlink.h."""

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
NLA_TYPE_MASK = 0x3FFF
"""The number of an attribute, less what is said of its contents (linux/netlink.h)."""
LARGEST_DATAGRAM = 1 << 16
ANSWER_TIME = 5.0
"""Seconds after which an answer that the kernel should have queued counts as lost."""
DUMP_ATTEMPTS = 10
MOST_DECODED = 4096
"""Messages of one answer that pyroute2 decodes, at some 0.2 ms each. No list that is read with it
can be made long by a neighbour, a workload or a VPN server; see docs/limits.md."""
MOST_LISTED = 131_072
"""Messages of one answer that are read without pyroute2, at about a microsecond each."""

Attributes = Sequence[tuple[str, Any]]
T = TypeVar("T")


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
    """One netlink protocol of `netns`, such as NETLINK_ROUTE; failures are raised as `error`."""

    def __init__(
        self, netns: Netns, protocol: int, error: type[KernelError] = NetworkError
    ) -> None:
        self.netns = netns
        self._protocol = protocol
        self._error = error

    def change(self, what: str, subject: str, request: Any, kind: int, flags: int = 0) -> None:
        """Send `request` as message type `kind` and wait for the kernel's yes.

        `what` is done to `subject`: both are for the error, which keeps the kernel's errno.
        """
        list(self._exchange(what, subject, request, (kind, NLM_F_ACK | flags)))

    def send(
        self, what: str, subject: str, body: bytes, kind: int, flags: int = 0
    ) -> tuple[bytes, ...]:
        """Send `body` as it is, as message type `kind`; return the bodies of the answers.

        So what was listed is deleted exactly, with attributes that are not read here too.
        """
        answers = self._send(what, subject, body, (kind, NLM_F_ACK | flags))
        return tuple(data[HEADER.size :] for data, _ in answers)

    def get(self, what: str, subject: str, request: Any, kind: int) -> Any:
        """Return the kernel's answer to `request`, decoded like the request."""
        answers = list(self._exchange(what, subject, request, (kind, NLM_F_ACK)))
        if not answers:
            raise self._error(f"{what}: no answer", subject, errno.ENODATA)
        return answers[0]

    def dump(self, what: str, request: Any, kind: int) -> list[Any]:
        """Return all that the kernel lists for `request`, as it was at one moment."""
        request.reset()
        request.encode()
        wanted = bytes(request.data[HEADER.size :])

        def read() -> list[Any]:
            listed = self._listed(what, (wanted, kind), most=MOST_DECODED)
            return [self._decoded(what, data, type(request)) for data in listed]

        return undisturbed(read)

    def bodies(self, what: str, body: bytes, kind: int, *, strict: bool = False) -> Iterator[bytes]:
        """Yield the body of each message that the kernel lists for the request `body`.

        For long lists: nothing is decoded, and no more than one datagram is held at a time. With
        `strict` the kernel filters by the request, where it can. Raises NetworkError when there are
        more than MOST_LISTED, or when the list changed while it was read (errno EINTR).
        """
        for data in self._listed(what, (body, kind), most=MOST_LISTED, strict=strict):
            yield data[HEADER.size :]

    def _listed(
        self, what: str, request: tuple[bytes, int], *, most: int, strict: bool = False
    ) -> Iterator[bytes]:
        """Yield the messages of a list, `most` of them, then raise if it changed meanwhile."""
        body, kind = request
        changed = False
        answers = self._send(what, "", body, (kind, NLM_F_DUMP), strict=strict)
        for number, (data, flags) in enumerate(answers):
            if number >= most:
                raise self._error(f"{what}: there are more than {most}", "", errno.EOVERFLOW)
            changed = changed or bool(flags & NLM_F_DUMP_INTR)
            yield data
        if changed:
            problem = f"{what}: it changes faster than it can be read"
            raise self._error(problem, "", errno.EINTR)

    def _exchange(
        self, what: str, subject: str, request: Any, how: tuple[int, int]
    ) -> Iterator[Any]:
        """Send `request`, and yield the answers, decoded like it."""
        request.reset()
        request.encode()
        body = bytes(request.data[HEADER.size :])
        answers = self._send(what, subject, body, how)
        return (self._decoded(what, data, type(request)) for data, _ in answers)

    def _send(
        self, what: str, subject: str, body: bytes, how: tuple[int, int], *, strict: bool = False
    ) -> Iterator[tuple[bytes, int]]:
        """Send a message with `how` as its type and flags.

        Yields the messages that come before the end mark, each with its flags.
        """
        kind, flags = how
        header = HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0)
        try:
            with self.netns.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol) as channel:
                for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
                    self._prefer(channel, option)
                if strict:
                    self._prefer(channel, NETLINK_GET_STRICT_CHK)
                channel.settimeout(ANSWER_TIME)
                channel.bind((0, 0))
                channel.send(header + body)
                yield from _answers(channel)
        except OSError as err:
            number = err.errno or errno.ETIMEDOUT
            reason = err.strerror or os.strerror(number)
            raise self._error(f"{what}: {reason}", subject, number) from err

    def _decoded(self, what: str, data: bytes, kind: Any) -> Any:
        """Return `data` as pyroute2 reads it; what it cannot read is an error of ours.

        Any exception counts: its decoders raise classes of their own and of the standard library,
        and pyroute2 may not be imported here, because `unplug` uses this module.
        """
        try:
            answer = kind(data)
            answer.decode()
        except MemoryError:
            raise
        except Exception as err:
            raise self._error(f"{what}: an answer cannot be read", "", errno.EBADMSG) from err
        return answer

    @staticmethod
    def _prefer(channel: socket.socket, option: int) -> None:
        try:
            channel.setsockopt(SOL_NETLINK, option, 1)
        except OSError as err:
            if err.errno != errno.ENOPROTOOPT:  # kernels before 4.12 answer without the text
                raise


def undisturbed(read: Callable[[], T]) -> T:
    """Return what `read` returns, once no list changed while it was read; see `Netlink.bodies`.

    Raises NetworkError with EINTR when DUMP_ATTEMPTS were not enough.
    """
    for _ in range(DUMP_ATTEMPTS - 1):
        try:
            return read()
        except KernelError as err:
            if getattr(err, "errno", None) != errno.EINTR:
                raise
    return read()


def _answers(channel: socket.socket) -> Iterator[tuple[bytes, int]]:
    while True:
        data, (sender, _) = channel.recvfrom(LARGEST_DATAGRAM)
        if sender != 0:  # only the kernel has port 0
            continue
        for answer, kind, flags in messages_in(data):
            if kind in {NLMSG_ERROR, NLMSG_DONE}:
                _raise_unless_zero(answer, flags)
                return
            yield answer, flags


def messages_in(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each message of a datagram, header included, with its type and flags.

    What is shorter than its header says ends the datagram.
    """
    offset, end, head = 0, len(data), HEADER.size
    while offset + head <= end:
        length, kind, flags, _, _ = HEADER.unpack_from(data, offset)
        if length < head or offset + length > end:
            return
        yield data[offset : offset + length], kind, flags
        offset += length + -length % 4


def attributes_in(body: bytes, start: int) -> dict[int, bytes]:
    """Return the attributes of `body` from `start` on by number; the last one of each counts.

    Raises NetworkError for an attribute that is longer than its message.
    """
    found: dict[int, bytes] = {}
    end, unpack = len(body), ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, kind = unpack(body, start)
        if length < 4 or start + length > end:  # noqa: PLR2004 - of its own head
            raise NetworkError("read a message of the kernel: its end is missing")
        found[kind & NLA_TYPE_MASK] = body[start + 4 : start + length]
        start += length + -length % 4
    return found


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
