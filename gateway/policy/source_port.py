"""The source port of the encrypted flow, and another one where the first leads to nothing.

A device that translates addresses may lose a connection, or lead it to nowhere, for as long as
packets of the same port keep it alive. Then a handshake from the same port is lost like the rest.
"""

from dataclasses import replace

from gateway.model import Config, Protocol
from gateway.policy.states import Connected, Connecting, Fetching, Reason, Resolving, State
from gateway.policy.timing import Moment

DYNAMIC_PORTS = range(49152, 65536)
"""Where another listen port is taken from (RFC 6335, section 6)."""

UNANSWERED = frozenset({Reason.SILENT, Reason.ONE_WAY, Reason.NO_HANDSHAKE})
"""Why the next attempt may need another source port."""


def from_another_port(before: State, after: State, config: Config, moment: Moment) -> State:
    """Return `after`, with another listen port for all candidates if a round has failed.

    Another server is another flow in any case. While handshakes are timed, all use one port.
    """
    if not isinstance(before, Connecting | Connected):
        return after
    if not isinstance(after, Connecting | Resolving | Fetching) or after.turn.trial:
        return after
    was_tried = isinstance(before, Connected) or (
        before.built and after.turn.attempt > before.turn.attempt
    )
    is_next = not (isinstance(after, Connecting) and after.built)
    if not (was_tried and is_next and before.turn.is_last and after.reason in UNANSWERED):
        return after
    port = another_port(after.turn.candidate.listen_port, config, moment.chance)
    candidates = tuple(replace(it, listen_port=port) for it in after.turn.candidates)
    after = replace(after, turn=replace(after.turn, candidates=candidates))
    if isinstance(after, Connecting):
        return replace(after, tunnel=replace(after.tunnel, listen_port=port))
    return after


def another_port(port: int, config: Config, chance: float) -> int:
    """Return one of DYNAMIC_PORTS that is neither `port` nor a listed input port.

    `chance` is a random number in [0, 1). Where all are listed, it is `port`.
    """
    listed = [it for it in config.input_ports if it.protocol is Protocol.UDP]
    start = int(chance * len(DYNAMIC_PORTS))
    order = (*DYNAMIC_PORTS[start:], *DYNAMIC_PORTS[:start])
    free = (it for it in order if not any(own.first <= it <= own.last for own in listed))
    return next((it for it in free if it != port), port)
