"""The states of the gateway and what moves it from one to another.

Everything that affects the state lives in this file; nothing here does I/O or reads a clock.

                 Begin                      a handshake
    Locked ───────────────► Connecting ───────────────────► Connected
      ▲                       ▲  │  ▲                         │   │
      │            Failed ────┘  │  └─────────────────────────┘   │
      │                          │     Lost, or nothing received  │
      └──────────────────────────┴────────────────────────────────┘
                                Refused

`Stopping` is reached from everywhere by `Stop` and never left. A state says what the firewall
allows (`gateway.policy.firewall`): Locked and Stopping nothing, Connecting the encrypted flow, and
Connected the tunnel and the listed holes too. So each arrow to the right opens only what the state
before has earned, and each arrow to the left closes before anything is repaired.

Evidence. WireGuard has no connection that could be up or down: there is a handshake in the past,
and there are bytes. A live server answers every packet of data within ten seconds, if only by a
passive keepalive (WireGuard paper, section 6.5, KEEPALIVE_TIMEOUT). So data that was sent and
stays unanswered for SILENT_AFTER seconds means that the server is gone. Keepalives of our own
are answered by nobody and prove nothing; they are known by their size. The time of a handshake is
told by the wall clock, which may jump: it is compared for change only, and its age counts from the
moment the change was seen.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.model import Tunnel, TunnelStatus

SILENT_AFTER = 15.0
"""Seconds that sent data may stay unanswered: WireGuard itself starts a new handshake then."""

HANDSHAKE_EXPIRES = 210.0
"""Seconds after which a tunnel with keepalive must have had a new handshake.

