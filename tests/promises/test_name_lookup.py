"""Looking up the endpoint's name, while a workload listens and talks on the same loopback."""

import asyncio
from ipaddress import ip_address

import pytest

from gateway.system.lookup import EndpointLookup
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
