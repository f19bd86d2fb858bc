"""Looking up the endpoint's name: one resolver, one socket, closed as soon as it has its answers.

dnspython writes the questions and reads the answers (RFC 1035). It is imported when the first name
is looked up: most configurations have an address and need none of it.
"""

import asyncio
import secrets
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from gateway.errors import MissingError, NetworkError
from gateway.model import Address
from gateway.policy.states import Query

if TYPE_CHECKING:
    from dns.message import QueryMessage

DNS_PORT = 53
TRIES = 3
PATIENCE = 1.5
"""Seconds that the resolver gets for each try."""

LARGEST_ANSWER = 4096


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
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
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
        try:
            for name in names:
                found = [*await self._addresses(name, "A"), *await self._addresses(name, "AAAA")]
                if found:
                    self._known[name] = tuple(dict.fromkeys(found))
        finally:
            self._close()
        unknown = [name for name in names if name not in self._known]
        if unknown:
            raise NetworkError(
                f"the resolver {self._resolver} gives no address", ", ".join(unknown)
            )
        return {name: self._known[name] for name in names}

    async def _addresses(self, name: str, kind: str) -> list[Address]:
        import dns.exception  # noqa: PLC0415 - see the module's docstring
        import dns.message  # noqa: PLC0415

        try:
            question = dns.message.make_query(name, kind)
            for _ in range(TRIES):
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        answer = await self._exchange(question.to_wire(), question)
                        rrset = answer.resolve_chaining().answer
                        return [ip_address(str(record)) for record in rrset or ()]
        except dns.exception.DNSException:
            return []
        except OSError as err:
            raise NetworkError(
                f"ask for the endpoint's name: {err.strerror}", str(self._resolver), err.errno
            ) from err
        return []

    async def _exchange(self, wire: bytes, question: "QueryMessage") -> "QueryMessage":
        """Send the question, and wait for the answer to it; what is none is passed over."""
        import dns.message  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        channel = self._socket
        if channel is None:
            raise NetworkError("the socket for the endpoint's name is closed", str(self._resolver))
        await loop.sock_sendto(channel, wire, (str(self._resolver), DNS_PORT))
        while True:
            data, _ = await loop.sock_recvfrom(channel, LARGEST_ANSWER)
            answer = dns.message.from_wire(data)
            if isinstance(answer, dns.message.QueryMessage) and question.is_response(answer):
                return answer

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
