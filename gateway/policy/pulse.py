"""What has been seen of the tunnel, and whether it proves that the server is there.

WireGuard has no connection that could be up or down: there is a handshake in the past,
and there are bytes. A live server answers every packet of data within ten seconds, if only by a
passive keepalive (WireGuard paper, section 6.5, KEEPALIVE_TIMEOUT). So data that was sent and
stays unanswered for SILENT_AFTER seconds means that the server is gone. Keepalives of our own
are answered by nobody and prove nothing; they are known by their size. So are the handshakes that
a server begins which hears nothing of us: where the way there is cut and the way back is not, they
arrive every five seconds, and answer nothing. The time of a handshake is
told by the wall clock, which may jump: it is compared for change only, and its age counts from the
moment the change was seen.
"""

from dataclasses import dataclass

from gateway.model import TunnelStatus

SILENT_AFTER = 16.0
"""Seconds that sent data may stay unanswered.

WireGuard itself starts a new handshake after 15; one more leaves time for the answer, which is all
that a server needs which was started again and has forgotten us.
"""

DOUBT_AFTER = 3.0
"""Seconds after which unanswered data is reason to ask something that will be answered."""

HANDSHAKE_EXPIRES = 210.0
"""Seconds after which a tunnel with keepalive must have had a new handshake.

A keepalive 120 s after the last handshake starts a new one and keys die at 180 s; the rest is room
for the slowest customary keepalive and a few lost packets.
"""

KEEPALIVE_SIZE = 32
"""Bytes of a keepalive on the wire: a transport message without data (WireGuard paper, 5.4.6)."""


INITIATION_SIZE = 148
"""Bytes of a message that begins a handshake (WireGuard paper, 5.4.2); no data adds up to it."""


@dataclass(frozen=True)
class Pulse:
    """What has been seen of the tunnel so far; every `_at` is the time at which it was seen."""

    handshake: float | None = None
    handshake_at: float | None = None
    received: int = 0
    sent: int = 0
    unanswered_at: float | None = None
    heard_at: float | None = None

    def after(self, status: TunnelStatus, now: float) -> "Pulse":
        """Return the pulse with `status`, read at `now`, taken into account."""
        handshakes = [peer.handshake for peer in status.peers if peer.handshake is not None]
        latest = max(handshakes, default=None)
        is_new = latest is not None and latest != self.handshake
        data = status.sent - self.sent > KEEPALIVE_SIZE * len(status.peers)
        grown = status.received - self.received
        answered = grown > INITIATION_SIZE * len(status.peers) or grown % INITIATION_SIZE != 0
        return Pulse(
            handshake=latest,
            handshake_at=now if is_new else self.handshake_at,
            received=status.received,
            sent=status.sent,
            unanswered_at=None if answered else self.unanswered_at or (now if data else None),
            heard_at=now if answered else self.heard_at,
        )

    def is_in_doubt(self, now: float) -> bool:
        """Say whether something that was sent has been without an answer for a while."""
        return self.unanswered_at is not None and now - self.unanswered_at >= DOUBT_AFTER

    def is_silent(self, now: float, *, keepalive: bool) -> bool:
        """Say whether the server is gone, by what has been seen until `now`."""
        if self.unanswered_at is not None and now - self.unanswered_at >= SILENT_AFTER:
            return True
        expired = self.handshake_at is None or now - self.handshake_at >= HANDSHAKE_EXPIRES
        return keepalive and expired
