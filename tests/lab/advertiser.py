"""A neighbour that calls itself a router and advertises many networks (RFC 4861, 4.2 and 4.6.2).

    python advertiser.py LINK ROUTER COUNT FIRST [autonomous]

It sends router advertisements in the name of the link-local address ROUTER to all nodes on LINK,
which say that COUNT networks, from the one with the number FIRST on, are on this link, and with
`autonomous` that hosts may give themselves addresses in them (RFC 4862). They make no default
route. A program of its own, standard library only.
"""

import socket
import struct
import sys
import time
from ipaddress import IPv6Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probes  # type: ignore[import-not-found]  # found next to this file, wherever that was copied to

ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
ADVERTISEMENT, PREFIX_INFORMATION, ON_LINK, AUTONOMOUS = 134, 3, 0x80, 0x40
LIFETIME = 1800
"""Seconds."""
TOGETHER = 40
"""Networks in one message, which has to fit into a frame."""
PAUSE = 0.002
"""Seconds between two messages: a queue that is full loses them."""


def network(number: int) -> bytes:
    """Return the address of the /64 with this number, of 2001:db8:dead:/48 and those behind it."""
    return (int(IPv6Address("2001:db8:dead::")) + (number << 64)).to_bytes(16, "big")


def advertisement(router: str, numbers: range, flags: int) -> bytes:
    """Return the packet that says that these networks are on the link."""
    message = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 64, 0, 0, 0, 0)
    for number in numbers:
        message += struct.pack("!BBBBIII", PREFIX_INFORMATION, 4, 64, flags, LIFETIME, LIFETIME, 0)
        message += network(number)
    packet = bytearray(probes.ip_packet(router, ALL_NODES, socket.IPPROTO_ICMPV6, message, 2))
    packet[7] = 255  # the hop limit that such a message must have
    return bytes(packet)


def main() -> None:
    """Send what the arguments say."""
    link, router, count, first, *more = sys.argv[1:]
    start, end = int(first), int(first) + int(count)
    flags = ON_LINK | (AUTONOMOUS if more else 0)
    head = probes.ethernet(ALL_NODES_MAC, ":")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as outlet:
        for number in range(start, end, TOGETHER):
            numbers = range(number, min(number + TOGETHER, end))
            outlet.sendto(head + advertisement(router, numbers, flags), (link, 0))
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
