"""Hosts of the lab: an echo that returns the client's address, the same over HTTP, and a resolver.

    python services.py JSON

JSON is a list of services, each an object with `kind` (echo, http or dns), `address`, `port`
and, for dns, `answers` (record type to addresses, separated by commas). Every arrival is one JSON
line on standard output, after the line "ready". A program of its own, standard library only, so
that it also runs in a guest or a container. It ends when standard input closes. Several start with
each lab, hence no asyncio: its import takes longer than everything else here.

- echo, TCP: the first line is "ADDRESS PORT" of the client, then everything comes back.
- echo, UDP: the answer is "ADDRESS PORT " and what was sent.
- http: the body is the client's address and a line feed.
- dns, UDP and TCP: answers every name with the addresses for the type asked, or with nothing.
"""

import _thread  # threading imports three times as much, for names that nothing here uses
import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

TYPES = {1: "A", 28: "AAAA", 16: "TXT", 5: "CNAME", 255: "ANY", 65: "HTTPS"}


Service = dict[str, Any]
BACKLOG = 100
"""Connections that wait for their thread."""


def say(line: str) -> None:
    """Write one line at once, whole, whichever thread it comes from."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def note(**event: object) -> None:
    """Write one event."""
    say(json.dumps({"at": time.monotonic(), **event}))


def plain(address: str) -> str:
    """Return an address without zone and without the mapping of IPv4 into IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def dns_question(query: bytes) -> tuple[str, str, bytes]:
    """Return name, type and the raw question section of a query (RFC 1035, 4.1.2)."""
    labels = []
    position = 12
    while query[position]:
        length = query[position]
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace"))
        position += 1 + length
    (kind,) = struct.unpack_from("!H", query, position + 1)
    return ".".join(labels), TYPES.get(kind, str(kind)), query[12 : position + 5]


def dns_answer(query: bytes, service: Service) -> bytes:
    """Return the response of a resolver to one query."""
    asked, kind, question = dns_question(query)
    answers = service.get("names", {}).get(asked, service["answers"])
    records = b""
    count = 0
    for number, name in ((1, "A"), (28, "AAAA")):
        if name in answers and kind in {name, "ANY"}:
            for address in answers[name].split(","):
                data = ipaddress.ip_address(address).packed
                records += struct.pack("!HHHIH", 0xC00C, number, 1, 1, len(data)) + data
                count += 1
    # QR, RD copied as set, RA; no error. Additional records (EDNS) are not repeated.
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, count, 0, 0) + question + records


def heard(service: Service, transport: str, client: str, port: int) -> dict[str, Any]:
    """Return what every event has in common."""
    return {
        "kind": service["kind"],
        "transport": transport,
        "address": service["address"],
        "port": service["port"],
        "client": client,
        "client_port": port,
    }


def serve_datagram(service: Service, outlet: socket.socket) -> None:
    """Answer one datagram."""
    try:
        data, peer = outlet.recvfrom(1 << 16)
    except OSError:  # an ICMP error about an earlier answer
        return
    client = plain(peer[0])
    if service["kind"] == "dns":
        try:
            name, kind, _ = dns_question(data)
        except (IndexError, struct.error):
            return
        answer = dns_answer(data, service)
        event = {"name": name, "type": kind}
    else:
        answer = f"{client} {peer[1]} ".encode() + data
        event = {"data": data[:64].decode("ascii", "replace")}
    note(**heard(service, "udp", client, peer[1]), **event)
    try:
        outlet.sendto(answer, peer)
    except OSError:  # the way back is closed, which is what some tests are about
        return


def serve_connection(service: Service, connection: socket.socket, peer: tuple[Any, ...]) -> None:
    """Serve one connection to its end, on a thread of its own."""
    event = heard(service, "tcp", plain(peer[0]), peer[1])
    with connection:
        try:
            STREAMS[service["kind"]](service, connection, event)
        except (OSError, EOFError):
            return


def echo(_service: Service, connection: socket.socket, event: dict[str, Any]) -> None:
    """Send the client its address, then everything back."""
    note(**event)
    connection.sendall(f"{event['client']} {event['client_port']}\n".encode())
    while data := connection.recv(65536):
        connection.sendall(data)


def http(_service: Service, connection: socket.socket, event: dict[str, Any]) -> None:
    """Answer one request with the client's address."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += received(connection, 1)
    note(**event, data=request.partition(b"\r\n")[0].decode("ascii", "replace"))
    body = f"{event['client']}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


def dns(service: Service, connection: socket.socket, event: dict[str, Any]) -> None:
    """Answer queries with the two-octet length in front (RFC 1035, 4.2.2)."""
    note(**event, connected=True)
    while True:
        query = received(connection, int.from_bytes(received(connection, 2), "big"))
        name, kind, _ = dns_question(query)
        note(**event, name=name, type=kind)
        answer = dns_answer(query, service)
        connection.sendall(len(answer).to_bytes(2, "big") + answer)


def received(connection: socket.socket, size: int) -> bytes:
    """Return exactly `size` octets; EOFError when the client ends before."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


STREAMS = {"echo": echo, "http": http, "dns": dns}


def serve_client(service: Service, listener: socket.socket) -> None:
    """Accept one connection and serve it on a thread of its own."""
    try:
        connection, peer = listener.accept()
    except OSError:  # it is gone already
        return
    connection.setblocking(True)
    _thread.start_new_thread(serve_connection, (service, connection, peer))


def opened(service: Service, kind: int) -> socket.socket:
    """Return the bound socket of a service."""
    family = socket.AF_INET6 if ":" in service["address"] else socket.AF_INET
    outlet = socket.socket(family, kind)
    if kind == socket.SOCK_STREAM:
        outlet.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            outlet.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    outlet.bind((service["address"], service["port"]))
    if kind == socket.SOCK_STREAM:
        outlet.listen(BACKLOG)
    outlet.setblocking(False)
    return outlet


def main() -> None:
    """Open every service, say so, and serve until standard input ends."""
    selector = selectors.PollSelector()  # epoll takes no file for standard input
    handlers: list[tuple[int, Callable[[Service, socket.socket], None]]] = [
        (socket.SOCK_STREAM, serve_client),
        (socket.SOCK_DGRAM, serve_datagram),
    ]
    for service in json.loads(sys.argv[1]):
        for kind, handler in handlers:
            if kind == socket.SOCK_STREAM or service["kind"] != "http":
                selector.register(opened(service, kind), selectors.EVENT_READ, (handler, service))
    selector.register(sys.stdin, selectors.EVENT_READ)
    say("ready")
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                handler, service = key.data
                handler(service, key.fileobj)
            elif not os.read(sys.stdin.fileno(), 4096):
                return


if __name__ == "__main__":
    main()
