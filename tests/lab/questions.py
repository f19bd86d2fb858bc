"""Asks a resolver many questions a second for some seconds; standard library only.

Run as `python questions.py ADDRESS RATE SECONDS`: each question is for another name, and every
tenth for the same one. Writes how many were sent and how many answers came.
"""

import socket
import struct
import sys
import time

BURST = 0.005
"""Seconds between two bursts."""


def question(number: int) -> bytes:
    """Return a query for an address (RFC 1035, section 4.1)."""
    label = b"same" if number % 10 == 0 else b"q%d" % number
    name = bytes([len(label)]) + label + b"\x07example\x00"
    return struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)


def main() -> None:
    """Ask, and count."""
    address, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    sent = answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.connect((address, 53))
        channel.setblocking(False)
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < seconds:
            while sent < passed * rate:
                try:
                    channel.send(question(sent))
                except OSError:
                    break
                sent += 1
            try:
                while channel.recv(2048):
                    answered += 1
            except OSError:
                pass
            time.sleep(BURST)
    sys.stdout.write(f"{sent} {answered}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
