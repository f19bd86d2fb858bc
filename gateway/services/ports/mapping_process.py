"""Asks a server in the tunnel for ports, in a process of its own without rights.

What the server sends is parsed here, so this process gives up everything that it can. It has two
descriptors besides its output: a pipe, and a socket that is bound to the tunnel's interface and
connected to the server, which this process cannot undo (net/core/sock.c, sock_bindtoindex_locked).
It decides nothing: it writes a line with the ports that there are each time that this changes, and
the gateway judges what to make of it. When the gateway closes the pipe, it gives the ports back and
ends. A signal for that would take CAP_KILL, because this process has another user.
"""

import os
import random
import resource
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from typing import NoReturn

from gateway.errors import NetworkError
from gateway.policy.mapped import FIRST_DYNAMIC, LAST_DYNAMIC, Granted, Plan, PortProblem
from gateway.policy.mapping import Mapper
from gateway.policy.portmap import LONGEST, NONCE, Codec
from gateway.services.ports.mapping_lines import HEARTBEAT, line_of, plan_of
from gateway.system import rights

SOCKET, HELD = 3, 4
"""Its descriptors: the socket, and the end of a pipe whose other end the gateway holds."""
MOST_MEMORY = 256 << 20
MOST_DESCRIPTORS = 32
"""Bytes of address space, and descriptors."""
LIMITS = (
    (resource.RLIMIT_AS, MOST_MEMORY),
    (resource.RLIMIT_NOFILE, MOST_DESCRIPTORS),
    (resource.RLIMIT_FSIZE, 0),
)
MOST_AT_ONCE = 20
PAUSE = 0.1
"""So many messages are read, then none for a while: a flood takes no more than a little time."""
BETWEEN_LINES = 0.25
"""Seconds between two lines at least; at most it is `mapping_lines.HEARTBEAT`."""
LONGEST_SLEEP = 30.0
"""Seconds until the next look at the clock, which does not halt while the machine is suspended."""


class Keeper:
    """Keeps the ports over a connected socket, as long as the pipe `held` is open."""

    def __init__(
        self, mapper: Mapper, channel: socket.socket, held: int, report: Callable[[str], None]
    ) -> None:
        self._mapper = mapper
        self._channel = channel
        self._held = held
        self._report = report
        self._said: tuple[tuple[Granted, ...], PortProblem | None] | None = None
        self._said_at = 0.0

    def turn(self) -> None:
        """Send what is due, wait until something arrives or is due, and read it.

        Raises SystemExit once the pipe is closed.
        """
        now = clock()
        for message in self._mapper.to_send(now):
            try:
                self._channel.send(message)
            except ConnectionRefusedError:
                self._mapper.failed(PortProblem.NOT_LISTENING)
            except OSError:
                self._mapper.failed(PortProblem.UNSENT)
        until = min(self._mapper.due_at, now + LONGEST_SLEEP, self._say(now))
        watched = self._channel, self._held
        readable, _, _ = select.select(watched, [], [], max(0.0, until - now))
        if self._held in readable:
            raise SystemExit
        if readable:
            self._read()

    def end(self) -> None:
        """Give the ports back, as far as that can be sent."""
        for message in self._mapper.farewell(clock()):
            with suppress(OSError):
                self._channel.send(message)

    def _read(self) -> None:
        """Read what is there, but not more than a little."""
        for _ in range(MOST_AT_ONCE):
            try:
                message = self._channel.recv(LONGEST + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                self._mapper.failed(PortProblem.NOT_LISTENING)
                return
            except OSError:
                self._mapper.failed(PortProblem.UNSENT)
                break
            self._mapper.receive(message, clock())
        time.sleep(PAUSE)

    def _say(self, now: float) -> float:
        """Report what has changed, if the last line is old enough; return when to do so."""
        found = self._mapper.leases(now), self._mapper.problem(now)
        soonest = min((it.until for it in found[0]), default=now + LONGEST_SLEEP)
        if found == self._said and now < self._said_at + HEARTBEAT:
            return min(soonest, self._said_at + HEARTBEAT)
        if now < self._said_at + BETWEEN_LINES:
            return self._said_at + BETWEEN_LINES
        self._said, self._said_at = found, now
        self._report(line_of(*found, now))
        return min(soonest, now + HEARTBEAT)


def clock() -> float:
    """Return seconds that continue while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> NoReturn:
    """Be the process, until the pipe is closed, or SIGTERM."""
    client, *words = sys.argv[1:4]
    plan: Plan = plan_of(words)
    try:
        rights.give_up_rights("the process for ports", LIMITS)
    except NetworkError as err:
        _write(str(err))
        os._exit(1)
    codec = Codec(IPv4Address(client), secrets.token_bytes(NONCE))
    draw = random.SystemRandom()
    mapper = Mapper(plan, codec, clock(), lambda: draw.randint(FIRST_DYNAMIC, LAST_DYNAMIC))
    keeper = Keeper(mapper, socket.socket(fileno=SOCKET), HELD, _write)
    signal.signal(signal.SIGTERM, _asked_to_end)
    try:
        while True:
            keeper.turn()
    except SystemExit:
        keeper.end()
    os._exit(0)


def _asked_to_end(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def _write(line: str) -> None:
    os.write(1, f"{line}\n".encode())
