"""One TCP connection that carries data in one direction for as long as it lives.

    python transfer.py source ADDRESS PORT      send to each client, and do not listen to it
    python transfer.py sink HOST PORT [SOURCE]  receive from a server, and say nothing

The data is a sequence of numbers, so that a sink notices a byte that is missing. It writes a JSON
line for each block that it has received, with `at` (seconds of the monotonic clock) and `blocks`,
and at the end one with `error`. It never connects again. A program of its own, standard library
only.
"""

import json
import socket
import struct
import sys
import threading
import time

BLOCK = struct.Struct("!Q")
REPEATED = 64
PAUSE = 0.02
"""Seconds between two blocks of REPEATED equal numbers."""


def push(client: socket.socket) -> None:
    """Send until the connection ends."""
    number = 0
    try:
        while True:
            client.sendall(BLOCK.pack(number) * REPEATED)
            number += 1
            time.sleep(PAUSE)
    except OSError as err:
        say(error=type(err).__name__)


def source(address: str, port: str) -> None:
    """Serve clients until the process is killed."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, int(port)), family=family)
    say(ready=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=push, args=(client,), daemon=True).start()


def sink(host: str, port: str, own: str = "") -> None:
    """Receive until the connection ends."""
    connection = socket.create_connection((host, int(port)), 5, (own, 0) if own else None)
    connection.settimeout(None)
    number = 0
    try:
        with connection.makefile("rb") as stream:
            while block := stream.read(BLOCK.size * REPEATED):
                if block != BLOCK.pack(number) * REPEATED:
                    say(error="data lost")
                    return
                number += 1
                say(at=time.monotonic(), blocks=number)
    except OSError as err:
        say(error=type(err).__name__)
        return
    say(error="closed")


def say(**fields: object) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"source": source, "sink": sink}[sys.argv[1]](*sys.argv[2:])
