"""UDP packets as bytes, for raw sockets and packet sockets, which take whole packets."""

import struct
from ipaddress import IPv6Address

from gateway.model import Address
from gateway.system.echoes import checksum

UDP = 17
HOPS = 64


def udp_packet(source: Address, target: Address, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return the IP packet from `source` to `target` with `ports` (from, to) and `payload`."""
    ends = source.packed + target.packed
    length = 8 + len(payload)
    head = struct.pack("!3H", *ports, length)
    pseudo = ends + struct.pack("!II", length, UDP)
    padded = payload + bytes(len(payload) % 2)
    summed = checksum(pseudo + head + bytes(2) + padded) or 0xFFFF  # RFC 768: 0 means none
    segment = head + struct.pack("!H", summed) + payload
    return _header(source, target, ends, length) + segment


def _header(source: Address, target: Address, ends: bytes, length: int) -> bytes:
    if isinstance(target, IPv6Address) or isinstance(source, IPv6Address):
        return struct.pack("!IHBB", 6 << 28, length, UDP, HOPS) + ends
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0, HOPS, UDP)
    return head + struct.pack("!H", checksum(head + bytes(2) + ends)) + ends


ETHER_TYPE = {4: 0x0800, 6: 0x86DD}
STATION = bytes.fromhex("020000000001")
"""An Ethernet address: locally administered, one station."""


def frame(packet: bytes) -> bytes:
    """Return an Ethernet frame with `packet` to an address that no station has."""
    return STATION + bytes(6) + struct.pack("!H", ETHER_TYPE[packet[0] >> 4]) + packet
