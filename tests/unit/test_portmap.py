"""Messages of NAT-PMP and PCP: as the RFCs write them, and read with distrust."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Protocol
from gateway.policy.portmap import LONGEST, Answer, Codec, Request, Result, Version

NONCE = bytes(range(12))
CODEC = Codec(IPv4Address("10.2.0.2"), NONCE)
REQUEST = Request(Protocol.TCP, 6881, 40001, 600)
MAPPED = bytes(10) + b"\xff\xff" + bytes([10, 2, 0, 2])


def natpmp(result: int = 0, opcode: int = 130, public: int = 40001, lifetime: int = 600) -> bytes:
    """Return an answer of NAT-PMP."""
    head = bytes([0, opcode]) + result.to_bytes(2) + (77).to_bytes(4)
    return head + (6881).to_bytes(2) + public.to_bytes(2) + lifetime.to_bytes(4)


def pcp(result: int = 0, nonce: bytes = NONCE, number: int = 6, lifetime: int = 600) -> bytes:
    """Return an answer of PCP."""
    head = bytes([2, 129, 0, result]) + lifetime.to_bytes(4) + (77).to_bytes(4) + bytes(12)
    ports = (6881).to_bytes(2) + (40001).to_bytes(2)
    return head + nonce + bytes([number, 0, 0, 0]) + ports + MAPPED


def test_requests_are_what_the_rfcs_say() -> None:
    """RFC 6886, section 3.3; RFC 6887, sections 7.1 and 11.1."""
    assert CODEC.write(Version.NATPMP, REQUEST) == bytes.fromhex("00020000 1ae1 9c41 00000258")
    written = CODEC.write(Version.PCP, REQUEST)
    assert written[:8] == bytes.fromhex("02010000 00000258")
    assert written[8:24] == MAPPED
    assert written[24:36] == NONCE
    assert written[36:44] == bytes.fromhex("06000000 1ae1 9c41")
    assert written[44:] == bytes(10) + b"\xff\xff" + bytes(4)
    assert len(written) == 60


def test_to_delete_the_public_port_is_zero() -> None:
    """RFC 6886, section 3.4."""
    gone = Request(Protocol.UDP, 6881, 40001, 0)
    assert CODEC.write(Version.NATPMP, gone) == bytes.fromhex("00010000 1ae1 0000 00000000")


def test_answers_are_read() -> None:
    """Both forms say the same."""
    wanted = Answer(Result.SUCCESS, 77, Protocol.TCP, 6881, 40001, 600)
    assert CODEC.read(Version.NATPMP, natpmp()) == wanted
    assert CODEC.read(Version.PCP, pcp()) == wanted


@pytest.mark.parametrize(
    ("code", "result"),
    [
        *((2, Result.NOT_AUTHORIZED), (3, Result.NETWORK_FAILURE), (4, Result.NO_RESOURCES)),
        *((5, Result.UNSUPPORTED), (99, Result.OTHER), (65535, Result.OTHER)),
    ],
)
def test_refusals_of_nat_pmp_are_read(code: int, result: Result) -> None:
    """Also where the rest of the message is left out."""
    for message in (natpmp(code), natpmp(code)[:8]):
        answer = CODEC.read(Version.NATPMP, message)
        assert answer
        assert (answer.result, answer.protocol) == (result, Protocol.TCP)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        *((2, Result.NOT_AUTHORIZED), (4, Result.UNSUPPORTED), (7, Result.NETWORK_FAILURE)),
        *((8, Result.NO_RESOURCES), (10, Result.NO_RESOURCES), (12, Result.OTHER)),
    ],
)
def test_refusals_of_pcp_are_read(code: int, result: Result) -> None:
    """With how long they last."""
    answer = CODEC.read(Version.PCP, pcp(code, lifetime=30))
    assert answer
    assert (answer.result, answer.lifetime) == (result, 30)


def test_a_server_that_has_the_other_version_alone_is_understood() -> None:
    """In whichever form it says so."""
    old, new = natpmp(1)[:8], pcp(1)
    for version in Version:
        for message in (old, new):
            answer = CODEC.read(version, message)
            assert answer
            assert answer.result is Result.UNSUPPORTED_VERSION, (version, message)
            assert answer.protocol is None


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\0", natpmp()[:15], natpmp() + b"\0", natpmp()[:8], natpmp(opcode=2)),
        *(natpmp(opcode=128), natpmp(opcode=131), b"\1" + natpmp()[1:]),
        *(pcp(), natpmp() + bytes(LONGEST)),
    ],
)
def test_other_messages_than_answers_of_nat_pmp_are_ignored(message: bytes) -> None:
    """Another length, another operation, a request, another protocol."""
    assert CODEC.read(Version.NATPMP, message) is None


@pytest.mark.parametrize(
    "message",
    [
        *(b"", pcp()[:59], pcp()[:24], pcp() + b"\0", pcp(nonce=bytes(12)), pcp(number=1)),
        *(natpmp(), b"\2\1" + pcp()[2:], pcp() + bytes(LONGEST), b"\2\x82" + pcp()[2:]),
    ],
)
def test_other_messages_than_answers_of_pcp_are_ignored(message: bytes) -> None:
    """Another nonce means an answer to another client."""
    assert CODEC.read(Version.PCP, message) is None


def test_options_of_an_answer_are_passed_over() -> None:
    """RFC 6887, section 7.3."""
    assert CODEC.read(Version.PCP, pcp() + bytes(8)) == CODEC.read(Version.PCP, pcp())


@given(st.sampled_from(list(Version)), st.binary(max_size=LONGEST + 10))
def test_no_message_is_more_than_an_answer(version: Version, message: bytes) -> None:
    """Its numbers are always in their ranges."""
    answer = CODEC.read(version, message)
    if answer:
        assert 0 <= answer.private <= 65535
        assert 0 <= answer.public <= 65535
        assert 0 <= answer.lifetime < 1 << 32
