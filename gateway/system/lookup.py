"""Looking up the endpoint's name: one resolver, one socket, closed as soon as it has its answers.

dnspython writes the questions and reads the answers (RFC 1035). It is imported when the first name
is looked up: most configurations have an address and need none of it.
"""

import asyncio
import secrets
import socket
import struct
import sys
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING

from gateway.errors import MissingError, NetworkError
from gateway.model import Address
from gateway.policy import marks
from gateway.policy.dns import DOCKER_RESOLVER
from gateway.policy.states import Query
from gateway.system.bpf import EQUAL, LOAD_HALF, LOAD_WORD, RETURN, Instruction, attach
from gateway.system.netns import OWN, Netns

if TYPE_CHECKING:
    from dns.message import QueryMessage

DNS_PORT = 53
KINDS = ("A", "AAAA")

TRIES = 3
INTERVAL = 1.0
"""Seconds from one try to the next. All questions go out together, so that the hole is short."""

LARGEST_ANSWER = 4096
MOST_ADDRESSES = 16
"""Addresses of one family that a name may have: each one is a server to try in its turn.

Nothing longer than LARGEST_ANSWER is read: an answer that was cut off is not asked for again over
TCP. Aliases are followed within one answer, 16 at most (dnspython, resolve_chaining).
"""

SKF_NET_OFF = 0x1_0000_0000 - 0x10_0000
"""linux/filter.h: where the IP header begins."""

SOURCE_ADDRESS = {4: 12, 6: 8}
"""Where it is in the IP header, by IP version."""

FROM_INSIDE = (
    "; before Docker 26 it asks from inside the closed namespace: set"
    " WIREGUARD_ENDPOINT_RESOLVER to your own resolver, often the address of your router"
)
"""What to do where Docker's resolver is asked in vain (libnetwork/resolver.go, extConnect)."""

Question = tuple[str, str]
"""A name and the kind of record that it is asked for."""


