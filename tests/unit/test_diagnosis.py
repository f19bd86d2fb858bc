"""Why a handshake fails: from what was heard to a cause, and from packets to what was heard."""

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Config, Endpoint
from gateway.policy.diagnosis import NOTHING, TEXTS, Cause, Heard, diagnose
from gateway.policy.events import Sampled
from gateway.policy.facts import PeerStatus, TunnelStatus
from gateway.policy.machine import step
from gateway.policy.report import attempts, detail, diagnosis, status_of
from gateway.policy.situation import Situation
from gateway.policy.states import Connecting, Reason, State
from gateway.policy.timing import Moment, Timing
from gateway.system.overheard import COOKIE, RESPONSE, noticed
from tests.scenarios import IPV4_ONLY, SERVER4, SERVER6, connecting

HERE = {4: ip_address("172.18.0.2"), 6: ip_address("fd18::2")}
ROUTER = {4: ip_address("172.18.0.1"), 6: ip_address("fd18::1")}
SERVERS = {4: SERVER4, 6: SERVER6}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def packet(version: int, source: object, to: object, protocol: int, body: bytes) -> bytes:
    """Return an IP packet, without a checksum."""
    if version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return head + ip_address(str(source)).packed + ip_address(str(to)).packed + body


def from_server(version: int, kind: int, server: Endpoint | None = None) -> bytes:
    """Return a message of `kind` from the server."""
    source = server or SERVERS[version]
    body = struct.pack("!4H", source.port, 51820, 100, 0) + bytes([kind, 0, 0, 0]) + bytes(88)
    return packet(version, source.address, HERE[version], 17, body)


def icmp_error(version: int, code: int, server: Endpoint | None = None) -> bytes:
    """Return an ICMP error of the router about a packet to the server."""
    to = server or SERVERS[version]
    udp = struct.pack("!4H", 51820, to.port, 156, 0)
    quoted = packet(version, HERE[version], to.address, 17, udp)
    protocol, kind = (1, 3) if version == 4 else (58, 1)
    body = bytes([kind, code, 0, 0, 0, 0, 0, 0]) + quoted
    return packet(version, ROUTER[version], HERE[version], protocol, body)


@VERSIONS
def test_messages_of_the_server_are_counted_by_their_kind(version: int) -> None:
    """Those of another host or port, and of another kind, say nothing."""
    endpoints = (SERVERS[version],)
    assert noticed(from_server(version, RESPONSE), endpoints) == Heard(responses=1)
    assert noticed(from_server(version, COOKIE), endpoints) == Heard(cookies=1)
    assert noticed(from_server(version, 4), endpoints) == NOTHING
    for other in (
        replace(SERVERS[version], port=7),
        replace(SERVERS[version], address=ROUTER[version]),
    ):
        assert noticed(from_server(version, RESPONSE, other), endpoints) == NOTHING


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        (4, 3, "172.18.0.1 answers port unreachable"),
        (4, 13, "172.18.0.1 answers prohibited by a firewall"),
        (4, 200, "172.18.0.1 answers ICMP code 200"),
        (6, 4, "fd18::1 answers port unreachable"),
        (6, 0, "fd18::1 answers no route"),
    ],
)
def test_an_icmp_error_is_named_with_its_sender(version: int, code: int, said: str) -> None:
    """Only about a packet to the server's port."""
    assert noticed(icmp_error(version, code), (SERVERS[version],)) == Heard(unreachable=said)
    other = replace(SERVERS[version], port=7)
    assert noticed(icmp_error(version, code, other), (SERVERS[version],)) == NOTHING


@given(st.binary(max_size=128), st.sampled_from([4, 6]), st.integers(0, 127))
def test_no_packet_is_an_error(data: bytes, version: int, at: int) -> None:
    """However short or odd it is; a whole one is cut at every place."""
    endpoints = (SERVER4, SERVER6)
    noticed(data, endpoints)
    noticed(bytes([version << 4 | 5]) + data, endpoints)
    for whole in (icmp_error(version, 3), from_server(version, RESPONSE)):
        noticed(whole[:at], endpoints)


@pytest.mark.parametrize(
    ("heard", "sent", "cause"),
    [
        (NOTHING, 148, Cause.NO_ANSWER),
        (NOTHING, 0, Cause.NOT_SENT),
        (Heard(early_clock=True), 148, Cause.CLOCK),
        (Heard(unreachable="192.0.2.1 answers port unreachable"), 148, Cause.UNREACHABLE),
        (Heard(cookies=2), 148, Cause.RATE_LIMITED),
        (Heard(responses=1, cookies=2, early_clock=True), 148, Cause.NOT_ACCEPTED),
    ],
)
def test_the_cause_that_is_most_certain_wins(heard: Heard, sent: int, cause: Cause) -> None:
    """The text names the server, and what an ICMP error said."""
    found = diagnose(heard, sent, (SERVER4,))
    assert found.cause is cause
    assert found.text.startswith(f"{SERVER4}: ")
    assert heard.unreachable in found.text


def test_each_text_has_a_remedy() -> None:
    """A person can do something about it."""
    words = ("compare", "copy", "choose", "set the clock", "the log says")
    assert all(any(word in text for word in words) for text in TEXTS.values())


# -- in the state machine -------------------------------------------------------------------------


def after_attempt(state: State, heard: Heard, now: float) -> State:
    """Return the state at the end of an attempt in which `heard` was noticed."""
    peer = PeerStatus("", None, None, 0, 148)
    status = TunnelStatus(
        IPV4_ONLY.listen_port,
        IPV4_ONLY.fwmark,
        (replace(peer, public_key=IPV4_ONLY.peers[0].public_key),),
    )
    moment = Moment(now, Timing())
    situation = Situation(Config((IPV4_ONLY,)), state)
    return step(situation, Sampled(status, heard), moment)[0].state


def test_a_failed_attempt_is_explained_until_there_is_a_handshake() -> None:
    """By status, with the number of attempts; what was heard earlier in the attempt counts."""
    state = replace(connecting(IPV4_ONLY), give_up_at=100.0, reason=Reason.STARTING)
    assert (attempts(state), diagnosis(state)) == (0, None)
    heard = after_attempt(state, Heard(responses=1), 99.0)
    assert isinstance(heard, Connecting)
    assert heard.heard == Heard(responses=1)
    failed = after_attempt(heard, NOTHING, 100.0)
    assert isinstance(failed, Connecting)
    found = diagnosis(failed)
    assert found is not None
    assert found.cause is Cause.NOT_ACCEPTED
    assert (failed.reason, detail(failed)) == (Reason.NO_HANDSHAKE, found.text)
    status = status_of(failed, 100.0)
    assert (status.attempts, status.diagnosis) == (1, "answer_not_accepted")
