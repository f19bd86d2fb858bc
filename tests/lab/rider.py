"""Tries to ride along with the gateway's question for a name, until standard input closes.

    python rider.py RESOLVER DEVICE

It looks up which UDP ports are open, and sends questions to the resolver that pretend to come from
each of them: from a socket that shares the port, and whole packets with a forged header, with every
mark that a packet socket on DEVICE has been shown. And it asks the resolver as anybody would. The
name that it asks for is rider-marker.test. Prints "ready", and counts when a line comes in. A
program of its own, standard library only.
"""

import json
import select
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probes  # type: ignore[import-not-found]  # found next to this file, wherever that was copied to

SO_REUSEPORT = 15
SO_MARK = 36
SO_RCVMARK = 75
ETH_P_ALL = 3
QUESTION = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x0crider-marker\x04test\0\0\1\0\1"
"""Type A, class IN (RFC 1035, 4.1)."""
WELL_KNOWN = {0xCA6C, 1}


class Rider:
    """The sockets, and what has been found out."""

    def __init__(self, resolver: str, device: str) -> None:
        """Open the packet socket on `device`; where this kernel shows no marks, none are found."""
        self.resolver = resolver
        self.six = ":" in resolver
        self.marks: set[int] = set(WELL_KNOWN)
        self.counts: Counter[str] = Counter()
        self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.tap.bind((device, ETH_P_ALL))
        self.tap.setblocking(False)
        try:
            self.tap.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
        except OSError:
            self.counts["no SO_RCVMARK"] += 1

    def read_marks(self) -> None:
        """Take the marks of what has passed the device."""
        while True:
            try:
                _, ancillary, _, _ = self.tap.recvmsg(65536, 256)
            except BlockingIOError:
                return
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, SO_MARK) and any(data):
                    self.marks.add(struct.unpack("=I", data)[0])
                    self.counts["marks read"] += 1

    def ports(self) -> set[int]:
        """Return the namespace's open UDP ports."""
        lines = Path("/proc/net/udp6" if self.six else "/proc/net/udp").read_text().splitlines()[1:]
        return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}

    def ride(self) -> None:
        """Try everything once."""
        self.attempt("plain", lambda: self.plain(0, shared=False))
        for port in self.ports():
            self.attempt("shared", lambda port=port: self.plain(port, shared=True))
            for mark in self.marks | {0}:
                self.attempt("forged", lambda port=port, mark=mark: self.forged(port, mark))
        self.read_marks()

    def attempt(self, name: str, send: object) -> None:
        """Count what became of one way."""
        try:
            send()  # type: ignore[operator]
            self.counts[name] += 1
        except OSError:
            self.counts[f"{name} refused"] += 1

    def plain(self, port: int, *, shared: bool) -> None:
        """Send from a socket, on a port that another socket has where `shared`."""
        with socket.socket(socket.AF_INET6 if self.six else socket.AF_INET, socket.SOCK_DGRAM) as s:
            if shared:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.setsockopt(socket.SOL_SOCKET, SO_REUSEPORT, 1)
                s.bind(("", port))
            s.sendto(QUESTION, (self.resolver, 53))

    def forged(self, port: int, mark: int) -> None:
        """Send a whole packet from `port` with `mark`."""
        source = self.own_address()
        packet = probes.udp_packet(source, self.resolver, port, 53, QUESTION)
        probes.send_packets(self.resolver, [packet], "", mark)

    def own_address(self) -> str:
        """Return the source address that goes with the resolver."""
        if self.resolver.startswith("127."):
            return "127.0.0.1"
        return "fd30::2" if self.six else "172.30.0.2"


def main() -> None:
    """Ride until the output is closed."""
    rider = Rider(*sys.argv[1:])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0)[0]:
        rider.ride()
        time.sleep(0.002)
    sys.stdout.write(json.dumps(rider.counts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
