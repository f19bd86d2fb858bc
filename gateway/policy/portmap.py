"""The messages of NAT-PMP (RFC 6886) and of PCP's MAP (RFC 6887), written and read.

Pure. What a server sends is read strictly: anything that is not exactly an answer to one of our
requests is None. Lifetimes and epochs are seconds.
"""

import struct
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv6Address

from gateway.model import Protocol
from gateway.model.frozen import frozen

PORT = 5351
"""The UDP port of both protocols (RFC 6886, section 1.1; RFC 6887, section 19.1)."""
LONGEST = 1100
"""Bytes of the longest message (RFC 6887, section 7)."""
NONCE = 12
"""Bytes of a nonce (RFC 6887, section 11.1)."""

_NATPMP_REQUEST = struct.Struct("!BBHHHI")
_NATPMP_ANSWER = struct.Struct("!BBHIHHI")
_NATPMP_ERROR = struct.Struct("!BBHI")
_PCP_REQUEST = struct.Struct("!BBHI16s")
_PCP_ANSWER = struct.Struct("!BBBBII12x")
_PCP_MAP = struct.Struct("!12sB3xHH16s")
_ANSWER = 0x80
"""The bit of an opcode that distinguishes an answer."""
_MAP = 1
_OPCODES = {Protocol.UDP: 1, Protocol.TCP: 2}
"""Opcodes of NAT-PMP (RFC 6886, section 3.3)."""
_NUMBERS = {Protocol.UDP: 17, Protocol.TCP: 6}
"""Numbers of protocols in a MAP request."""
_ANY = IPv6Address("::ffff:0:0").packed
"""The suggested external address: any of IPv4 (RFC 6887, section 11.1)."""


class Version(Enum):
    """The two protocols, by the first byte of their messages."""

    NATPMP = 0
    PCP = 2

    @property
    def other(self) -> "Version":
        """The other one."""
        return Version.PCP if self is Version.NATPMP else Version.NATPMP


class Result(StrEnum):
    """What a server answers, in words that both protocols share."""

    SUCCESS = "success"
    UNSUPPORTED_VERSION = "unsupported_version"
    NOT_AUTHORIZED = "not_authorized"
    NETWORK_FAILURE = "network_failure"
    NO_RESOURCES = "no_resources"
    UNSUPPORTED = "unsupported"
    OTHER = "refused"


_OF_NATPMP = {
    0: Result.SUCCESS,
    1: Result.UNSUPPORTED_VERSION,
    2: Result.NOT_AUTHORIZED,
    3: Result.NETWORK_FAILURE,
    4: Result.NO_RESOURCES,
    5: Result.UNSUPPORTED,
}
"""RFC 6886, section 3.5."""
_OF_PCP = {
    0: Result.SUCCESS,
    1: Result.UNSUPPORTED_VERSION,
    2: Result.NOT_AUTHORIZED,
    4: Result.UNSUPPORTED,
    5: Result.UNSUPPORTED,
    7: Result.NETWORK_FAILURE,
    8: Result.NO_RESOURCES,
    9: Result.UNSUPPORTED,
    10: Result.NO_RESOURCES,
    11: Result.NO_RESOURCES,
}
"""RFC 6887, section 7.4."""


@frozen
class Request:
    """A mapping that is asked for: `public` is a wish, and a `lifetime` of 0 deletes it."""

    protocol: Protocol
    private: int
    public: int
    lifetime: int


@frozen
class Answer:
    """What a server has said; the mapping counts only after SUCCESS.

    After a refusal, `lifetime` is how long that lasts, as far as the server says so.
    """

    result: Result
    epoch: int
    protocol: Protocol | None = None
    private: int = 0
    public: int = 0
    lifetime: int = 0


@frozen
class Codec:
    """Writes and reads the messages of a client at `client`, which has drawn `nonce`."""

    client: IPv4Address
    nonce: bytes

    def write(self, version: Version, request: Request) -> bytes:
        """Return the message that asks for a mapping."""
        if version is Version.NATPMP:
            opcode = _OPCODES[request.protocol]
            # To delete one, the public port has to be 0 (RFC 6886, section 3.4).
            public = request.public if request.lifetime else 0
            return _NATPMP_REQUEST.pack(0, opcode, 0, request.private, public, request.lifetime)
        mapped = IPv6Address(f"::ffff:{self.client}").packed
        head = _PCP_REQUEST.pack(version.value, _MAP, 0, request.lifetime, mapped)
        number = _NUMBERS[request.protocol]
        return head + _PCP_MAP.pack(self.nonce, number, request.private, request.public, _ANY)

    def read(self, version: Version, message: bytes) -> Answer | None:
        """Return the answer to a request of `version`, None where it is none."""
        if len(message) > LONGEST or len(message) < _NATPMP_ERROR.size:
            return None
        if message[0] != version.value:
            return _of_another_version(version, message)
        return _natpmp(message) if version is Version.NATPMP else self._pcp(message)

    def _pcp(self, message: bytes) -> Answer | None:
        if len(message) < _PCP_ANSWER.size or len(message) % 4:
            return None
        _, opcode, _, code, lifetime, epoch = _PCP_ANSWER.unpack_from(message)
        result = _OF_PCP.get(code, Result.OTHER)
        if opcode != _MAP | _ANSWER:
            return None
        if result is Result.UNSUPPORTED_VERSION:
            return Answer(result, epoch)
        if len(message) < _PCP_ANSWER.size + _PCP_MAP.size:
            return None
        nonce, number, private, public, _ = _PCP_MAP.unpack_from(message, _PCP_ANSWER.size)
        protocol = next((it for it, its in _NUMBERS.items() if its == number), None)
        if nonce != self.nonce or protocol is None:
            return None
        return Answer(result, epoch, protocol, private, public, lifetime)


def _natpmp(message: bytes) -> Answer | None:
    _, opcode, code, epoch = _NATPMP_ERROR.unpack_from(message)
    result = _OF_NATPMP.get(code, Result.OTHER)
    protocol = next((it for it, its in _OPCODES.items() if its | _ANSWER == opcode), None)
    if result is Result.UNSUPPORTED_VERSION and opcode & _ANSWER:
        return Answer(result, epoch)
    if protocol is None:
        return None
    if len(message) == _NATPMP_ERROR.size and result is not Result.SUCCESS:
        return Answer(result, epoch, protocol)  # some servers leave the rest out
    if len(message) != _NATPMP_ANSWER.size:
        return None
    *_, private, public, lifetime = _NATPMP_ANSWER.unpack(message)
    return Answer(result, epoch, protocol, private, public, lifetime)


def _of_another_version(version: Version, message: bytes) -> Answer | None:
    """Return what a server says that does not have `version`, in the form of the other one.

    RFC 6886, section 9; RFC 6887, section 9.
    """
    if message[0] != version.other.value or not message[1] & _ANSWER:
        return None
    code = message[3] if version.other is Version.PCP else int.from_bytes(message[2:4])
    return Answer(Result.UNSUPPORTED_VERSION, 0) if code == 1 else None
