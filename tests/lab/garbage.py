"""A resolver that answers garbage; standard library only. Run as `python garbage.py ADDRESS PORT`.

Each answer is one of some kinds in turn: random bytes, the question cut or with a random rest, and
a name that is a loop. Writes a line for each question.
"""

import os
import socket
import struct
import sys


def answers(query: bytes, number: int) -> bytes:
    """Return what is answered to the question `number`."""
    head = query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
    loop = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 2) + b"\xc0\x1d"
    kinds = (
        os.urandom(1200),
        query[:2] + os.urandom(500),
        head,
        head + query[12:] + os.urandom(300),
        head + query[12:] + loop,
        head[:6] + b"\xff\xff" * 3 + query[12:],
        b"",
    )
    return kinds[number % len(kinds)]


def say(word: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Answer until ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind((sys.argv[1], int(sys.argv[2])))
        say("ready")
        number = 0
        while True:
            query, client = channel.recvfrom(4096)
            channel.sendto(answers(query, number), client)
            number += 1
            say("asked")


if __name__ == "__main__":
    main()