A keepalive 120 s after the last handshake starts a new one and keys die at 180 s; the rest is room
for the slowest customary keepalive and a few lost packets.
"""

KEEPALIVE_SIZE = 32
"""Bytes of a keepalive on the wire: a transport message without data (WireGuard paper, 5.4.6)."""

BACKOFF_FIRST = 1.0
BACKOFF_LAST = 60.0
"""Seconds between two attempts to build the tunnel: doubled from the first to the last."""


class Reason(StrEnum):
    """Why the tunnel is not carrying traffic."""

    STARTING = "starting"
    NO_HANDSHAKE = "no handshake"
    SILENT = "handshake but nothing received"
    INTERFACE_LOST = "the tunnel's interface was lost"
    NOT_BUILT = "the tunnel could not be set up"
    FIREWALL = "the firewall rules could not be put into force"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Pulse:
    """What has been seen of the tunnel so far; every `_at` is the time at which it was seen."""

    handshake: float | None = None
    handshake_at: float | None = None
    received: int = 0
    sent: int = 0
    unanswered_at: float | None = None

    def after(self, status: TunnelStatus, now: float) -> "Pulse":
        """Return the pulse with `status`, read at `now`, taken into account."""
        handshakes = [peer.handshake for peer in status.peers if peer.handshake is not None]
        latest = max(handshakes, default=None)
        is_new = latest is not None and latest != self.handshake
        data = status.sent - self.sent > KEEPALIVE_SIZE * len(status.peers)
        answered = status.received != self.received
        return Pulse(
            handshake=latest,
            handshake_at=now if is_new else self.handshake_at,
            received=status.received,
            sent=status.sent,
            unanswered_at=None if answered else self.unanswered_at or (now if data else None),
        )

    def is_silent(self, now: float, *, keepalive: bool) -> bool:
        """Say whether the server is gone, by what has been seen until `now`."""
        if self.unanswered_at is not None and now - self.unanswered_at >= SILENT_AFTER:
            return True
        expired = self.handshake_at is None or now - self.handshake_at >= HANDSHAKE_EXPIRES
        return keepalive and expired


@dataclass(frozen=True)
class Locked:
    """Nothing passes but loopback, until the rules can be put into force at `retry_at`."""

    reason: Reason = Reason.STARTING
    since: float = 0.0
    retry_at: float = 0.0
    attempt: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Connecting:
    """The encrypted flow passes, and nothing else: the tunnel has yet to prove itself.

    `built` says whether the interface stands; until then it is to be built at `retry_at`.
    `pulse` is what has been seen since the state was entered.
    """

    tunnel: Tunnel
    reason: Reason
    since: float
    retry_at: float
    attempt: int = 0
    built: bool = False
    detail: str = ""
    pulse: Pulse = Pulse()


@dataclass(frozen=True)
class Connected:
    """The tunnel has had a handshake: it and the listed holes are open."""

    tunnel: Tunnel
    since: float
    pulse: Pulse


@dataclass(frozen=True)
class Stopping:
    """The process is about to end: nothing passes any more, ever."""

    since: float = 0.0


State = Locked | Connecting | Connected | Stopping


@dataclass(frozen=True)
class Begin:
    """The configuration is read: connect with `tunnel`."""

    tunnel: Tunnel


@dataclass(frozen=True)
class Built:
    """The interface stands."""


@dataclass(frozen=True)
class Failed:
    """The interface could not be built, and why; `tunnel` is what to try next time."""

    detail: str
    tunnel: Tunnel


@dataclass(frozen=True)
class Lost:
    """The interface is gone, down or renamed, and how that was noticed."""

    detail: str


@dataclass(frozen=True)
class Refused:
    """The kernel did not take the rules of the state, and why; the closed ones are in force."""

    detail: str


@dataclass(frozen=True)
class Sampled:
    """WireGuard was asked what it knows."""

    status: TunnelStatus


@dataclass(frozen=True)
class Stop:
    """Somebody wants the process to end."""


Event = Begin | Built | Failed | Lost | Refused | Sampled | Stop


def backoff(attempt: int) -> float:
    """Return the seconds to wait after `attempt` attempts that failed in a row."""
    return min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(attempt - 1, 10))


def step(state: State, event: Event, now: float) -> State:
    """Return the state that `event`, at `now`, leads to; the same state where it means nothing."""
    if isinstance(event, Stop) or isinstance(state, Stopping):
        return state if isinstance(state, Stopping) else Stopping(since=now)
    if isinstance(event, Refused):
        return _refused(state, event, now)
    match state:
        case Locked():
            return _from_locked(state, event, now)
        case Connecting():
            return _from_connecting(state, event, now)
        case Connected():
            return _from_connected(state, event, now)


def _from_locked(state: Locked, event: Event, now: float) -> State:
    if isinstance(event, Begin):
        return Connecting(
            event.tunnel, state.reason, since=now, retry_at=now, attempt=state.attempt
        )
    return state


def _refused(state: State, event: Refused, now: float) -> State:
    attempt = 1 if isinstance(state, Connected | Stopping) else state.attempt + 1
    return Locked(Reason.FIREWALL, now, now + backoff(attempt), attempt, event.detail)


def _from_connecting(state: Connecting, event: Event, now: float) -> State:
    match event:
        case Built():
            return replace(state, built=True, reason=Reason.NO_HANDSHAKE, detail="")
        case Failed():
            attempt = state.attempt + 1
            return Connecting(
                event.tunnel,
                Reason.NOT_BUILT,
                since=state.since,
                retry_at=now + backoff(attempt),
                attempt=attempt,
                detail=event.detail,
            )
        case Lost():
            again = _connecting_again(state.tunnel, event, now)
            return replace(again, since=state.since, attempt=state.attempt)
        case Sampled() if state.built:
            return _sampled_while_connecting(state, event.status, now)
        case _:
            return state


def _sampled_while_connecting(state: Connecting, status: TunnelStatus, now: float) -> State:
    pulse = state.pulse.after(status, now)
    if pulse.handshake_at != state.pulse.handshake_at:
        return Connected(state.tunnel, since=now, pulse=replace(pulse, unanswered_at=None))
    return replace(state, pulse=pulse)


def _from_connected(state: Connected, event: Event, now: float) -> State:
    match event:
        case Lost():
            return _connecting_again(state.tunnel, event, now)
        case Sampled():
            pulse = state.pulse.after(event.status, now)
            keepalive = any(peer.persistent_keepalive for peer in state.tunnel.peers)
            if not pulse.is_silent(now, keepalive=keepalive):
                return replace(state, pulse=pulse)
            return Connecting(
                state.tunnel, Reason.SILENT, since=now, retry_at=now, built=True, pulse=pulse
            )
        case _:
            return state


def _connecting_again(tunnel: Tunnel, lost: Lost, now: float) -> Connecting:
    return Connecting(tunnel, Reason.INTERFACE_LOST, since=now, retry_at=now, detail=lost.detail)
