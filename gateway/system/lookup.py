"""Looking up the endpoint's name: one resolver, one socket, closed as soon as it has its answers.

dnspython writes the questions and reads the answers (RFC 1035). It is imported when the first name
is looked up: most configurations have an address and need none of it.
"""

import asyncio
import secrets
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from gateway.errors import MissingError, NetworkError
from gateway.model import Address
from gateway.policy.states import Query

if TYPE_CHECKING:
    from dns.message import QueryMessage

DNS_PORT = 53
KINDS = ("A", "AAAA")

TRIES = 3
INTERVAL = 1.0
"""Seconds from one try to the next. All questions go out together, so that the hole is short."""

LARGEST_ANSWER = 4096

Question = tuple[str, str]
"""A name and the kind of record that it is asked for."""


class EndpointLookup:
    """Asks `resolver` for addresses of both families, and remembers the last ones of each name."""

    def __init__(self, resolver: Address | None) -> None:
        self._resolver = resolver
        self._socket: socket.socket | None = None
        self._known: dict[str, tuple[Address, ...]] = {}

    def open(self) -> Query:
        """Make the socket and return what tells its packets from others.

        The mark is random and new for each question. Raises MissingError when there is no resolver
        to ask, NetworkError when the socket cannot be made.
        """
        if self._resolver is None:
            raise MissingError(
                "there is no resolver to ask for the endpoint's name",
                "set WIREGUARD_ENDPOINT_RESOLVER, or an address as endpoint",
            )
        import dns.message  # noqa: F401, PLC0415 - before the hole opens, which is to be short

        self._close()
        mark = secrets.randbelow(2**32 - 1) + 1
        family = socket.AF_INET6 if self._resolver.version == 6 else socket.AF_INET  # noqa: PLR2004
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            # As bytes: half of the marks do not fit into the signed number that Python would take.
            wanted = mark.to_bytes(4, sys.byteorder)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, wanted)
            self._socket.bind(("", 0))
        except OSError as err:
            self._close()
            raise NetworkError(
                f"make a socket for the endpoint's name: {err.strerror}",
                str(self._resolver),
                err.errno,
            ) from err
        return Query(self._resolver, self._socket.getsockname()[1], mark)

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        """Return the addresses of `names`, the last known ones where there is no answer now.

        Raises NetworkError for a name that has never had one. The socket is closed in any case.
        """
        failure: OSError | None = None
        answers: dict[Question, list[Address]] = {}
        try:
            await self._collect([(name, kind) for name in names for kind in KINDS], answers)
        except OSError as err:  # as good as no answer, if there was one before
            failure = err
        finally:
            self._close()
        for name in names:
            found = [address for kind in KINDS for address in answers.get((name, kind), ())]
            if found:
                self._known[name] = tuple(dict.fromkeys(found))
        unknown = [name for name in names if name not in self._known]
        if unknown:
            heard = f"cannot be asked ({failure.strerror})" if failure else "gives no address"
            raise NetworkError(f"the resolver {self._resolver} {heard}", ", ".join(unknown))
        return {name: self._known[name] for name in names}

    async def _collect(
        self, questions: list[Question], answers: dict[Question, list[Address]]
    ) -> None:
        """Ask all `questions` until each is in `answers` or the time is up. Raises OSError."""
        import dns.message  # noqa: PLC0415 - see the module's docstring

        waiting = {question: dns.message.make_query(*question) for question in questions}
        channel = self._socket
        if channel is None:
            return
        # Connected, so that the kernel takes answers from nobody else, and tells refusals.
        await asyncio.get_running_loop().sock_connect(channel, (str(self._resolver), DNS_PORT))
        for _ in range(TRIES):
            with suppress(TimeoutError, ConnectionRefusedError):
                async with asyncio.timeout(INTERVAL):
                    await _exchange(channel, waiting, answers)
            if not waiting:
                return

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def _exchange(
    channel: socket.socket,
    waiting: "dict[Question, QueryMessage]",
    answers: dict[Question, list[Address]],
) -> None:
    """Send what is `waiting`, and move it to `answers` as they come in; what is none is ignored."""
    import dns.exception  # noqa: PLC0415 - see the module's docstring
    import dns.message  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    for message in waiting.values():
        await loop.sock_sendall(channel, message.to_wire())
    while waiting:
        data = await loop.sock_recv(channel, LARGEST_ANSWER)
        with suppress(dns.exception.DNSException):
            answer = dns.message.from_wire(data)
            for question in [q for q, asked in waiting.items() if asked.is_response(answer)]:
                del waiting[question]
                if isinstance(answer, dns.message.QueryMessage):
                    found = answer.resolve_chaining().answer
                    answers[question] = [ip_address(str(record)) for record in found or ()]
