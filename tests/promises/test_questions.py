"""Questions over a socket that stays open: each gets its own answer, also after an error."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import FirewallError, NetworkError
from gateway.system.link_settings import LINK_MESSAGE, question
from gateway.system.netlink import RTM_GETLINK, attributes_in
from gateway.system.netns import OWN, Netns
from gateway.system.questions import Questions
from tests.lab.namespace import Namespace

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]

IFLA_IFNAME = 3
LINKS = ("eth0", "a-name-15-bytes")
OPEN = Path("/proc/self/fd")


@pytest.fixture
def own() -> Iterator[Namespace]:
    """Make a namespace with LINKS."""
    namespace = Namespace(f"pcqu{os.getpid()}")
    namespace.create()
    try:
        pairs = (f"{name} type veth peer far{index}" for index, name in enumerate(LINKS))
        namespace.ip(*(f"link add {pair}" for pair in pairs))
        yield namespace
    finally:
        namespace.delete()


@pytest.fixture
def questions(own: Namespace) -> Questions:
    """Return the subject, for that namespace."""
    return Questions(Netns.at(f"/run/netns/{own.name}"), socket.NETLINK_ROUTE)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Return the sockets that are made, in order."""
    made: list[socket.socket] = []
    make = Netns.socket

    def noted(netns: Netns, family: int, kind: int, protocol: int = 0) -> socket.socket:
        made.append(make(netns, family, kind, protocol))
        return made[-1]

    monkeypatch.setattr(Netns, "socket", noted)
    return made


def asked(questions: Questions, name: str) -> bytes:
    """Ask for a link."""
    return questions.ask("read link", name, question(name), RTM_GETLINK)


def name_in(answer: bytes) -> str:
    """Return the name of the link that an answer is about."""
    return attributes_in(answer, LINK_MESSAGE.size)[IFLA_IFNAME].rstrip(b"\0").decode()


def test_each_question_has_its_own_answer_over_one_socket(questions: Questions) -> None:
    """By name, and with another answer for each."""
    before = set(OPEN.iterdir())
    for name in LINKS * 50:
        assert name_in(asked(questions, name)) == name
    assert len(set(OPEN.iterdir()) - before) == 1


def test_a_link_is_read_in_its_own_namespace(questions: Questions) -> None:
    """Control: this process is in another one, which has no such link."""
    assert name_in(asked(questions, LINKS[1])) == LINKS[1]
    with pytest.raises(NetworkError) as caught:
        asked(Questions(Netns.of_process(os.getpid()), socket.NETLINK_ROUTE), LINKS[1])
    assert caught.value.errno == errno.ENODEV


def test_an_error_has_the_kernels_number_and_the_next_question_works(questions: Questions) -> None:
    """The socket is replaced; nothing is left of the former question."""
    for _ in range(3):
        with pytest.raises(NetworkError, match="read link") as caught:
            asked(questions, "eth7")
        assert caught.value.errno == errno.ENODEV
        assert name_in(asked(questions, "eth0")) == "eth0"
    with pytest.raises(FirewallError):
        Questions(OWN, socket.NETLINK_ROUTE, FirewallError).ask("x", "y", b"", 1000)


def test_an_answer_to_an_earlier_question_is_not_taken_for_this_one(
    questions: Questions, opened: list[socket.socket]
) -> None:
    """One whose answer was not read."""
    asked(questions, "eth0")
    (channel,) = opened
    body = question("eth0")
    for number in (1, 77, 0xFFFFFFFF):
        channel.send(struct.pack("=IHHII", 16 + len(body), RTM_GETLINK, 1, number, 0) + body)
    assert name_in(asked(questions, LINKS[1])) == LINKS[1]


def test_too_many_of_them_are_an_error_and_not_a_wait(
    questions: Questions, opened: list[socket.socket]
) -> None:
    """The socket is given up, and the next question has another one."""
    asked(questions, "eth0")
    (channel,) = opened
    body = question("eth0")
    for _ in range(20):
        channel.send(struct.pack("=IHHII", 16 + len(body), RTM_GETLINK, 1, 1, 0) + body)
    with pytest.raises(NetworkError) as caught:
        asked(questions, "eth0")
    assert caught.value.errno == errno.EBADMSG
    assert name_in(asked(questions, "eth0")) == "eth0"


def test_no_answer_is_a_timeout(questions: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers nothing to a message without the flag of a request."""
    monkeypatch.setattr("gateway.system.questions.ANSWER_TIME", 1)
    monkeypatch.setattr("gateway.system.questions.NLM_F_REQUEST", 0)
    with pytest.raises(NetworkError) as caught:
        asked(questions, "eth0")
    assert caught.value.errno == errno.ETIMEDOUT


def test_threads_take_turns(questions: Questions) -> None:
    """Each gets its own answer."""
    wrong: list[str] = []

    def ask(name: str) -> None:
        wrong.extend(name for _ in range(200) if name_in(asked(questions, name)) != name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in LINKS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_answer_changes_with_each_packet_and_with_nothing_else(
    own: Namespace, questions: Questions
) -> None:
    """What a link has carried can be compared as bytes."""
    own.ip(
        *(f"link set {name} addrgenmode none" for name in ("eth0", "far0")),
        *(f"link set {name} up" for name in ("eth0", "far0")),
        "addr add 192.0.2.1/24 dev eth0",
    )
    settled = asked(questions, "eth0")
    assert asked(questions, "eth0") == settled
    with own.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        out.sendto(b"one", ("192.0.2.255", 9))
    assert asked(questions, "eth0") != settled
