"""What has been seen of the tunnel, and whether it proves that the server is there.

WireGuard has no connection that could be up or down: there is a handshake in the past,
and there are bytes. A live server answers every packet of data within ten seconds, if only by a
passive keepalive (WireGuard paper, section 6.5, KEEPALIVE_TIMEOUT). So data that was sent and
stays unanswered for `Timing.silent_after` seconds means that the server is gone.

Only data answers data. Handshakes and keepalives of our own ask for no such answer, and
handshakes that arrive are none: where the way there is cut and the way back is not, the server
begins one every five seconds; where something on the way lets handshakes pass and no data, each of
ours is responded to. All of them are known by their sizes. A response still says that the server
lives and may have forgotten us meanwhile, so the first one in a silence begins the count anew.

The time of a handshake is told by the wall clock, which may jump: it is compared for change only,
and its age counts from the moment the change was seen.
"""

from dataclasses import dataclass

from gateway.model import Tunnel, TunnelStatus
from gateway.policy.timing import Moment

KEEPALIVE_SIZE = 32
"""Bytes of a keepalive on the wire: a transport message without data (WireGuard paper, 5.4.6)."""

INITIATION_SIZE, RESPONSE_SIZE = 148, 92
"""Bytes of the two messages of a handshake (WireGuard paper, 5.4.2 and 5.4.3)."""

PADDING = 16
"""What data adds up to a multiple of, but for packets as large as the MTU; handshakes do not."""


@dataclass(frozen=True)
class Pulse:
    """What has been seen of the tunnel so far; every `_at` is the time at which it was seen.

    `excused` says that a handshake was responded to since data has been without an answer.
    """

    handshake: float | None = None
    handshake_at: float | None = None
    received: int = 0
    sent: int = 0
    sampled_at: float = 0.0
    unanswered_at: float | None = None
    excused: bool = False
    heard_at: float | None = None

    def after(self, status: TunnelStatus, now: float, keepalive: int = 0) -> "Pulse":
        """Return the pulse with `status`, read at `now`, taken into account.

        `keepalive` is the shortest persistent keepalive of the peers, in seconds, 0 for none.
        """
        handshakes = [peer.handshake for peer in status.peers if peer.handshake is not None]
        latest = max(handshakes, default=None)
        is_new = latest is not None and latest != self.handshake
        peers = len(status.peers)
        elapsed = now - self.sampled_at if self.sampled_at else 0.0
        due = 1 + int(elapsed // keepalive) if keepalive else 1
        asked = not _is_upkeep(status.sent - self.sent, peers, due)
        grown = status.received - self.received
        answered = not _is_handshakes(grown, 2 * peers)
        excuse = not answered and not self.excused and grown % INITIATION_SIZE != 0
        unanswered_at = self.unanswered_at or (now if asked else None)
        waits = unanswered_at is not None and not answered
        return Pulse(
            handshake=latest,
            handshake_at=now if is_new else self.handshake_at,
            received=status.received,
            sent=status.sent,
            sampled_at=now,
            unanswered_at=(now if excuse else unanswered_at) if waits else None,
            excused=waits and (self.excused or excuse),
            heard_at=now if answered else self.heard_at,
        )

    def is_in_doubt(self, moment: Moment) -> bool:
        """Return whether something that was sent has been without an answer for a while."""
        return self._waits_for(moment.timing.doubt_after, moment.now)

    def is_silent(self, moment: Moment, *, keepalive: bool) -> bool:
        """Return whether the server is gone, judged by what has been seen until `moment`."""
        if self._waits_for(moment.timing.silent_after, moment.now):
            return True
        age = float("inf") if self.handshake_at is None else moment.now - self.handshake_at
        return keepalive and age >= moment.timing.handshake_expires

    def _waits_for(self, seconds: float, now: float) -> bool:
        return self.unanswered_at is not None and now - self.unanswered_at >= seconds


def foreign_change(tunnel: Tunnel, status: TunnelStatus) -> str:
    """Say what somebody else has changed of WireGuard's own settings; empty if nothing.

    An endpoint is left out: the server may answer from another address, which the firewall refuses.
    """
    if status.listen_port != tunnel.listen_port:
        return f"somebody changed the listen port to {status.listen_port}"
    if status.fwmark != tunnel.fwmark:
        return "somebody changed the mark"
    if {peer.public_key for peer in status.peers} != {peer.public_key for peer in tunnel.peers}:
        return "somebody changed the peers"
    return ""


def _is_handshakes(size: int, most: int) -> bool:
    """Say whether `size` bytes are nothing but up to `most` messages of handshakes.

    Whoever began one confirms it by a keepalive, which comes with it if not a moment later.
    """
    confirmed = size - KEEPALIVE_SIZE - INITIATION_SIZE
    alone = size % PADDING != 0 and size in _sums(most)
    return size == 0 or alone or (size % PADDING != 0 and confirmed in {0, *_sums(most - 1)})


def _is_upkeep(size: int, peers: int, keepalives: int) -> bool:
    """Say whether `size` bytes are nothing but what WireGuard sends of itself to `peers`.

    Those are up to `keepalives` for each, and a handshake, which one more keepalive confirms.
    """
    most = peers * keepalives
    rests = [(size, most), *((size - handshake, most + peers) for handshake in _sums(peers))]
    return any(
        rest % KEEPALIVE_SIZE == 0 and 0 <= rest // KEEPALIVE_SIZE <= limit for rest, limit in rests
    )


def _sums(most: int) -> frozenset[int]:
    """Return what one to `most` messages of handshakes add up to."""
    return frozenset(
        first * INITIATION_SIZE + second * RESPONSE_SIZE
        for first in range(most + 1)
        for second in range(most + 1 - first)
        if first + second
    )
