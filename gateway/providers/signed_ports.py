"""Signed ports as the gateway keeps them in a file that only root reads, one a line.

Each is a line of JSON with `server` (the name of its certificate), `payload` and `signature`, the
port that was used last first. What they say is read again each time: see `PortService`.
"""

import json
from collections.abc import Iterable, Iterator

from gateway.model.frozen import frozen
from gateway.providers.entries import is_host
from gateway.providers.lists import BadListError, decoded
from gateway.providers.server import BadAnswerError, PortService, SignedPort

LARGEST = 64 << 10
MOST_PORTS = 16
MOST_TRIED = 2
"""How many kept ports a server is asked to forward, before it is asked for a new one."""


@frozen
class KeptPort:
    """A port that the server `server` has signed."""

    server: str
    signed: SignedPort


def dumped(ports: Iterable[KeptPort]) -> str:
    """Return the file that keeps `ports`, the first MOST_PORTS of them."""
    lines = (
        json.dumps(
            {
                "server": each.server,
                "payload": each.signed.payload,
                "signature": each.signed.signature,
            }
        )
        for each in list(ports)[:MOST_PORTS]
    )
    return "".join(f"{line}\n" for line in lines)


def read(text: bytes, service: PortService) -> Iterator[KeptPort]:
    """Yield what such a file holds; lines that are not in this form are left out."""
    if len(text) > LARGEST:
        return
    for line in text.splitlines()[:MOST_PORTS]:
        try:
            entry = decoded(line, LARGEST)
            payload, signature = (
                entry.long_text(name, LARGEST) for name in ("payload", "signature")
            )
            signed = service.read_payload(payload, signature)
        except (BadListError, BadAnswerError):
            continue
        server = entry.text("server")
        if is_host(server):
            yield KeptPort(server, signed)


def to_try(ports: Iterable[KeptPort], server: str, until: float) -> tuple[KeptPort, ...]:
    """Return which kept ports `server` is asked to forward, in order: its own, then the last one.

    Only those that last longer than `until`, in seconds since 1970. A port that another server has
    signed may be forwarded by this one too, so that it stays the same.
    """
    left = [it for it in ports if it.signed.expires > until]
    own = [it for it in left if it.server == server]
    return tuple([*own, *(it for it in left if it.server != server)][:MOST_TRIED])


def to_keep(last: KeptPort, others: Iterable[KeptPort], now: float) -> tuple[KeptPort, ...]:
    """Return what the file is to hold once `last` is in use, without what has expired at `now`.

    Of one server one port is kept.
    """
    left = (it for it in others if it.server != last.server and it.signed.expires > now)
    return (last, *left)[:MOST_PORTS]
