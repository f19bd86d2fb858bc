"""Decides from handshakes and bytes whether the tunnel's server is alive.

WireGuard has no connection that is up or down: there is a handshake in the past, and there are
byte counters. A live server answers every packet of data within ten seconds, at least with a
passive keepalive (WireGuard paper, section 6.5, KEEPALIVE_TIMEOUT). So the server is gone if sent
data stays unanswered for `Timing.silent_after` seconds.

Only data counts as an answer to data. Our handshakes and keepalives require no such answer, and
arriving handshakes are not one. If only the path to the server is cut, the server begins a
handshake every five seconds. If a device on the path passes handshakes but no data, the server
responds to each of ours. The code recognizes all of them by their sizes. Once the keys have
expired, all data waits for a handshake; without a persistent keepalive, whose tunnel is judged by
the age of its handshake, one that we begin then asks for an answer as well. A response still shows
that the server lives and may have forgotten our session, so the first one in a silence restarts
the count.

WireGuard reports the time of a handshake by the wall clock, which may jump. The code only compares
it for change, and counts its age from the moment the change was seen.
"""

from gateway.model import Tunnel
from gateway.model.frozen import frozen
from gateway.policy.facts import TunnelStatus
from gateway.policy.timing import Moment

KEEPALIVE_SIZE = 32
"""Bytes of a keepalive on the wire: a transport message without data (WireGuard paper, 5.4.6)."""

INITIATION_SIZE, RESPONSE_SIZE = 148, 92
"""Bytes of the two messages of a handshake (WireGuard paper, 5.4.2 and 5.4.3)."""

KEEPALIVE_TIMEOUT = 10.0
"""Seconds after which data that was received is acknowledged (WireGuard paper, 6.5)."""

KEYS_EXPIRE = 180.0
"""Seconds after a handshake from which on only the next one can be sent (REJECT_AFTER_TIME)."""

LITTLE = 512
"""Bytes that an idle tunnel may have sent and received: a probe and its answer, a handshake."""

PADDING = 16
"""Bytes that WireGuard pads data to a multiple of, up to the MTU; it does not pad handshakes."""


@frozen
class Pulse:
    """The evidence so far; every `_at` is the time in seconds at which it was seen.

    `excused` is True if the server has responded to a handshake since data is unanswered. `moves`
    is True if more than LITTLE was sent or received between the last two samples. `heard_at` is
    when more than handshakes was received, `data_at` when that cannot have been keepalives.
    """

    handshake: float | None = None
    handshake_at: float | None = None
    received: int = 0
    sent: int = 0
    sampled_at: float = 0.0
    unanswered_at: float | None = None
    excused: bool = False
    heard_at: float | None = None
    data_at: float | None = None
    moves: bool = True

    @property
    def carried(self) -> int:
        """Bytes sent and received."""
        return self.sent + self.received

    @property
    def is_calm(self) -> bool:
        """Whether hardly anything moves, and nothing is waited for."""
        return not self.moves and self.unanswered_at is None

    def after(self, status: TunnelStatus, now: float, keepalive: int = 0) -> "Pulse":
        """Return the pulse that includes `status`, which was read at `now`.

        `keepalive` is the shortest persistent keepalive of the peers, in seconds, 0 for none.
        """
        handshakes = [peer.handshake for peer in status.peers if peer.handshake is not None]
        latest = max(handshakes, default=None)
        is_new = latest is not None and latest != self.handshake
        peers = len(status.peers)
        elapsed = now - self.sampled_at if self.sampled_at else 0.0
        due = 1 + int(elapsed // keepalive) if keepalive else 1
        handshake_at = now if is_new else self.handshake_at
        has_keys = handshake_at is None or now - handshake_at < KEYS_EXPIRE
        more, grown = status.sent - self.sent, status.received - self.received
        asked = not _is_upkeep(more, peers, due) or (more > 0 and not has_keys and not keepalive)
        answered = not _is_handshakes(grown, 2 * peers)
        excuse = not answered and not self.excused and grown % INITIATION_SIZE != 0
        unanswered_at = self.unanswered_at or (now if asked else None)
        waits = unanswered_at is not None and not answered
        most = 1 + int(elapsed // KEEPALIVE_TIMEOUT)
        is_data = answered and not _is_upkeep(grown, peers, most)
        return Pulse(
            handshake=latest,
            handshake_at=handshake_at,
            received=status.received,
            sent=status.sent,
            sampled_at=now,
            unanswered_at=(now if excuse else unanswered_at) if waits else None,
            excused=waits and (self.excused or excuse),
            heard_at=now if answered else self.heard_at,
            data_at=now if is_data else self.data_at,
            moves=more + grown > LITTLE,
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


def keepalive_of(tunnel: Tunnel) -> int:
    """Return the shortest persistent keepalive of the peers in seconds, 0 for none."""
    return min((p.persistent_keepalive for p in tunnel.peers if p.persistent_keepalive), default=0)


def foreign_change(tunnel: Tunnel, status: TunnelStatus) -> str:
    """Return what another program has changed in WireGuard's own settings; empty if nothing.

    It does not compare endpoints: the server may answer from another address, which the firewall
    drops.
    """
    if status.listen_port != tunnel.listen_port:
        return f"another program changed the listen port to {status.listen_port}"
    if status.fwmark != tunnel.fwmark:
        return "another program changed the mark"
    if {peer.public_key for peer in status.peers} != {peer.public_key for peer in tunnel.peers}:
        return "another program changed the peers"
    return ""


def _is_handshakes(size: int, most: int) -> bool:
    """Return whether `size` bytes can consist of up to `most` handshake messages.

    The initiator confirms a handshake with a keepalive, which may be among these bytes.
    """
    confirmed = size - KEEPALIVE_SIZE - INITIATION_SIZE
    alone = size % PADDING != 0 and size in _sums(most)
    return size == 0 or alone or (size % PADDING != 0 and confirmed in {0, *_sums(most - 1)})


def _is_upkeep(size: int, peers: int, keepalives: int) -> bool:
    """Return whether `size` bytes can consist of what WireGuard itself sends to, or by, `peers`.

    For each peer that is up to `keepalives`, and a handshake with one more keepalive.
    """
    most = peers * keepalives
    rests = [(size, most), *((size - handshake, most + peers) for handshake in _sums(peers))]
    return any(
        rest % KEEPALIVE_SIZE == 0 and 0 <= rest // KEEPALIVE_SIZE <= limit for rest, limit in rests
    )


def _sums(most: int) -> frozenset[int]:
    """Return the possible sizes in bytes of one to `most` handshake messages together."""
    return frozenset(
        first * INITIATION_SIZE + second * RESPONSE_SIZE
        for first in range(most + 1)
        for second in range(most + 1 - first)
        if first + second
    )
