"""What the probes of one connection have shown: that packets arrive, and how many are lost.

WireGuard itself notices a server that is gone by data without an answer. Where only the way to the
server is lost, its packets still arrive (a forwarded port, a download, another peer's keepalives),
and each looks like an answer to ours: the kernel tries no handshake until the keys are old. Only
what has to be answered shows it, which is why probes are more frequent while data moves.
"""

from dataclasses import replace

from gateway.model.frozen import frozen
from gateway.policy.evidence import Pulse
from gateway.policy.probing import Outcome

MEMORY = 40
"""Tries that are remembered: with more, all count half as much, so that old ones are forgotten."""

FEW = 20
"""Tries below which nothing is said about loss."""

MUCH = 0.3
"""The share of tries without an answer from which on it is reported.

Healthy networks lose fewer than one in 20, and a full uplink may lose one in ten.
"""


@frozen
class Proof:
    """What the probes have shown since the handshake.

    `reached`: something in the tunnel has answered one. `missed_at` is when the first probe was
    sent that nothing has answered since, None while answers come, and where there never was one.
    `tries` and `lost` count packets, those without an answer in time among them.
    """

    reached: bool = False
    missed_at: float | None = None
    tries: float = 0.0
    lost: float = 0.0

    def after(self, outcome: Outcome, begun_at: float) -> "Proof":
        """Return the proof after a probe that was sent at `begun_at`."""
        if outcome.reached is None:
            return self
        tries, lost = self.tries + outcome.tries, self.lost + outcome.lost
        if tries > MEMORY:
            tries, lost = tries / 2, lost / 2
        missed_at = (self.missed_at or begun_at) if self.reached else None
        return Proof(
            reached=self.reached or outcome.reached,
            missed_at=None if outcome.reached else missed_at,
            tries=tries,
            lost=lost,
        )

    @property
    def loss(self) -> float | None:
        """The share of packets without an answer, if it is large; it was never all of them."""
        if not self.reached or self.missed_at is not None or self.tries < FEW:
            return None
        share = self.lost / self.tries
        return share if share >= MUCH else None

    def judged(self, pulse: Pulse, begun_at: float) -> "Proof | None":
        """Return the proof that remains after a thorough probe was not answered; None for one way.

        It was begun at `begun_at`. Data that has come since then shows that the server's packets
        arrive; so ours do not. Nothing that has come shows nothing: `evidence` judges that. If only
        acknowledgements have come, or a handshake was completed, the server has heard us, and a
        probe proves nothing until something answers one again.
        """
        if self.missed_at is None:
            return self
        has_handshake = pulse.handshake_at is not None and pulse.handshake_at >= self.missed_at
        if not has_handshake and pulse.data_at is not None and pulse.data_at >= begun_at:
            return None
        is_heard = pulse.heard_at is not None and pulse.heard_at >= begun_at
        return replace(self, reached=False, missed_at=None) if has_handshake or is_heard else self
