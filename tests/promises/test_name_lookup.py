"""Looking up the endpoint's name, while a workload listens and talks on the same loopback."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from itertools import pairwise

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from gateway.errors import NetworkError
from gateway.system.lookup import MOST_ADDRESSES, EndpointLookup
from tests.lab.process import PATIENCE
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10"), pytest.mark.no_gateway]


def test_a_question_can_have_any_mark(lab: Lab) -> None:
    """Marks from 2**31 on once ended the gateway with a TypeError; every secret mark is one now."""

    def marks() -> list[int]:
        lookup = EndpointLookup(ip_address("127.0.0.11"))
        drawn = [lookup.open().mark for _ in range(32)]
        asyncio.run(lookup.ask(()))  # closes the socket
        return drawn

    drawn = lab.gateway_namespace.inside(marks)
    assert min(drawn) >= 1 << 31
    assert len(set(drawn)) > 1, "control: they are drawn"


def test_a_workload_that_floods_the_socket_neither_hangs_the_gateway_nor_the_answer(
    lab: Lab,
) -> None:
    """The port is not secret, and loopback is open: any workload can send to it.

    Limitations: one that has CAP_NET_RAW can forge a resolver's answer (docs/known-issues.md).
    """
    address = lab.server.endpoint.ipv4
    lab.docker_resolver(A=address)
    flooding, sent = threading.Event(), [0]

    def flood(channel: socket.socket, port: int) -> None:
        while not flooding.is_set():
            sent[0] += channel.sendto(b"flood", ("127.0.0.1", port)) > 0

    async def look_up() -> tuple[object, float]:
        lookup = EndpointLookup(ip_address("127.0.0.11"))
        query = lookup.open()
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flooder = threading.Thread(target=flood, args=(channel, query.source_port))
        flooder.start()
        await asyncio.sleep(0.2)
        asked_at = time.monotonic()
        try:
            return await lookup.ask(("vpn.example",)), time.monotonic() - asked_at
        finally:
            flooding.set()
            flooder.join()
            channel.close()

    found, seconds = lab.gateway_namespace.inside(lambda: asyncio.run(look_up()))
    assert found == {"vpn.example": (ip_address(address),)}
    assert sent[0] > 1000, "control: more than the socket holds"
    assert seconds < 3 * PATIENCE


NAME = "vpn.example."
Answer = Callable[[dns.message.Message], None]


def addresses(count: int, name: str = NAME) -> Answer:
    """Return what puts that many addresses of `name` into an answer."""

    def fill(answer: dns.message.Message) -> None:
        found = [str(IPv4Address("198.51.100.0") + number) for number in range(count)]
        answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", found))

    return fill


def aliases(count: int) -> Answer:
    """Return what puts a chain of aliases into an answer, and an address at its end."""

    def fill(answer: dns.message.Message) -> None:
        names = [NAME, *(f"a{number}.example." for number in range(count))]
        for one, other in pairwise(names):
            answer.answer.append(dns.rrset.from_text(one, 60, "IN", "CNAME", other))
        addresses(1, names[-1])(answer)

    return fill


def round_and_round(answer: dns.message.Message) -> None:
    """Put an alias of itself into an answer."""
    answer.answer.append(dns.rrset.from_text(NAME, 60, "IN", "CNAME", NAME))


def cut_off(answer: dns.message.Message) -> None:
    """Say that the rest is to be had over TCP."""
    answer.flags |= dns.flags.TC


@pytest.mark.parametrize(
    ("fill", "found"),
    [
        (addresses(3), 3),
        (aliases(3), 1),
        (addresses(240), MOST_ADDRESSES),
        (aliases(60), 0),
        (round_and_round, 0),
        (cut_off, 0),
    ],
    ids=["few", "aliases", "many", "a long chain", "a circle", "cut off"],
)
def test_an_answer_is_read_as_far_as_there_is_use_for_it(
    lab: Lab, fill: Answer, found: int
) -> None:
    """However many addresses a name has; the first two answers are the control."""
    done = threading.Event()

    def serve(channel: socket.socket) -> None:
        while not done.is_set():
            try:
                data, client = channel.recvfrom(4096)
            except TimeoutError:
                continue
            answer = dns.message.make_response(dns.message.from_wire(data))
            if answer.question[0].rdtype == dns.rdatatype.A:
                fill(answer)
            channel.sendto(answer.to_wire(max_size=65535), client)

    def look_up() -> tuple[object, ...]:
        lookup = EndpointLookup(ip_address("127.0.0.53"))
        lookup.open()
        return asyncio.run(lookup.ask((NAME,)))[NAME]

    with lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.53", 53))
        channel.settimeout(0.1)
        server = threading.Thread(target=serve, args=(channel,))
        server.start()
        try:
            if found:
                assert len(lab.gateway_namespace.inside(look_up)) == found
            else:
                with pytest.raises(NetworkError, match="gives no address"):
                    lab.gateway_namespace.inside(look_up)
        finally:
            done.set()
            server.join()
