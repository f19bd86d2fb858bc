"""Traffic that does not stop: a flood of marked packets, or one flow kept alive.

    python traffic.py flood kinds=udp4,udp6 marker=TEXT rate=5000
    python traffic.py stream host=ADDRESS port=7 protocol=tcp interval=0.05

Prints "ready" when it sends, the stream one JSON line per exchange, and on SIGTERM one last JSON
line of counters. Errors are counted and never end it: the question is what gets out. A program of
its own, standard library only.

Kinds of a flood: udp4, udp6 (ordinary sockets); device4, device6 (bound to `device`); mark4,
mark6 (with the firewall mark `mark`); raw4, raw6 (protocol 253 on raw sockets); tcp4, tcp6
(connection attempts); packet4, packet6 (whole frames on `device` to `router_mac`).
"""

import errno
import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probes  # type: ignore[import-not-found]  # found next to this file, wherever that was copied to

FLOOD = {
    "kinds": "udp4,udp6",
    "host4": "198.51.100.10",
    "host6": "2001:db8:100::10",
    "port": "9",
    "marker": "flood-marker",
    "rate": "5000",
    "device": "eth0",
    "mark": "0xca6c",
    "router_mac": "02:00:00:00:00:01",
    "source4": "172.30.0.2",
    "source6": "fd30::2",
}
STREAM = {
    "host": "198.51.100.10",
    "port": "7",
    "marker": "stream-marker",
    "protocol": "tcp",
    "interval": "0.05",
    "source": "",
    "source_port": "0",
    "device": "",
    "timeout": "1",
}
EXPERIMENT = 253  # RFC 3692: a protocol number for experiments
TICK = 0.001

Sender = Callable[[bytes], None]


stopped: list[int] = []
"""The signals that have asked for the end."""


def sender(kind: str, given: dict[str, str]) -> Sender:
    """Return a function that sends one payload in the way that `kind` names."""
    six = kind.endswith("6")
    family = socket.AF_INET6 if six else socket.AF_INET
    host, port = given["host6" if six else "host4"], int(given["port"])
    if kind.startswith("tcp"):
        return lambda payload: attempt(family, host, port, payload)
    if kind.startswith("packet"):
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        link.setblocking(False)
        source = given["source6" if six else "source4"]

        def frame(payload: bytes) -> None:
            packet = probes.udp_packet(source, host, port, port, payload)
            header = probes.ethernet(given["router_mac"], source)
            link.sendto(header + packet, (given["device"], 0))

        return frame
    if kind.startswith("raw"):
        outlet = socket.socket(family, socket.SOCK_RAW, EXPERIMENT)
        port = 0
    else:
        outlet = socket.socket(family, socket.SOCK_DGRAM)
    outlet.setblocking(False)
    if kind.startswith("device"):
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, given["device"].encode())
    if kind.startswith("mark"):
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(given["mark"], 0))
    return lambda payload: void(outlet.sendto(payload, (host, port)))


def void(_: object) -> None:
    """Drop a result."""


def attempt(family: int, host: str, port: int, payload: bytes) -> None:
    """Start one connection and leave it; the SYN is what counts."""
    with socket.socket(family, socket.SOCK_STREAM) as outlet:
        outlet.setblocking(False)
        try:
            outlet.connect((host, port))
            outlet.send(payload)
        except BlockingIOError:
            time.sleep(TICK)  # the SYN leaves before the socket is closed


def flood(given: dict[str, str]) -> dict[str, Any]:
    """Send until SIGTERM; payloads are "MARKER KIND NUMBER MONOTONIC_NS"."""
    rate = float(given["rate"])
    marker = given["marker"]
    kinds = given["kinds"].split(",")
    sent: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    senders: dict[str, Sender] = {}
    announce()
    started, number = time.monotonic(), 0
    while not stopped:
        for kind in kinds:
            try:
                # A socket that cannot be made now (no such device) is tried again.
                send = senders.get(kind) or senders.setdefault(kind, sender(kind, given))
                send(f"{marker} {kind} {number} {time.monotonic_ns()}".encode())
                sent[kind] += 1
            except OSError as err:
                errors[errno.errorcode.get(err.errno or 0, str(err))] += 1
        number += 1
        ahead = number / rate - (time.monotonic() - started) if rate else 0
        if ahead > TICK:
            time.sleep(ahead)
        elif ahead < -1:  # suspended or starved: no burst to catch up
            started = time.monotonic() - number / rate
    return {"sent": sum(sent.values()), "kinds": sent, "errors": errors, "number": number}


def stream(given: dict[str, str]) -> dict[str, Any]:
    """Keep one flow alive: send a numbered line, wait for its echo, report the outcome."""
    kind = socket.SOCK_STREAM if given["protocol"] == "tcp" else socket.SOCK_DGRAM
    outcomes: Counter[str] = Counter()
    number = 0
    outlet = probes.open_socket(
        given["host"], kind, source=given["source"], source_port=int(given["source_port"]),
        device=given["device"], mark=0, timeout=float(given["timeout"]),
    )  # fmt: skip
    outlet.connect((given["host"], int(given["port"])))
    if given["protocol"] == "tcp":
        void(outlet.recv(256))
    announce()
    while not stopped:
        number += 1
        event: dict[str, Any] = {"number": number, "at": time.monotonic()}
        try:
            payload = f"{given['marker']} {number} ".encode()
            outlet.sendall(payload)
            while not (answer := outlet.recv(4096)).endswith(payload):
                if not answer:
                    raise ConnectionResetError(errno.ECONNRESET, "closed by the far end")
            event |= {"result": "answered", "errno": None}
        except OSError as err:
            event |= probes.outcome(err)
        outcomes[event["result"]] += 1
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
        time.sleep(float(given["interval"]))
    return {"sent": number, "kinds": outcomes, "errors": {}}


def announce() -> None:
    """Say that sending begins."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main() -> None:
    """Run the named traffic until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    name, *words = sys.argv[1:]
    traffic, defaults = {"flood": (flood, FLOOD), "stream": (stream, STREAM)}[name]
    counters = traffic(defaults | dict(word.split("=", 1) for word in words))
    sys.stdout.write(json.dumps(counters) + "\n")


if __name__ == "__main__":
    main()