class EndpointLookup:
    """Asks `resolver` for addresses of both families, and remembers the last ones of each name.

    It asks out of `netns`. `resolver` may be replaced: the next question goes to the new one.
    """

    def __init__(self, resolver: Address | None, netns: Netns = OWN) -> None:
        self._netns = netns
        self.resolver = resolver
        self._socket: socket.socket | None = None
        self._known: dict[str, tuple[Address, ...]] = {}

    def open(self) -> Query:
        """Make the socket and return what distinguishes its packets from others.

        The mark is random and new for each question. Raises MissingError when there is no resolver
        to ask, NetworkError when the socket cannot be made.
        """
        if self.resolver is None:
            raise MissingError(
                "there is no resolver to ask for the endpoint's name: none was given, or"
                " /etc/resolv.conf was changed by another program since the gateway last ran,"
                " or it cannot be kept across a restart",
                "set WIREGUARD_ENDPOINT_RESOLVER, or an address as endpoint",
            )
        import dns.message  # noqa: F401, PLC0415 - before the hole opens, which is to be short

        self._close()
        mark = marks.secret(secrets.randbits(31))
        family = socket.AF_INET6 if self.resolver.version == 6 else socket.AF_INET  # noqa: PLR2004
        try:
            self._socket = self._netns.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            # As bytes: half of the marks do not fit into the signed number that Python would take.
            wanted = mark.to_bytes(4, sys.byteorder)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, wanted)
            _accept_only_from(self._socket, self.resolver)
            self._socket.bind(("", 0))
        except OSError as err:
            self._close()
            raise NetworkError(
                f"make a socket for the endpoint's name: {err.strerror}",
                str(self.resolver),
                err.errno,
            ) from err
        return Query(self.resolver, self._socket.getsockname()[1], mark)

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        """Return the addresses of `names`, or the last known ones if no answer comes now.

        Raises NetworkError for a name that has never had one. The socket is closed in any case.
        """
        failure: OSError | NetworkError | None = None
        answers: dict[Question, list[Address]] = {}
        channel = self._socket
        try:
            await self._collect([(name, kind) for name in names for kind in KINDS], answers)
        except (OSError, NetworkError) as err:  # as good as no answer, if there was one before
            failure, answers = err, {}
        finally:
            if self._socket is channel:  # a question that is cut off may end after the next `open`
                self._close()
        for name in names:
            found = [address for kind in KINDS for address in answers.get((name, kind), ())]
            if found:
                self._known[name] = tuple(dict.fromkeys(found))
        unknown = [name for name in names if name not in self._known]
        if unknown:
            problem = f" ({failure})" if failure else ""
            what = f"the resolver {self.resolver} gives no address{problem}"
            if self.resolver == DOCKER_RESOLVER:
                what += FROM_INSIDE
            raise NetworkError(what, ", ".join(unknown))
        return {name: self._known[name] for name in names}

    async def _collect(
        self, questions: list[Question], answers: dict[Question, list[Address]]
    ) -> None:
        """Ask all `questions` until each is in `answers` or the time is up.

        Raises OSError, and NetworkError for an answer to something else.
        """
        import dns.message  # noqa: PLC0415 - see the module's docstring

        asked = {question: dns.message.make_query(*question) for question in questions}
        channel, resolver = self._socket, self.resolver
        if channel is None or resolver is None:
            return
        for _ in range(TRIES):
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await _exchange(channel, resolver, asked, answers)
                    return

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def _exchange(
    channel: socket.socket,
    resolver: Address,
    asked: "dict[Question, QueryMessage]",
    answers: dict[Question, list[Address]],
) -> None:
    """Send what has no answer yet, and put the answers into `answers` until each has one.

    The socket is not connected: forged packets of others would bring it refusals that are not its
    own. What comes from the resolver and fits no question is a guess: a workload with CAP_NET_RAW
    might make many, so the first one ends it. Raises NetworkError then.
    """
    import dns.exception  # noqa: PLC0415 - see the module's docstring

    loop = asyncio.get_running_loop()
    for message in (message for question, message in asked.items() if question not in answers):
        await loop.sock_sendto(channel, message.to_wire(), (str(resolver), DNS_PORT))
    while len(answers) < len(asked):
        answer = _read(await loop.sock_recv(channel, LARGEST_ANSWER))
        fitting = [q for q, sent in asked.items() if answer and sent.is_response(answer)]
        if answer is None or not fitting:
            raise NetworkError("an answer for the endpoint's name does not fit", str(resolver))
        answers[fitting[0]] = []
        with suppress(dns.exception.DNSException):
            found = answer.resolve_chaining().answer
            addresses = (ip_address(str(record)) for record in found or ())
            answers[fitting[0]] = list(islice(addresses, MOST_ADDRESSES))


def _accept_only_from(channel: socket.socket, resolver: Address) -> None:
    """Let the kernel keep out of the socket's queue what does not come from `resolver`'s port.

    Any workload can send to a port on loopback, as much as it likes. Raises OSError.
    """
    words = struct.unpack(f"!{len(resolver.packed) // 4}I", resolver.packed)
    start = SKF_NET_OFF + SOURCE_ADDRESS[resolver.version]
    checks = [(LOAD_HALF, 0, DNS_PORT)]
    checks += [(LOAD_WORD, start + 4 * number, word) for number, word in enumerate(words)]
    program: list[Instruction] = []
    for number, (load, offset, wanted) in enumerate(checks):
        to_refusal = 2 * (len(checks) - number) - 1
        program += [(load, 0, 0, offset), (EQUAL, 0, to_refusal, wanted)]
    attach(channel, [*program, (RETURN, 0, 0, 0xFFFF_FFFF), (RETURN, 0, 0, 0)])


def _read(data: bytes) -> "QueryMessage | None":
    """Return the DNS message that `data` is, if it is one."""
    import dns.exception  # noqa: PLC0415 - see the module's docstring
    import dns.message  # noqa: PLC0415

    with suppress(dns.exception.DNSException):
        message = dns.message.from_wire(data)
        if isinstance(message, dns.message.QueryMessage):
            return message
    return None
