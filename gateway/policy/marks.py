"""The firewall mark of the encrypted flow, and how it stays secret although routing rules match it.

A workload with CAP_NET_RAW can set any mark (Linux 5.17, net/core/sock.c, sock_setsockopt) and put
any source port into a raw packet. If it knows the mark, its packet looks like the encrypted flow.
Routing rules match the mark, and every process can list them. Therefore:

- The gateway draws a random mark at each start.
- Routing rules match one bit of it; the firewall matches all of it.
- Arriving packets get that bit alone, because raw sockets see their mark (SO_RCVMARK, Linux 5.19).
- The egress guard removes the mark before a packet socket can see it. Without the guard, packet
  sockets need no mark anyway.

The marks of the egress guard and of the query for the endpoint's name are made in the same way, so
that logs show the same part of each. They may have the bit, because no route depends on it alone:
the routing rule also matches the endpoint's address, the guard's mark is set after routing, and
no such rule exists while the name is looked up.
"""

from dataclasses import replace

from gateway.model import Config

SHOWN = 0x8000_0000
"""The bit that every secret mark has and routing rules match; an uplink's mark does not have it."""

WHOLE = 0xFFFF_FFFF


def secret(number: int) -> int:
    """Return the secret mark that is made of the random `number`, which has 31 bits."""
    return number | SHOWN


def shown(mark: int) -> int:
    """Return the part of the flow's `mark` that may be public: all of a mark that is not secret."""
    return SHOWN if mark & SHOWN else mark


def mask(mark: int) -> int:
    """Return the bits of the flow's `mark` that routing rules match."""
    return SHOWN if mark & SHOWN else WHOLE


def with_secret_mark(config: Config, number: int) -> Config:
    """Return `config` with a mark made of the random `number` for each tunnel without a FwMark.

    A FwMark of the user stays, whatever its value, and is not secret.
    """
    tunnels = tuple(
        replace(tunnel, fwmark=secret(number)) if tunnel.fwmark is None else tunnel
        for tunnel in config.tunnels
    )
    return replace(config, tunnels=tunnels)
