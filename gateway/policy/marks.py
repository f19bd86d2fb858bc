"""The firewall mark of the encrypted flow: how it stays a secret though routing rules go by it.

A workload with CAP_NET_RAW can set any mark (Linux 5.17, net/core/sock.c, sock_setsockopt) and put
any source port into a raw packet. So a mark that it knows makes a packet of its own the encrypted
flow's equal, and routing rules, which go by the mark, are shown to everybody. Therefore the mark is
drawn at each start, rules ask for one bit of it, the firewall for all of it, and arriving packets,
which raw sockets are shown with their mark (SO_RCVMARK, Linux 5.19), get that bit alone. What
leaves has lost the mark before a packet socket can see it, where there is an egress guard; where
there is none, packet sockets need no mark anyway.
"""

from dataclasses import replace

from gateway.model import Config

SHOWN = 0x8000_0000
"""The bit of a secret mark that routing rules ask for; no mark that is not a secret has it."""

WHOLE = 0xFFFF_FFFF


def secret(number: int) -> int:
    """Return the secret mark that is made of the random `number`, which has 31 bits."""
    return number | SHOWN


def shown(mark: int) -> int:
    """Return what everybody may see of the flow's `mark`: all of one that is no secret."""
    return SHOWN if mark & SHOWN else mark


def mask(mark: int) -> int:
    """Return which bits of the flow's `mark` routing rules ask for."""
    return SHOWN if mark & SHOWN else WHOLE


def with_secret_mark(config: Config, number: int) -> Config:
    """Return `config` with a mark made of the random `number` where the user has chosen none.

    A chosen mark stays, whatever its value, and is not a secret.
    """
    tunnels = tuple(
        replace(tunnel, fwmark=secret(number)) if tunnel.fwmark is None else tunnel
        for tunnel in config.tunnels
    )
    return replace(config, tunnels=tunnels)
