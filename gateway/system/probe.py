"""One packet into the tunnel, and whether it is answered."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable

from gateway.errors import is_shortage
from gateway.model import Address
from gateway.policy.actions import SendProbe
from gateway.policy.probing import UNSENT, Outcome, Probe, ProbeProtocol
from gateway.policy.upstreams import OURS, OURS_BY_IPV6
from gateway.system.echoes import echoed
from gateway.system.inside import LARGEST_ANSWER, USUAL, Pace, tunnel_socket
from gateway.system.netns import OWN, Netns

THOROUGH = Pace(20, 0.35)
"""Seven seconds: if half of the packets are lost each way, all are once in 300 times, and with
those of the echo once in 100,000."""

DNS_PORT = 53

ROOT_QUESTION = struct.pack("!5H", 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!2H", 2, 1)
"""A DNS message behind its id: the name servers of the root, which every resolver knows.

RFC 1035, section 4.1: recursion desired, one question, the root's empty name, type NS, class IN.
"""

UNANSWERED = Outcome(answered=False, reached=False)

ANSWERED = {0, 3}
"""Response codes that say what there is: NOERROR and NXDOMAIN (RFC 1035, section 4.1.1)."""


async def probe(action: SendProbe, netns: Netns = OWN) -> Outcome:
    """Send a probe into the tunnel of `netns`, and return what came of it.

    It takes three seconds at most. A thorough one takes seven, unless something has answered by
    the third. Never raises OSError. Nothing but the tunnel's interface can carry it, whatever the
    routes say, but for a question to the gateway's own resolver: that says nothing about the
    server, so there the echo alone decides whether something was reached.
    """
    wanted, pace = action.probe, THOROUGH if action.thorough else USUAL
    distinct = action.echo if action.echo != wanted else None
    first, second = await _together(wanted, distinct, pace, netns)
    reached = True if first.reached or second.reached else first.reached
    if wanted.protocol is ProbeProtocol.NAME:
        reached = None if first.answered and not second.reached else second.reached
    counted = UNSENT if action.thorough else first
    return Outcome(first.answered, reached, counted.tries, counted.lost)


async def _together(
    wanted: Probe, echo: Probe | None, pace: Pace, netns: Netns
) -> tuple[Outcome, Outcome]:
    """Return what came of both, until one has answered, but for the time of a usual probe."""
    first = asyncio.ensure_future(_sent(wanted, pace, netns))
    second = asyncio.ensure_future(_sent(echo, pace, netns))
    pending = {first, second}
    try:
        _, pending = await asyncio.wait(pending, timeout=USUAL.tries * USUAL.interval)
        while pending and not any(it.done() and it.result().reached for it in (first, second)):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    return _result_of(first), _result_of(second)


def _result_of(task: asyncio.Future[Outcome]) -> Outcome:
    return UNANSWERED if task.cancelled() else task.result()


async def _sent(wanted: Probe | None, pace: Pace, netns: Netns) -> Outcome:
    """Return what came of `wanted` alone. Never raises OSError."""
    if wanted is None:
        return UNSENT
    try:
        if wanted.protocol is ProbeProtocol.ICMP:
            answered, tries = await echoed(wanted, pace, netns)
        elif wanted.protocol is ProbeProtocol.DNS:
            answered, tries = await _ask_resolver(wanted, pace, netns)
        else:
            answered, tries = await _ask_for_a_name(wanted, pace, netns)
    except ConnectionRefusedError:  # the host itself says so
        return Outcome(answered=False, reached=True)
    except OSError as err:
        return UNSENT if is_shortage(err) else Outcome(answered=False, reached=None)
    return Outcome(answered, answered, tries, tries - answered)


async def _ask_resolver(wanted: Probe, pace: Pace, netns: Netns) -> tuple[bool, int]:
    identity = os.urandom(2)
    with tunnel_socket(wanted.address.version, socket.SOCK_DGRAM, netns=netns) as channel:
        return await _answered(
            channel,
            (str(wanted.address), DNS_PORT),
            identity + ROOT_QUESTION,
            lambda answer: answer[:2] == identity,
            pace,
        )


def arrivals(netns: Netns) -> tuple[Address, ...]:
    """Return where questions arrive that are redirected in `netns`: IPv6 may be switched off.

    Raises OSError where that is not known, for a shortage.
    """
    try:
        with netns.socket(socket.AF_INET6, socket.SOCK_DGRAM) as channel:
            channel.bind((str(OURS_BY_IPV6), 0))
    except OSError as err:
        if is_shortage(err):
            raise
        return (OURS,)
    return OURS, OURS_BY_IPV6


async def answers_here(netns: Netns, address: str = "127.0.0.1") -> bool:
    """Return whether a resolver at `address` of `netns` answers what it need not pass on.

    Raises OSError, also where nothing listens.
    """
    identity = os.urandom(2)
    question = _question(b"localhost")
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        answered, _ = await _answered(
            channel,
            (address, DNS_PORT),
            identity + question,
            lambda answer: answer[:2] == identity,
            Pace(1, USUAL.interval),
        )
        return answered


async def _ask_for_a_name(wanted: Probe, pace: Pace, netns: Netns) -> tuple[bool, int]:
    """Ask for a name that was never asked for, which a resolver has to pass on.

    It may say that there is none (NXDOMAIN), but not that it could not find out.
    """
    identity = os.urandom(2)
    question = _question(os.urandom(6).hex().encode())
    with netns.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        return await _answered(
            channel,
            (str(wanted.address), DNS_PORT),
            identity + question,
            lambda answer: answer[:2] == identity and answer[3] & 0xF in ANSWERED,
            pace,
        )


def _question(label: bytes) -> bytes:
    """Return a DNS message behind its id: the address of a name of one label."""
    head = struct.pack("!5H", 0x0100, 1, 0, 0, 0)
    return head + bytes([len(label)]) + label + b"\0" + struct.pack("!2H", 1, 1)


async def _answered(
    channel: socket.socket,
    address: tuple[str, int],
    message: bytes,
    is_answer: Callable[[bytes], bool],
    pace: Pace,
) -> tuple[bool, int]:
    """Send `message`, and return whether an answer came, and how often it was sent.

    Raises OSError.
    """
    loop = asyncio.get_running_loop()
    channel.connect(address)  # at once, and asyncio's own way knows no raw sockets
    for number in range(1, pace.tries + 1):
        await loop.sock_sendall(channel, message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pace.interval):
                while True:
                    answer = await loop.sock_recv(channel, LARGEST_ANSWER)
                    if is_answer(answer):
                        return True, number
                    # It returns at once while more is queued: a flood would outlast the time.
                    await asyncio.sleep(0)
    return False, pace.tries
