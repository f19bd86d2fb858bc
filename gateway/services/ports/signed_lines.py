"""What the process for signed ports writes, and how the gateway reads it: lines of words.

`server NAME ADDRESS TOKEN` is the server of the tunnel with its address there, the token `-` where
none is kept. `port SERVER PORT EXPIRES PAYLOAD SIGNATURE` is a signed port; see `SignedPort`.
"""

import re
from dataclasses import field
from ipaddress import IPv4Address

from gateway.model.frozen import frozen
from gateway.providers.entries import LAST_PORT, is_host
from gateway.providers.server import SignedPort
from gateway.providers.signed_ports import KeptPort

LONGEST = 64 << 10
NONE = "-"
_WORD = re.compile(r"[A-Za-z0-9+/_=-]{1,2048}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_PORT_WORDS, _SERVER_WORDS = 6, 4


@frozen
class Known:
    """What is kept for the tunnel: its server, a token, and ports that servers have signed."""

    server: str
    gateway: IPv4Address
    token: str = field(repr=False)
    ports: tuple[KeptPort, ...] = ()


def server_line(server: str, gateway: IPv4Address, token: str) -> str:
    """Return the line for the tunnel's server."""
    return f"server {server} {gateway} {token or NONE}"


def port_line(kept: KeptPort) -> str:
    """Return the line for a signed port."""
    signed = kept.signed
    numbers = f"{signed.port} {signed.expires}"
    return f"port {kept.server} {numbers} {signed.payload} {signed.signature}"


def known_in(text: str) -> Known | None:
    """Return what the lines say, None where they name no server."""
    first, *others = text.splitlines() or [""]
    words = first.split(" ")
    if len(words) != _SERVER_WORDS or words[0] != "server" or not is_host(words[1]):
        return None
    try:
        gateway = IPv4Address(words[2])
    except ValueError:
        return None
    token = words[3] if words[3] != NONE and _WORD.fullmatch(words[3]) else ""
    ports = tuple(it for it in map(port_in, others) if it is not None)
    return Known(words[1], gateway, token, ports)


def port_in(line: str) -> KeptPort | None:
    """Return the signed port of a line, None where there is none."""
    words = line.strip().split(" ")
    if len(words) != _PORT_WORDS or words[0] != "port" or not is_host(words[1]):
        return None
    if not all(map(_NUMBER.fullmatch, words[2:4])) or not all(map(_WORD.fullmatch, words[4:])):
        return None
    port, expires = map(int, words[2:4])
    if not 0 < port <= LAST_PORT:
        return None
    return KeptPort(words[1], SignedPort(port, expires, words[4], words[5]))
