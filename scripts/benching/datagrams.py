"""One flow of UDP datagrams at a fixed rate, and how much processor time each end took for it.

    python datagrams.py ROLE TASK ADDRESS PORT SIZE RATE SECONDS

ROLE is `listen` (bind, and wait for a greeting) or `connect` (greet), so that the flow is always
one that the side with `connect` has begun. TASK is `send` (RATE datagrams a second of SIZE bytes
each, for SECONDS) or `receive` (until QUIET seconds without any). Prints "ready", and at the end
one JSON line: datagrams, seconds of a processor, seconds by the clock. Standard library only.
"""

import json
import socket
import sys
import time

TICK = 0.002
"""Seconds between two bursts. Shorter ones would measure the wake-ups of the sender."""
QUIET = 0.3
PATIENCE = 10.0
"""Seconds that either end waits for the other."""
GREETING = b"begin"


def opened(role: str, address: str, port: int) -> socket.socket:
    """Return a socket that is connected to the other end."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    outlet = socket.socket(family, socket.SOCK_DGRAM)
    outlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    outlet.settimeout(PATIENCE)
    if role == "listen":
        outlet.bind((address, port))
        say("ready")
        _greeting, peer = outlet.recvfrom(64)
        outlet.connect(peer)
    else:
        outlet.connect((address, port))
        say("ready")
        outlet.send(GREETING)
    return outlet


def send(outlet: socket.socket, size: int, rate: float, seconds: float) -> int:
    """Send `rate` datagrams of `size` bytes a second in bursts; return how many were sent."""
    time.sleep(TICK)  # the greeting is in
    payload, push, sent = b"x" * size, outlet.send, 0
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        for _ in range(int(now * rate) - sent):
            push(payload)
            sent += 1
        time.sleep(TICK)
    return sent


def receive(outlet: socket.socket) -> int:
    """Return how many datagrams came until QUIET seconds passed without any."""
    take, taken = outlet.recv_into, 0
    room = bytearray(1 << 16)
    try:
        while True:
            if take(room) != len(GREETING):
                taken += 1
                if taken == 1:
                    outlet.settimeout(QUIET)
    except TimeoutError:
        return taken


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def main() -> None:
    """Run one end."""
    role, task, address, port, size, rate, seconds = sys.argv[1:]
    outlet = opened(role, address, int(port))
    began, worked = time.monotonic(), time.process_time()
    if task == "send":
        number = send(outlet, int(size), float(rate), float(seconds))
    else:
        number = receive(outlet)
    report = {
        "datagrams": number,
        "cpu": time.process_time() - worked,
        "seconds": time.monotonic() - began,
    }
    say(json.dumps(report))


if __name__ == "__main__":
    main()
