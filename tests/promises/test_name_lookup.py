"""Looking up the endpoint's name, while a workload listens and talks on the same loopback."""

import asyncio
import socket
import threading
import time
from ipaddress import ip_address

import pytest

from gateway.system.lookup import EndpointLookup
from tests.lab.process import PATIENCE
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]


def test_a_question_can_wear_any_mark(lab: Lab) -> None:
    """Marks from 2**31 on ended the gateway with a TypeError: every second start with a name."""

    def marks() -> list[int]:
        lookup = EndpointLookup(ip_address("127.0.0.11"))
        drawn = [lookup.open().mark for _ in range(32)]
        asyncio.run(lookup.ask(()))  # closes the socket
        return drawn

    drawn = lab.gateway_namespace.inside(marks)
    assert min(drawn) < 1 << 31 <= max(drawn), "control: both halves were drawn"


def test_a_workload_that_floods_the_socket_neither_hangs_the_gateway_nor_the_answer(
    lab: Lab,
) -> None:
    """The port is no secret, and loopback is open: any workload can send to it.

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
