"""Raw sockets of many protocols that print what reaches them: everything the firewall lets in.

    python listener.py MARKER

The kernel hands a packet to raw sockets behind the input chains, whatever its ports (raw(7)).
Prints "ready", then a line for each packet with MARKER in it: what follows the marker, up to the
next full stop. Ends when standard input closes. A program of its own, standard library only, for
a workload of the lab.
"""

import select
import socket
import sys

PROTOCOLS = {
    socket.AF_INET: (1, 6, 17, 47, 136, 253),
    socket.AF_INET6: (58, 6, 17, 47, 136, 253),
}
"""ICMP, TCP, UDP, GRE, UDP-Lite, and a number for experiments (RFC 3692)."""


def main() -> None:
    """Listen until standard input closes."""
    marker = sys.argv[1].encode()
    sockets = [
        socket.socket(family, socket.SOCK_RAW, protocol)
        for family, protocols in PROTOCOLS.items()
        for protocol in protocols
    ]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready = select.select([sys.stdin, *sockets], [], [])[0]
        if sys.stdin in ready:
            return
        for opened in ready:
            _, found, rest = opened.recv(65536).partition(marker)
            if found:
                sys.stdout.write(rest.partition(b".")[0].decode() + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
