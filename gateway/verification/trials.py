"""The ways around the tunnel, each tried once; what the kernel says is told by name."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.model import Address, Facts, Tunnel, Uplink
from gateway.policy.firewall import DOCKER_RESOLVER
from gateway.policy.routing import DEFAULTS, reply_mark
from gateway.system.probe import checksum

TARGETS = {4: "203.0.113.77", 6: "2001:db8:ffff::77"}
"""Addresses that nobody has (RFC 5737, RFC 3849)."""

PORT = 9
"""Discard (RFC 863)."""

DNS_PORT = 53
WAIT = 1.0
"""Seconds that an answer may take; what is refused is refused at once."""

ETH_P_IP = 0x0800
SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
UDP = 17
SOMEBODY = bytes.fromhex("020000000001")
"""An Ethernet address: locally administered, one station."""


@dataclass(frozen=True)
class Trial:
    """One way to get a packet out; `run` returns in a word what came of it.

    `is_shown` is False where a witness cannot see the packet, so that only the kernel's refusal
    counts. An answer is a leak in any case.
    """

    name: str
    run: Callable[[bytes], str]
    is_shown: bool = True


ANSWERED = "answered"
SENT = "the kernel took it"


def trials(facts: Facts, tunnel: Tunnel | None, resolvers: tuple[Address, ...]) -> Iterator[Trial]:
    """Yield every way around the tunnel of a namespace like `facts`.

    `resolvers` are those of the network outside the tunnel, as the container was given them.
    """
    for version, target in TARGETS.items():
        for uplink in facts.uplinks:
            yield from _bound(version, target, uplink)
        mark = tunnel.fwmark if tunnel else 0
        port = tunnel.listen_port if tunnel else 0
        yield Trial(f"IPv{version} with WireGuard's usual mark", _udp(target, mark=mark))
        yield Trial(f"IPv{version} from the tunnel's port", _udp(target, source_port=port))
        yield Trial(f"IPv{version} raw, protocol 253", _raw(target))
    for uplink in facts.uplinks:
        for bypass in (False, True):
            name = f"packet socket on {uplink.name}{', without queue' if bypass else ''}"
            yield Trial(name, _packet(uplink, bypass=bypass), is_shown=not bypass)
    docker = str(DOCKER_RESOLVER.network_address)
    outside = dict.fromkeys((docker, *map(str, resolvers), *_routers(facts)))
    for resolver in outside:
        yield Trial(f"DNS over UDP at {resolver}", _dns(resolver, socket.SOCK_DGRAM))
        yield Trial(f"DNS over TCP at {resolver}", _dns(resolver, socket.SOCK_STREAM))


def ordinary() -> Iterator[Trial]:
    """Yield what an application does that knows nothing of tunnels."""
    for version, target in TARGETS.items():
        yield Trial(f"IPv{version} UDP", _udp(target))
        yield Trial(f"IPv{version} TCP", _tcp(target))


def _bound(version: int, target: str, uplink: Uplink) -> Iterator[Trial]:
    name = f"IPv{version} bound to {uplink.name}"
    yield Trial(f"{name}, UDP", _udp(target, device=uplink.name))
    yield Trial(f"{name}, TCP", _tcp(target, device=uplink.name))
    for address in uplink.addresses:
        if address.version == version:
            source = str(address.ip)
            yield Trial(f"IPv{version} from {source}", _udp(target, source=source))
    yield Trial(
        f"IPv{version} with the mark of answers by {uplink.name}",
        _udp(target, mark=reply_mark(uplink)),
    )


def _routers(facts: Facts) -> list[str]:
    defaults = DEFAULTS.values()
    return [str(r.gateway) for r in facts.routes if r.gateway and r.destination in defaults]


def _told(attempt: Callable[[bytes], str]) -> Callable[[bytes], str]:
    """Return `attempt` with the kernel's refusal told by the name of its error."""

    def run(marker: bytes) -> str:
        try:
            return attempt(marker)
        except TimeoutError:
            return "no answer"
        except OSError as err:
            return errno.errorcode.get(err.errno or 0, str(err))

    return run


def _open(target: str, kind: int, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    channel = socket.socket(family, kind, protocol)
    channel.settimeout(WAIT)
    return channel


def _udp(
    target: str, *, device: str = "", source: str = "", source_port: int = 0, mark: int = 0
) -> Callable[[bytes], str]:
    def attempt(marker: bytes) -> str:
        with _open(target, socket.SOCK_DGRAM) as channel:
            if device:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            if mark:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            if source or source_port:
                channel.bind((source, source_port))
            channel.sendto(marker, (target, PORT))
            return SENT

    return _told(attempt)


def _tcp(target: str, *, device: str = "") -> Callable[[bytes], str]:
    def attempt(_marker: bytes) -> str:
        with _open(target, socket.SOCK_STREAM) as channel:
            if device:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            channel.connect((target, PORT))
            return ANSWERED

    return _told(attempt)


def _raw(target: str) -> Callable[[bytes], str]:
    experiment = 253  # RFC 3692: a protocol number for experiments

    def attempt(marker: bytes) -> str:
        with _open(target, socket.SOCK_RAW, experiment) as channel:
            channel.sendto(marker, (target, 0))
            return SENT

    return _told(attempt)


def _packet(uplink: Uplink, *, bypass: bool) -> Callable[[bytes], str]:
    """Return an attempt to put a whole frame on the link."""

    def attempt(marker: bytes) -> str:
        own = next((str(a.ip) for a in uplink.addresses if a.version == 4), "0.0.0.0")  # noqa: PLR2004, S104
        source, target = socket.inet_aton(own), socket.inet_aton(TARGETS[4])
        segment = struct.pack("!4H", PORT, PORT, 8 + len(marker), 0) + marker
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, UDP, 0)
        check = struct.pack("!H", checksum(head + source + target))
        packet = head[:10] + check + source + target + segment
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            if bypass:
                channel.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
            channel.bind((uplink.name, 0))
            channel.send(SOMEBODY + bytes(6) + struct.pack("!H", ETH_P_IP) + packet)
            return SENT

    return _told(attempt)


def _dns(resolver: str, kind: int) -> Callable[[bytes], str]:
    """Return a question for a name that does not exist (RFC 6761, `invalid`), with the marker."""

    def attempt(marker: bytes) -> str:
        name = bytes([len(marker)]) + marker + b"\x07invalid\0"
        question = os.urandom(2) + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + name
        question += struct.pack("!2H", 1, 1)
        if kind == socket.SOCK_STREAM:
            question = struct.pack("!H", len(question)) + question
        with _open(resolver, kind) as channel:
            channel.connect((resolver, DNS_PORT))
            channel.send(question)
            return ANSWERED if channel.recv(512) else "no answer"

    return _told(attempt)
