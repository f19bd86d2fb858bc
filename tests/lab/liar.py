"""Sends the kernel what only its router should send: other routes.

    python liar.py redirect HOW OWN DESTINATION ROUTER OTHER PORT
    python liar.py advertise PREFIX

The first says in ROUTER's name that what OWN sends to DESTINATION goes through OTHER (RFC 792), as
of a UDP packet from PORT to the same one, HOW `loopback` or `link`; the second says over loopback
that PREFIX is on this link (RFC 4861, 4.2 and 4.6.2). Over loopback it is a whole frame on a packet
socket. A program of its own, standard library only.
"""

import socket
import struct
import sys
from ipaddress import ip_network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probes  # type: ignore[import-not-found]  # found next to this file, wherever that was copied to

NO_MAC = "00:00:00:00:00:00"
REDIRECT, FOR_HOST = 5, 1
ADVERTISEMENT, PREFIX_INFORMATION, ON_LINK = 134, 3, 0x80
ROUTER, ITSELF = "fe80::bad", "::1"
LIFETIME = 1800
"""Seconds."""


def redirect(own: str, destination: str, router: str, other: str, port: str) -> bytes:
    """Return the packet of the first lie."""
    about = probes.udp_packet(own, destination, int(port), int(port), bytes(64))
    message = struct.pack("!BBH4s", REDIRECT, FOR_HOST, 0, socket.inet_aton(other)) + about
    message = message[:2] + struct.pack("!H", probes.checksum(message)) + message[4:]
    return bytes(probes.ipv4_header(router, own, socket.IPPROTO_ICMP, len(message)) + message)


def advertise(prefix: str) -> bytes:
    """Return the packet of the second lie."""
    network = ip_network(prefix)
    message = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 64, 0, 0, 0, 0)
    message += struct.pack(
        "!BBBBIII", PREFIX_INFORMATION, 4, network.prefixlen, ON_LINK, LIFETIME, LIFETIME, 0
    )
    message += network.network_address.packed
    packet = bytearray(probes.ip_packet(ROUTER, ITSELF, socket.IPPROTO_ICMPV6, message, 2))
    packet[7] = 255  # the hop limit that such a message must have
    return bytes(packet)


def main() -> None:
    """Send the packet that the arguments name."""
    kind, *words = sys.argv[1:]
    if kind == "redirect" and words[0] == "link":
        own = words[1]
        probes.send_packets(own, [redirect(*words[1:])], device="", mark=0)
        return
    packet = redirect(*words[1:]) if kind == "redirect" else advertise(*words)
    head = probes.ethernet(NO_MAC, ":" if kind == "advertise" else "")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as outlet:
        outlet.sendto(head + packet, ("lo", 0))


if __name__ == "__main__":
    main()
