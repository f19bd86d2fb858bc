"""A router's advertisement on a link, as any neighbour can send one (RFC 4861, section 4.2).

    python router.py DEVICE LIFETIME [prefix=NETWORK] [route=NETWORK] [mtu=BYTES]

LIFETIME is how many seconds DEVICE's neighbours are to take its link-local address for a default
router; 0 for none. A prefix is on the link and for addresses too (section 4.6.2), a route has the
preference "high" (RFC 4191, section 2.3). A program of its own, standard library only.
"""

import socket
import struct
import sys
from ipaddress import ip_network

ADVERTISEMENT, PREFIX, MTU, ROUTE = 134, 3, 5, 24
ON_LINK_AND_AUTONOMOUS, HIGH = 0xC0, 0x08
ALL_NODES = "ff02::1"
SECONDS = 1800


def option(word: str) -> bytes:
    """Return the option that `word` asks for."""
    kind, _, value = word.partition("=")
    if kind == "mtu":
        return struct.pack("!BBHI", MTU, 1, 0, int(value))
    network = ip_network(value)
    if kind == "prefix":
        flags = ON_LINK_AND_AUTONOMOUS
        head = struct.pack("!BBBBIII", PREFIX, 4, network.prefixlen, flags, SECONDS, SECONDS, 0)
    else:
        head = struct.pack("!BBBBI", ROUTE, 3, network.prefixlen, HIGH, SECONDS)
    return head + network.network_address.packed


def main() -> None:
    """Send one advertisement."""
    device, lifetime, *words = sys.argv[1:]
    index = socket.if_nametoindex(device)
    message = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 64, HIGH, int(lifetime), 0, 0)
    message += b"".join(map(option, words))
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as outlet:
        outlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        outlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        outlet.sendto(message, (ALL_NODES, 0, 0, index))


if __name__ == "__main__":
    main()
