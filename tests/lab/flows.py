"""Many flows on loopback, as any workload can begin them: one datagram each.

    python flows.py COUNT
    python flows.py endless

They go to COUNT addresses of 127.0.0.0/8; no program reads them. A program of its own, standard
library only.
"""

import contextlib
import itertools
import socket
import sys

PORT = 40077
FIRST = (127 << 24) + (1 << 16)
ROOM = 1 << 22
"""Addresses that are used, round and round."""


def main() -> None:
    """Send until there is an end."""
    wanted = sys.argv[1]
    numbers = itertools.count() if wanted == "endless" else range(int(wanted))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outlet,
    ):
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sink.bind(("0.0.0.0", PORT))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for number in numbers:
            host = socket.inet_ntoa((FIRST + number % ROOM).to_bytes(4, "big"))
            with contextlib.suppress(OSError):  # of a full table: the kernel drops the first packet
                outlet.sendto(b"flow", (host, PORT))


if __name__ == "__main__":
    main()
