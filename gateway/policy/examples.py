"""One state of each kind for a configuration, to show its rules."""

from collections.abc import Iterator
from ipaddress import ip_address

from gateway.model import Config
from gateway.policy.dns import DOCKER_RESOLVER, with_addresses
from gateway.policy.evidence import Pulse
from gateway.policy.marks import SHOWN, with_secret_mark
from gateway.policy.states import (
    Connected,
    Connecting,
    Locked,
    Query,
    Reason,
    Resolving,
    State,
    Turn,
)

NOT_YET_KNOWN = ip_address("192.0.2.1")
"""A placeholder for the address of an endpoint that is given by name (RFC 5737)."""

DRAWN_MARK = SHOWN | 0x2345678
"""A placeholder for the firewall mark that is drawn at each start."""

_SOURCE_PORT = 49152
_MARK = 1


def each_state(config: Config) -> Iterator[tuple[str, State]]:
    """Yield a title and a state: closed, and each candidate connecting and connected.

    A candidate whose server has a name is resolving before that; the question's port and mark,
    which are drawn each time, are examples, and so is the resolver where none is configured.
    A firewall mark that the user has not chosen is `DRAWN_MARK`.
    """
    config = with_secret_mark(config, DRAWN_MARK)
    yield "Locked, and stopping", Locked()
    for number, candidate in enumerate(config.tunnels, 1):
        tunnel = with_addresses(candidate, dict.fromkeys(candidate.names, NOT_YET_KNOWN))
        turn = Turn((tunnel,))
        which = f" with tunnel {number}" if len(config.tunnels) > 1 else ""
        if candidate.names:
            resolver = config.endpoint_resolver or DOCKER_RESOLVER
            yield (
                f"Looking up the server's name{which}",
                Resolving(
                    Turn((candidate,)),
                    Reason.STARTING,
                    since=0.0,
                    retry_at=0.0,
                    query=Query(resolver, _SOURCE_PORT, _MARK),
                ),
            )
        yield (
            f"Connecting{which}",
            Connecting(turn, tunnel, Reason.NO_HANDSHAKE, since=0.0, retry_at=0.0, built=True),
        )
        yield f"Connected{which}", Connected(turn, tunnel, since=0.0, pulse=Pulse())
