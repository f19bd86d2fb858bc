"""The gateway's own health server on loopback, with statuses that a test makes: no gateway runs."""

import math
import socket
import time
from dataclasses import replace
from ipaddress import ip_address

from gateway.model import Endpoint, HostPort
from gateway.model.lease import Lease
from gateway.policy.limits import DROP_NET_RAW, Limit, LimitCode
from gateway.policy.public_address import PublicAddress
from gateway.policy.report import Hole, HoleKind, Status
from gateway.policy.reports import ResolverReport, ServiceReport
from gateway.policy.states import Reason
from gateway.services.health.board import Board
from gateway.services.health.server import HealthServer

HOUR, EVERY = 3600, 5
"""Seconds that are lived through, and from one status to the next."""
OUTAGE = (21, 24)
"""The minutes from which and until which the server is silent."""
SERVER = Endpoint(ip_address("198.51.100.7"), 51820)
CONNECTED = Status(
    at=0.0,
    state="connected",
    healthy=True,
    reason=Reason.ANSWERS,
    since=0.0,
    endpoint=str(SERVER),
    endpoints=(SERVER,),
    handshake_age=42.0,
    mtu=1420,
    path_mtu=1420,
    firewall="nftables",
    guard=True,
    tunnel="kernelspace",
    refused=(("ipv4", "out", 12), ("ipv6", "out", 3), ("any", "guard", 1)),
    holes=(
        Hole(HoleKind.RESOLVERS, ("10.64.0.1 unencrypted in the tunnel",), is_open=True),
        Hole(HoleKind.LAN, ("192.168.1.0/24",), is_open=True),
        Hole(HoleKind.INPUT_PORTS, ("8080/tcp", "9999/tcp"), is_open=True),
        Hole(HoleKind.TUNNEL_PORTS, ("51413/tcp", "51413/udp"), is_open=True),
    ),
    limits=(
        Limit(
            LimitCode.NO_GUARD_IN_ADVANCE,
            "an interface that appears later is closed to packet sockets a moment later (guards "
            "for interfaces that do not exist yet take Linux 6.16)",
            DROP_NET_RAW,
        ),
    ),
)


class Clock:
    """The machine's clock, which a test may set back to live through the past."""

    def __init__(self) -> None:
        self.shift = 0.0

    def __call__(self) -> float:
        """Return seconds."""
        return 1e6 + time.monotonic() + self.shift


class Gateway:
    """In place of a gateway: a status that the test makes, and the real server."""

    def __init__(self) -> None:
        """Listen on loopback."""
        self.clock = Clock()
        self.board = Board(self.clock)
        self.board.ask_to_count = self._count
        self._last = CONNECTED
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        HealthServer(self.board).start(HostPort("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{port}/"

    def publish(self, status: Status = CONNECTED, *, state_age: float = 0.0) -> None:
        """Publish a status of now."""
        now = self.clock()
        self._last = replace(status, at=now, since=now - state_age, verified_age=1.0)
        self.board.publish(self._last)

    def _count(self) -> None:
        """Publish the last status as one whose refused packets were counted now."""
        now = self.clock()
        self.board.publish(replace(self._last, at=now, counted_at=now))

    def live_an_hour(self) -> None:
        """Live through the last hour, in which the server was silent for three minutes."""
        received, sent = 0.0, 0.0
        for second in range(0, HOUR + 1, EVERY):
            self.clock.shift = float(second - HOUR)
            minute = second / 60
            if OUTAGE[0] <= minute < OUTAGE[1]:
                received, sent = 0.0, 0.0
                self.publish(outage(minute), state_age=second - OUTAGE[0] * 60)
                continue
            load = 2.5 + math.sin(minute / 5) + 0.25 * math.sin(minute * 1.9)
            load += 2 * math.exp(-(((minute - 45) / 5) ** 2))
            received, sent = received + load * EVERY * 4e5, sent + load * EVERY * 5e4
            is_second = minute >= OUTAGE[1]
            begun = OUTAGE[1] * 60 if is_second else 0
            status = replace(
                CONNECTED,
                handshake_age=float((second - begun) % 121),
                received=int(received),
                sent=int(sent),
                reconnects=((Reason.SILENT, 1),) if is_second else (),
            )
            self.publish(status, state_age=second - begun)

    def serve_more(self) -> None:
        """Have what is optional: a forwarded port, a resolver of its own, services."""
        self.board.resolver = lambda: ResolverReport(
            "cloudflare over TLS", answers=True, starts=1, blocks=61_234
        )
        self.board.services = lambda: (
            ServiceReport("port forwarding", is_running=True, text="51413 by NAT-PMP of 10.64.0.1"),
            ServiceReport("HTTP proxy", is_running=True, starts=1, text="at port 8888"),
            ServiceReport("control", is_running=True, starts=1, text="at :8000, 2 roles"),
        )
        self.board.public_ip = lambda: PublicAddress("203.0.113.77", "Switzerland", "", "Zürich")
        lease = Lease(51413, 51413, self.clock() + HOUR)
        self.publish(
            replace(self._last, leases=(lease,)), state_age=self.clock() - self._last.since
        )


def outage(minute: float) -> Status:
    """Return the status of a gateway that has lost its server, in this minute of the hour."""
    is_first = minute < OUTAGE[0] + 0.5
    return replace(
        CONNECTED,
        state="connecting",
        healthy=False,
        reason=Reason.SILENT if is_first else Reason.NO_HANDSHAKE,
        detail="" if is_first else f"packets leave, and nothing returns from {SERVER}",
        attempts=0 if is_first else 4,
        handshake_age=40 + (minute - OUTAGE[0]) * 60,
        mtu=None,
        holes=tuple(replace(it, is_open=it.kind is HoleKind.INPUT_PORTS) for it in CONNECTED.holes),
    )
