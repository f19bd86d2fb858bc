"""Whether resolvers answer, asked as a workload asks them."""

import asyncio
import errno
import os
import socket

from gateway.errors import is_shortage
from gateway.model import Address
from gateway.policy.resolvers import Fault, Finding
from gateway.system.inside import LARGEST_ANSWER
from gateway.system.netns import OWN, Netns
from gateway.system.probe import DNS_PORT, ROOT_QUESTION

TRIES = 2
INTERVAL = 1.0
"""Seconds for an answer to one of them."""


async def not_answering(resolvers: tuple[Address, ...], netns: Netns = OWN) -> tuple[Finding, ...]:
    """Return those of `resolvers` that do not answer in `netns`, and why. Raises no OSError.

    The rules and routes are those of every process there. What could not be asked for now, for want
    of descriptors or memory, is not among them.
    """
    faults = await asyncio.gather(*(_fault_of(resolver, netns) for resolver in resolvers))
    return tuple(
        Finding(resolver, fault)
        for resolver, fault in zip(resolvers, faults, strict=True)
        if fault is not None
    )


async def _fault_of(resolver: Address, netns: Netns) -> Fault | None:
    family = socket.AF_INET6 if resolver.version == 6 else socket.AF_INET  # noqa: PLR2004
    try:
        with netns.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            channel.connect((str(resolver), DNS_PORT))
            return None if await _answers(channel) else Fault.SILENT
    except OSError as err:
        if is_shortage(err):
            return None
        return Fault.REFUSED if err.errno == errno.ECONNREFUSED else Fault.UNREACHABLE


async def _answers(channel: socket.socket) -> bool:
    """Return whether an answer comes to one of the questions. Raises OSError."""
    loop = asyncio.get_running_loop()
    identity = os.urandom(2)
    for _ in range(TRIES):
        await loop.sock_sendall(channel, identity + ROOT_QUESTION)
        try:
            async with asyncio.timeout(INTERVAL):
                while True:
                    answer = await loop.sock_recv(channel, LARGEST_ANSWER)
                    if answer[:2] == identity:
                        return True
                    await asyncio.sleep(0)  # a flood would outlast the time
        except TimeoutError:
            continue
    return False
